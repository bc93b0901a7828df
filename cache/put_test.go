package cache

import (
	"bufio"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"narwharf/signing/access/scope"
)

// wire is a connection on which a test writes what it likes.
type wire struct {
	t *testing.T
	*net.TCPConn
	r *bufio.Reader
}

func (w *world) dial(t *testing.T) *wire {
	t.Helper()
	conn, err := net.Dial("tcp", w.http.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		t.Fatal("no TCP")
	}
	return &wire{t, tcp, bufio.NewReader(conn)}
}

func (c *wire) say(format string, args ...any) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c, format, args...); err != nil {
		c.t.Fatal(err)
	}
}

// hear reads one answer; method is that of the request.
func (c *wire) hear(method string) answer {
	c.t.Helper()
	resp, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		c.t.Fatalf("no answer: %v", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(text), err}
}

// closed fails unless the server closes the connection without another byte.
func (c *wire) closed() {
	c.t.Helper()
	if b, err := c.r.ReadByte(); err == nil {
		c.t.Errorf("the connection goes on with %q", b)
	}
}

// putHead is the head of a PUT as Nix sends it.
func (w *world) putHead(path string, header ...string) string {
	head := "PUT " + path + " HTTP/1.1\r\nHost: cache\r\nAuthorization: Bearer " + w.token + "\r\n"
	for _, h := range header {
		head += h + "\r\n"
	}
	return head + "\r\n"
}

// What the headers decide is answered before a byte of the body, and without
// the 100 that would call for it.
func TestPutRefusedBeforeTheBody(t *testing.T) {
	w := newWorld(t)
	p := newUpload(t, "early", "none")
	const expect = "Expect: 100-continue"
	for name, c := range map[string]struct {
		head   string
		status int
		words  string
	}{
		"no token":          {"PUT " + p.narURL() + " HTTP/1.1\r\nHost: x\r\nContent-Length: 500000000\r\nExpect: 100-continue\r\n\r\n", 401, "push"},
		"bad name":          {w.putHead("/nar/nonsense", "Content-Length: 500000000", expect), 404, "52 characters"},
		"above the limit":   {w.putHead(p.narURL(), fmt.Sprint("Content-Length: ", w.setup.uploads.MaxNarSize+1), expect), 413, "64 MiB"},
		"content-encoding":  {w.putHead(p.narURL(), "Content-Length: 1000", expect, "Content-Encoding: zstd"), 415, "Content-Encoding"},
		"narinfo too large": {w.putHead(p.infoURL(), "Content-Length: 2000000", expect), 413, "1024 KiB"},
		"unknown encoding":  {w.putHead(p.infoURL(), "Content-Length: 1000", expect, "Content-Encoding: compress"), 415, "compress"},
		"log too large":     {w.putHead(examples["log"], "Content-Length: 1000000000000", expect), 413, "512 MiB"},
		"json too large":    {w.putHead(examples["debuginfo"], "Content-Length: 2000000", expect), 413, "debuginfo"},
		"listing too large": {w.putHead(examples["ls"], "Content-Length: 200000000", expect), 413, "listing"},
		"no such route":     {w.putHead("/version", "Content-Length: 1000", expect), 405, "GET, HEAD"},
		"no length":         {w.putHead(p.narURL()), 411, "Content-Length"},
		"no length, 1.0":    {strings.Replace(w.putHead(p.narURL()), "HTTP/1.1", "HTTP/1.0", 1), 411, "Content-Length"},
	} {
		t.Run(name, func(t *testing.T) {
			c2 := w.dial(t)
			c2.say("%s", c.head)
			a := c2.hear(http.MethodPut) // the first answer is not a 100
			w.must(a, c.status, c.words)
		})
	}
	w.mustLack(p)
	w.check()
}

func TestPutFullDisk(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.uploads.MaxNarSize = 1 << 60 })
	p := newUpload(t, "large", "none")
	c := w.dial(t)
	c.say("%s", w.putHead(p.narURL(), fmt.Sprint("Content-Length: ", int64(1)<<59), "Expect: 100-continue"))
	a := w.must(c.hear(http.MethodPut), 413, "disk is full")
	if strings.Contains(a.body, w.dir) {
		t.Errorf("the answer tells where things lie: %s", a.body)
	}
	w.check()
}

func TestPutContinue(t *testing.T) {
	w := newWorld(t)
	p := newUpload(t, "continue", "none")
	c := w.dial(t)
	c.say("%s", w.putHead(p.narURL(), fmt.Sprint("Content-Length: ", len(p.body)), "Expect: 100-continue"))
	w.must(c.hear(http.MethodPut), 100)
	c.say("%s", p.body)
	w.must(c.hear(http.MethodPut), 201)
	// The connection serves on.
	c.say("%s%s", w.putHead(p.infoURL(), fmt.Sprint("Content-Length: ", len(p.text()))), p.text())
	w.must(c.hear(http.MethodPut), 201)
	w.mustServe(p)
	w.check()
}

func TestPutChunked(t *testing.T) {
	w := newWorld(t)
	p := newUpload(t, "chunked", "none")
	c := w.dial(t)
	c.say("%s%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n", w.putHead(p.narURL(), "Transfer-Encoding: chunked"), 10, p.body[:10], len(p.body)-10, p.body[10:])
	w.must(c.hear(http.MethodPut), 201)
	c.say("%s%x\r\n%s\r\nnonsense\r\n", w.putHead(p.infoURL(), "Transfer-Encoding: chunked"), 10, p.text()[:10])
	w.must(c.hear(http.MethodPut), 400, "run the command again")
	w.must(w.put(p.infoURL(), p.text()), 201)
	w.check()
}

// A connection that breaks in the middle of a body leaves nothing, wherever.
func TestPutCut(t *testing.T) {
	w := newWorld(t)
	p := newUpload(t, "cut", "zstd")
	w.must(w.put(p.narURL(), p.body), 201)
	q := newUpload(t, "cut2", "zstd")
	for path, body := range map[string][]byte{
		q.narURL(): q.body, p.infoURL(): p.text(), examples["log"]: []byte("a log\n"),
		examples["debuginfo"]: []byte(`{"archive":"../nar/` + p.file + `","member":"x"}`), examples["ls"]: []byte(`{"version":1,"root":{"type":"directory","entries":{}}}`),
	} {
		for _, n := range []int{0, 1, len(body) / 2, len(body) - 1} {
			c := w.dial(t)
			c.say("%s%s", w.putHead(path, fmt.Sprint("Content-Length: ", len(body))), body[:n])
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			w.must(c.hear(http.MethodPut), 400, "ended before the announced length")
			c.closed()
			// And one that is reset.
			c = w.dial(t)
			c.say("%s%s", w.putHead(path, fmt.Sprint("Content-Length: ", len(body))), body[:n])
			_ = c.SetLinger(0)
			_ = c.Close()
		}
		w.must(w.get(path), 404)
	}
	w.waitIdle()
	w.check()
}

// waitIdle waits until no upload is in flight, for tests that left some.
func (w *world) waitIdle() {
	w.t.Helper()
	for range 500 {
		if w.s.UploadsInFlight() == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.t.Error("uploads never end")
}

// A silent client gets a 400, in every phase; one that is only slow does not.
func TestPutIdle(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.BodyIdle = 150 * time.Millisecond })
	p := newUpload(t, "idle", "none")
	for path, body := range map[string][]byte{p.narURL(): p.body, p.infoURL(): p.text(), examples["log"]: []byte("a log\n")} {
		for _, n := range []int{0, 3} {
			c := w.dial(t)
			c.say("%s%s", w.putHead(path, fmt.Sprint("Content-Length: ", len(body))), body[:n])
			start := time.Now()
			w.must(c.hear(http.MethodPut), 400, "stalled")
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
			c.closed()
		}
	}
	w.mustLack(p)
	c := w.dial(t)
	c.say("%s", w.putHead(p.narURL(), fmt.Sprint("Content-Length: ", len(p.body))))
	const steps = 10
	for i := range steps { // longer than idle in all
		time.Sleep(30 * time.Millisecond)
		c.say("%s", p.body[len(p.body)*i/steps:len(p.body)*(i+1)/steps])
	}
	w.must(c.hear(http.MethodPut), 201)
	w.check()
}

// What comes after the last byte of a body may take longer than a client may be
// silent: a sync, or reading a NAR again.
func TestPutSlowDiskIsNotAStall(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.BodyIdle = 100 * time.Millisecond })
	p := newUpload(t, "slow", "none")
	w.breakAt(func(op, name string) error {
		if op == "sync" {
			time.Sleep(300 * time.Millisecond)
		}
		return nil
	})
	c := w.dial(t)
	for path, body := range map[string][]byte{p.narURL(): p.body, examples["log"]: []byte("a log\n")} {
		c.say("%s%s", w.putHead(path, fmt.Sprint("Content-Length: ", len(body))), body)
		w.must(c.hear(http.MethodPut), 201)
	}
	w.breakAt(nil)
	w.check()
}

// A refusal reaches a client that goes on sending: the rest is read, for a
// while, since a connection that is closed on unread bytes is reset, and the
// answer lost with it.
func TestPutDrain(t *testing.T) {
	w := newWorld(t)
	p := newUpload(t, "drain", "none")
	junk := make([]byte, 8<<20)
	if _, err := rand.Read(junk); err != nil {
		t.Fatal(err)
	}
	for name, head := range map[string]string{
		"refused in the middle": w.putHead(p.narURL(), fmt.Sprint("Content-Length: ", len(junk))),
		"refused at the start":  strings.Replace(w.putHead(p.narURL(), fmt.Sprint("Content-Length: ", len(junk))), "Bearer", "Nobody", 1),
	} {
		t.Run(name, func(t *testing.T) {
			c := w.dial(t)
			c.say("%s%s", head, junk) // all of it, before it listens
			if a := c.hear(http.MethodPut); a.status != 422 && a.status != 401 {
				t.Error(a)
			}
			c.say("%s%s", w.putHead(p.narURL(), fmt.Sprint("Content-Length: ", len(p.body))), p.body)
			w.must(c.hear(http.MethodPut), 201)
		})
	}
	w.check()
}

// But not for ever, however slowly the rest comes.
func TestDrainEnds(t *testing.T) {
	w := newWorld(t)
	w.s.unread = 300 * time.Millisecond
	p := newUpload(t, "endless", "none")
	c := w.dial(t)
	c.say("%sjunk that is no NAR.....", w.putHead(p.narURL(), "Content-Length: 1000000"))
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
				if _, err := c.Write([]byte("x")); err != nil {
					return
				}
			}
		}
	}()
	start := time.Now()
	w.must(c.hear(http.MethodPut), 422)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("drained for %v", took)
	}
	close(stop)
	<-done
	w.waitIdle()
	w.check()
}

// Whoever may push shows up in the log and in the index by his token's name.
func TestPutNamesTheUploader(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.anonymous = scope.Set{pull, push} })
	p := newUpload(t, "mine", "none")
	w.putAll(p)
	q := newUpload(t, "nobodys", "none")
	w.must(w.do(http.MethodPut, q.narURL(), q.body), 201)
	w.must(w.do(http.MethodPut, q.infoURL(), q.text()), 201)
	for path, want := range map[*testPath]string{p: "ci", q: ""} {
		r, err := w.index.Get(path.info.Path.Hash())
		if err != nil || r.By != want {
			t.Errorf("%s was uploaded by %q, want %q", path.info.Path, r.By, want)
		}
	}
}
