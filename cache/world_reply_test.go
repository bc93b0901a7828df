package cache

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// The real thing: what net's TCPConn.ReadFrom gets from a whole server is an
// *os.File in an io.LimitedReader, and nothing else.
func TestSendfileSurvives(t *testing.T) {
	spy := &spyListener{}
	w := newWorld(t, func(s *setup) {
		s.listen = func(ts *httptest.Server) {
			spy.Listener = ts.Listener
			ts.Listener = spy
		}
	})
	p := random(t, "p", 3<<20)
	w.putAll(p)
	spy.reset()
	for _, header := range [][]string{nil, {"Range", "bytes=1000-"}} {
		a := w.get(p.narURL(), header...)
		if a.cut != nil || len(a.body) < len(p.body)-1000 {
			t.Fatalf("%d bytes, %v", len(a.body), a.cut)
		}
		bare, other, n := spy.reset()
		if bare == 0 || other > 0 {
			t.Errorf("%v: %d ReadFroms with the bare file, %d with something else", header, bare, other)
		}
		if left := int64(len(a.body)) - n; left > 1024 { // net/http copies the first bytes itself
			t.Errorf("%v: %d of %d bytes went by ReadFrom", header, n, len(a.body))
		}
	}
}

type spyListener struct {
	net.Listener
	mu          sync.Mutex
	bare, other int
	bytes       int64
}

func (l *spyListener) reset() (bare, other int, n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	bare, other, n = l.bare, l.other, l.bytes
	l.bare, l.other, l.bytes = 0, 0, 0
	return bare, other, n
}

func (l *spyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if tcp, ok := c.(*net.TCPConn); ok {
		return &spyConn{tcp, l}, err
	}
	return c, err
}

type spyConn struct {
	*net.TCPConn
	l *spyListener
}

func (c *spyConn) ReadFrom(r io.Reader) (int64, error) {
	bare := false
	if lr, ok := r.(*io.LimitedReader); ok {
		_, bare = lr.R.(*os.File)
	}
	n, err := c.TCPConn.ReadFrom(r)
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	if bare {
		c.l.bare++
	} else {
		c.l.other++
	}
	c.l.bytes += n
	return n, err
}

// A client that takes nothing is cut; one that is slow is served.
func TestPacing(t *testing.T) {
	w := newWorld(t, viaNetHTTP) // package fastpath has a test of its own
	w.s.idle = 500 * time.Millisecond
	p := random(t, "p", 16<<20)
	w.putAll(p)
	w.must(w.put(examples["log"], p.body), 201)
	for name, request := range map[string]string{
		"sendfile": "GET " + p.narURL() + " HTTP/1.1\r\nHost: x\r\n\r\n",
		// Packing small pieces must not block for ever either.
		"gzip": "GET " + examples["log"] + " HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n",
		"zstd": "GET " + examples["log"] + " HTTP/1.1\r\nHost: x\r\nAccept-Encoding: zstd\r\n\r\n",
	} {
		t.Run("takes nothing/"+name, func(t *testing.T) {
			before := w.aborted()
			conn := w.dial(t)
			conn.say("%s", request)
			w.waitAborted(before + 1)
		})
	}
	t.Run("slow", func(t *testing.T) {
		conn := w.dial(t)
		conn.say("GET %s HTTP/1.1\r\nHost: x\r\n\r\n", p.narURL())
		resp, err := http.ReadResponse(conn.r, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		start := time.Now()
		total := int64(0)
		for {
			n, err := io.CopyN(io.Discard, resp.Body, 1<<20)
			if total += n; err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("cut after %d bytes: %v", total, err)
			}
			time.Sleep(80 * time.Millisecond)
		}
		if total != int64(len(p.body)) {
			t.Errorf("%d bytes", total)
		}
		if took := time.Since(start); took < 2*w.s.idle {
			t.Errorf("it took %v, which shows nothing", took)
		}
		// The deadline is off the connection, which serves on.
		time.Sleep(2 * w.s.idle)
		conn.say("GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
		w.must(conn.hear(http.MethodGet), 200)
	})
}

// aborted is how many replies were broken off so far.
func (w *world) aborted() (n int) {
	w.t.Helper()
	text := w.get("/metrics").body
	_, after, ok := strings.Cut(text, "\nnarwharf_http_aborted_total ")
	if _, err := fmt.Sscan(after, &n); !ok || err != nil {
		w.t.Fatalf("no such metric: %v\n%s", err, text)
	}
	return n
}

func (w *world) waitAborted(want int) {
	w.t.Helper()
	for range 100 {
		if w.aborted() >= want {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	w.t.Error("the reply goes on")
}
