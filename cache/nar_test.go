package cache

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"narwharf/cache/reply"
)

// random makes a NAR that no compression makes smaller.
func random(t testing.TB, name string, size int) *testPath {
	t.Helper()
	data := make([]byte, size)
	if _, err := rand.Read(data); err != nil {
		t.Fatal(err)
	}
	return packUpload(t, name, narOf(t, map[string]string{"data": string(data)}), "none")
}

func TestGetNar(t *testing.T) {
	w := newWorld(t)
	p := random(t, "p", 100_000)
	w.putAll(p)
	n := len(p.body)
	etag := `"` + p.file[:52] + `"`
	for _, c := range []struct {
		name   string
		header []string
		status int
		from   int
		to     int // of the body
	}{
		{"whole", nil, 200, 0, n},
		{"nothing is encoded", []string{"Accept-Encoding", "zstd, br, gzip, deflate, bzip2, xz"}, 200, 0, n},
		{"resumed", []string{"Range", "bytes=1000-"}, 206, 1000, n},
		{"a piece", []string{"Range", "bytes=5-9", "Accept-Encoding", "gzip"}, 206, 5, 10},
		{"the end", []string{"Range", "bytes=-7"}, 206, n - 7, n},
		{"the last byte", []string{"Range", fmt.Sprintf("bytes=%d-", n-1)}, 206, n - 1, n},
		{"all by range", []string{"Range", "bytes=0-"}, 206, 0, n},
		{"ends behind the end", []string{"Range", fmt.Sprintf("bytes=10-%d", n+5)}, 206, 10, n},
		{"unknown unit", []string{"Range", "lines=1-2"}, 416, 0, 0},
		{"behind the end", []string{"Range", fmt.Sprintf("bytes=%d-", n)}, 416, 0, 0},
		{"far behind", []string{"Range", "bytes=99999999999-"}, 416, 0, 0},
		{"malformed", []string{"Range", "bytes=x-y"}, 416, 0, 0},
		{"matches", []string{"If-None-Match", etag}, 304, 0, 0},
		{"matches one of", []string{"If-None-Match", `"x", W/` + etag}, 304, 0, 0},
		{"matches and range", []string{"If-None-Match", etag, "Range", "bytes=5-9"}, 304, 0, 0},
		{"does not match", []string{"If-None-Match", `"x"`}, 200, 0, n},
		{"if-range is this", []string{"If-Range", etag, "Range", "bytes=5-9"}, 206, 5, 10},
		{"if-range is another", []string{"If-Range", `"x"`, "Range", "bytes=5-9"}, 200, 0, n},
	} {
		t.Run(c.name, func(t *testing.T) {
			get := w.get(p.narURL(), c.header...)
			if get.status != c.status || get.cut != nil {
				t.Fatalf("%d, %v", get.status, get.cut)
			}
			if c.status < 300 && get.body != string(p.body[c.from:c.to]) {
				t.Errorf("%d bytes, want those from %d to %d", len(get.body), c.from, c.to)
			}
			h := get.header
			if h.Get("Accept-Ranges") != "bytes" || h.Get("Content-Encoding") != "" {
				t.Errorf("headers %v", h)
			}
			if c.status < 400 && (h.Get("Etag") != etag || !strings.Contains(h.Get("Cache-Control"), "immutable")) {
				t.Errorf("headers %v", h)
			}
			switch c.status {
			case 200, 206:
				if h.Get("Content-Type") != narType || h.Get("Content-Length") != fmt.Sprint(c.to-c.from) {
					t.Errorf("headers %v", h)
				}
			}
			if want := fmt.Sprintf("bytes %d-%d/%d", c.from, c.to-1, n); c.status == 206 && h.Get("Content-Range") != want {
				t.Errorf("Content-Range %q, want %q", h.Get("Content-Range"), want)
			}
			if want := fmt.Sprintf("bytes */%d", n); c.status == 416 && strings.HasPrefix(c.name, "be") && h.Get("Content-Range") != want {
				t.Errorf("Content-Range %q, want %q", h.Get("Content-Range"), want)
			}
			if c.status != 416 { // net/http's own words, and their length
				sameHead(t, get, w.head(p.narURL(), c.header...))
			}
		})
	}
}

// Nix takes any error of a resume without Accept-Ranges as final.
func TestNarErrorsHaveAcceptRanges(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.anonymous = nil })
	auth := []string{"Authorization", "Bearer " + w.token}
	for _, c := range []struct {
		path   string
		header []string
		status int
	}{
		{examples["nar"], auth, 404}, {examples["nar"], nil, 401}, {"/nar/x", auth, 404}, {"/nar/", auth, 404},
		{"/nar/a/b", auth, 404}, {"/nar/" + someFile, auth, 404}, {"/nar/%2e%2e/x", nil, 404},
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			a := w.must(w.do(method, c.path, nil, c.header...), c.status)
			if a.header.Get("Accept-Ranges") != "bytes" {
				t.Errorf("%s %s: %v", method, c.path, a.header)
			}
		}
	}
	if a := w.get("/log/x", auth...); a.header.Get("Accept-Ranges") != "" {
		t.Error("Accept-Ranges where there are no ranges")
	}
}

// An HTTP/1.0 client cannot see a truncation, unless it is told the length.
func TestNarOverHTTP10(t *testing.T) {
	w := newWorld(t)
	p := random(t, "p", 10_000)
	w.putAll(p)
	c := w.dial(t)
	c.say("GET %s HTTP/1.0\r\n\r\n", p.narURL())
	a := c.hear(http.MethodGet)
	if a.status != 200 || a.body != string(p.body) || a.header.Get("Content-Length") != fmt.Sprint(len(p.body)) {
		t.Errorf("%d with %v", a.status, a.header)
	}
}

// A file that turns out shorter than it was must not look like a whole one.
func TestNarThatShrinks(t *testing.T) {
	w := newWorld(t, viaNetHTTP)
	p := random(t, "p", 4<<20)
	w.putAll(p)
	for _, header := range [][]string{nil, {"Range", "bytes=10-"}} {
		content := &shrinking{Reader: bytes.NewReader(p.body), left: 1 << 20}
		w.reads("nar", func(rw *reply.Writer, req *http.Request) {
			_ = reply.Content(rw, req, content, int64(len(p.body)))
		})
		a := w.get(p.narURL(), header...)
		if a.cut == nil {
			t.Errorf("a whole answer %d of %d bytes", a.status, len(a.body))
		}
	}
}

// The same of a file, which is sent by sendfile.
func TestNarFileThatShrinks(t *testing.T) {
	w := newWorld(t, viaNetHTTP)
	p := random(t, "p", 4<<20)
	w.putAll(p)
	f := fileOf(t, 1<<20)
	w.reads("nar", func(rw *reply.Writer, req *http.Request) {
		_ = reply.Content(rw, req, f, int64(len(p.body)))
	})
	if a := w.get(p.narURL()); a.cut == nil {
		t.Errorf("a whole answer %d of %d bytes", a.status, len(a.body))
	}
}

// What sendFile answers is what http.ServeContent answers to the same request.
func TestSendFile(t *testing.T) {
	w := newWorld(t, viaNetHTTP)
	f := fileOf(t, 100_000)
	name := newUpload(t, "p", "none").narURL()
	type plain struct{ io.ReadSeeker } // no *os.File
	for _, header := range [][]string{nil, {"Range", "bytes=5-9"}, {"Range", "nonsense"}, {"If-None-Match", `"e"`}, {"If-Match", `"x"`}, {"If-Range", `"e"`}} {
		var answers []answer
		for _, content := range []io.ReadSeeker{f, plain{f}} {
			w.reads("nar", func(rw *reply.Writer, req *http.Request) {
				if _, err := f.Seek(0, io.SeekStart); err != nil {
					t.Error(err)
				}
				h := rw.Header()
				h["Etag"], h["Content-Type"] = []string{`"e"`}, []string{narType}
				_ = reply.Content(rw, req, content, 100_000)
			})
			a := w.get(name, header...)
			a.header.Del("Date")
			answers = append(answers, a)
		}
		if !reflect.DeepEqual(answers[0], answers[1]) {
			t.Errorf("%q: %d %v, and %d %v", header, answers[0].status, answers[0].header, answers[1].status, answers[1].header)
		}
	}
}

type shrinking struct {
	*bytes.Reader
	left int
}

func (s *shrinking) Read(p []byte) (int, error) {
	if s.left <= 0 {
		return 0, io.EOF
	}
	n, err := s.Reader.Read(p[:min(len(p), s.left)])
	s.left -= n
	return n, err
}

// A pusher's HEAD says "I am about to refer to it": its time starts anew.
func TestHeadRenewsANar(t *testing.T) {
	w := newWorld(t)
	p := newUpload(t, "p", "none")
	w.must(w.put(p.narURL(), p.body), 201)
	swept := func() int {
		t.Helper()
		n, _, err := w.u.Sweep(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if swept() != 0 {
		t.Fatal("a NAR of now was swept")
	}
	w.age(p)
	w.must(w.head(p.narURL()), 200) // anybody's HEAD does not count
	w.must(w.get(p.narURL()), 200)
	w.must(w.head(p.narURL(), "Authorization", "Bearer "+w.token), 200)
	if swept() != 0 {
		t.Error("swept after a HEAD by who uploads")
	}
	w.age(p)
	w.must(w.head(p.narURL()), 200)
	w.must(w.get(p.narURL()), 200)
	if swept() != 1 {
		t.Error("not swept after its time")
	}
	w.must(w.head(p.narURL(), "Authorization", "Bearer "+w.token), 404)
	w.check()
}

func fileOf(t *testing.T, size int) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.Write(bytes.Repeat([]byte("x"), size)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	return f
}
