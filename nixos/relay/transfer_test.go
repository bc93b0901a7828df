package relay

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"narwharf/signing"
)

// TestEndlessBody: of a body without an end no more comes through than the manifest says, and no
// more is fetched than a file of that size can have.
func TestEndlessBody(t *testing.T) {
	const size = 1 << 20
	endless := map[string]func(w io.Writer){
		"none": func(w io.Writer) { repeat(struct{ io.Writer }{w}, random(64<<10)) },
		// frames that unpack to nothing
		"zstd": func(w io.Writer) {
			repeat(struct{ io.Writer }{w}, []byte("\x50\x2a\x4d\x18\x00\x01\x00\x00"+strings.Repeat("s", 256)))
		},
	}
	for name, p := range packers {
		if name == "none" {
			continue
		}
		endless[name+" of zeros"] = func(w io.Writer) { z := p(w); repeat(z, make([]byte, 64<<10)) }
		endless[name+" of noise"] = func(w io.Writer) { z := p(w); repeat(z, random(64<<10)) }
	}
	for name, body := range endless {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := line("a", make([]byte, size))
			h := newHostile(t)
			h.serve["/"+l.Path.Hash()+".narinfo"] = text(info(l, "nar/x", strings.Fields(name)[0]))
			h.serve["/nar/x"] = func(w http.ResponseWriter, _ *http.Request) { body(&counted{w, &h.sent}) }
			r := start(t, Options{Lines: []signing.Line{l}, Caches: []Cache{h.cache(t, "")}})
			began := time.Now()
			status, got, err := fetch(t, r.URL+"/nar/"+l.Path.Hash()+".nar")
			if name == "zstd" {
				if status != 404 || !strings.Contains(r.Why(errors.New("x")).Error(), "more than the") {
					t.Errorf("%d bytes, %v, %v", len(got), err, r.Why(errors.New("x")))
				}
				if status, _, _ := fetch(t, r.URL+"/nar/"+l.Path.Hash()+".nar"); status != 404 {
					t.Errorf("and again: %d", status)
				}
			} else if status != 200 || err != nil || len(got) != size {
				t.Errorf("%d, %d bytes, %v, %v", status, len(got), err, r.Why(errors.New("x")))
			}
			for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
				before := h.sent.Load()
				time.Sleep(100 * time.Millisecond)
				if h.sent.Load() == before {
					break
				}
			}
			if sent := h.sent.Load(); sent > 8*size { // sockets hold some
				t.Errorf("the cache could send %d bytes in %s", sent, time.Since(began))
			}
		})
	}
}

// repeat writes until the reader has gone.
func repeat(w io.Writer, p []byte) {
	for range 10_000 {
		if _, err := w.Write(p); err != nil {
			return
		}
		if f, ok := w.(interface{ Flush() error }); ok && f.Flush() != nil {
			return
		}
	}
}

type counted struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.n.Add(int64(n))
	c.ResponseWriter.(http.Flusher).Flush()
	return n, err
}

// TestResume: what breaks off is taken up where it did, and where Nix asks for the end of a NAR
// that is what it gets; with every compression, and of caches that know no ranges.
func TestResume(t *testing.T) {
	body := append(random(3<<20), make([]byte, 1<<20)...)
	for compression := range packers {
		for _, ranges := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/ranges=%v", compression, ranges), func(t *testing.T) {
				t.Parallel()
				l := line("a", body)
				packed := pack(t, compression, body)
				h := newHostile(t)
				h.serve["/sub/"+l.Path.Hash()+".narinfo"] = text(info(l, "nar/x", compression))
				cuts := 3
				h.serve["/sub/nar/x"] = func(w http.ResponseWriter, r *http.Request) {
					if !ranges {
						r.Header.Del("Range")
					}
					if cuts--; cuts >= 0 {
						w = &cutting{w, len(packed)/4 + 1}
					}
					file(packed)(w, r)
				}
				if !ranges {
					cuts = 1
				}
				r := start(t, Options{Lines: []signing.Line{l}, Caches: []Cache{h.cache(t, "/sub")}})
				nar := r.URL + "/nar/" + l.Path.Hash() + ".nar"
				if status, got, err := fetch(t, nar); status != 200 || err != nil || !bytes.Equal(got, body) {
					t.Fatalf("%d, %d bytes, %v, %v", status, len(got), err, r.Why(errors.New("x")))
				}
				if n := h.sent.Load(); cuts > 0 {
					t.Errorf("it was not cut, %d", n)
				}
				for _, c := range []struct{ from, to int }{{1 << 20, len(body)}, {len(body) - 1, len(body)}, {5, 10}} {
					header := fmt.Sprintf("bytes=%d-", c.from)
					if c.to < len(body) {
						header += strconv.Itoa(c.to - 1)
					}
					if status, got, err := fetch(t, nar, "Range", header); status != 206 || err != nil || !bytes.Equal(got, body[c.from:c.to]) {
						t.Errorf("%s: %d, %d bytes, %v", header, status, len(got), err)
					}
				}
				if status, _, _ := fetch(t, nar, "Range", fmt.Sprintf("bytes=%d-", len(body))); status != 416 {
					t.Errorf("beyond the end: %d", status)
				}
			})
		}
	}
}

// cutting breaks the connection after so many bytes.
type cutting struct {
	http.ResponseWriter
	left int
}

func (c *cutting) Write(p []byte) (int, error) {
	if c.left -= len(p); c.left < 0 {
		_, _ = c.ResponseWriter.Write(p[:max(0, len(p)+c.left)])
		c.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	return c.ResponseWriter.Write(p)
}

// TestSlowBody: a cache that sends a byte now and then is given up; one that stands still once is
// asked again.
func TestSlowBody(t *testing.T) {
	body := random(300 << 10)
	l := line("a", body)
	for name, good := range map[string]bool{"drip": false, "once": true, "still": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHostile(t)
			h.serve["/"+l.Path.Hash()+".narinfo"] = text(info(l, "nar/x", "none"))
			var asked atomic.Int32
			h.serve["/nar/x"] = func(w http.ResponseWriter, r *http.Request) {
				if asked.Add(1) > 1 && name == "once" {
					file(body)(w, r)
					return
				}
				w.Header().Set("Content-Range", "bytes "+strings.TrimPrefix(r.Header.Get("Range"), "bytes=")+"/*")
				if r.Header.Get("Range") != "" {
					w.WriteHeader(206)
				}
				_, _ = w.Write(body[:1])
				for r.Context().Err() == nil {
					w.(http.Flusher).Flush()
					time.Sleep(20 * time.Millisecond)
					if name == "drip" {
						_, _ = w.Write(body[:1])
					}
				}
			}
			r := start(t, Options{Lines: []signing.Line{l}, Caches: []Cache{h.cache(t, "")}})
			r.patience = 300 * time.Millisecond
			began := time.Now()
			status, got, err := fetch(t, r.URL+"/nar/"+l.Path.Hash()+".nar")
			if ok := status == 200 && err == nil && bytes.Equal(got, body); ok != good {
				t.Errorf("%d, %d bytes, %v", status, len(got), err)
			}
			if took := time.Since(began); took > 30*time.Second {
				t.Errorf("after %v", took)
			}
			if why := r.Why(errors.New("x")).Error(); !good && !strings.Contains(why, "hardly anything came") {
				t.Error(why)
			}
		})
	}
}
