//go:build linux

package load

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// sized answers GET /<n> with n bytes.
func sized(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.URL.Path[1:])
	if err != nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(n))
	_, _ = w.Write(bytes.Repeat([]byte{'x'}, n))
}

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func dial(t *testing.T, addr string, n int) *Pool {
	t.Helper()
	p, err := Dial(addr, n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func TestRunCount(t *testing.T) {
	var mu sync.Mutex
	asked := map[string]int{}
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked[r.URL.Path]++
		mu.Unlock()
		sized(w, r)
	})
	// Below, at and above the head buffer, and far above a receive buffer.
	var reqs []Request
	var sum int64
	for _, n := range []int64{0, 1, 900, maxHead - 200, maxHead, 3 * maxHead, 20 << 20} {
		reqs = append(reqs, Get(fmt.Sprintf("/%d", n), n))
		sum += n
	}
	p := dial(t, addr, 3)
	if _, err := p.Run(reqs, Limit{Count: 2}); err != nil { // the place in the list is kept
		t.Fatal(err)
	}
	res, err := p.Run(reqs, Limit{Count: 3*len(reqs) - 2})
	if err != nil {
		t.Fatal(err)
	}
	if want := 3*sum - 1; res.Bytes != want {
		t.Errorf("%d bytes, want %d", res.Bytes, want)
	}
	if got, want := len(res.Latencies), 3*len(reqs)-2; got != want {
		t.Errorf("%d latencies, want %d", got, want)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, r := range reqs {
		path := strings.Fields(r.Name)[1]
		if asked[path] != 3 {
			t.Errorf("%s was asked %d times, want 3", path, asked[path])
		}
	}
}

func TestRunDuration(t *testing.T) {
	var served atomic.Int64
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		served.Add(1)
		sized(w, r)
	})
	p := dial(t, addr, 4)
	res, err := p.Run([]Request{Get("/100", 100)}, Limit{Duration: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if res.Elapsed < 100*time.Millisecond || res.Elapsed > 5*time.Second {
		t.Errorf("ran for %s, want a little over 100ms", res.Elapsed)
	}
	if got := int64(len(res.Latencies)); got != served.Load() || res.Bytes != 100*got {
		t.Errorf("counted %d replies, %d bytes; the server counted %d", got, res.Bytes, served.Load())
	}
}

// raw is a server that sends the given bytes for every request line and closes
// the connection when they are "".
func raw(t *testing.T, reply string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			buf := make([]byte, 4096)
			_, _ = c.Read(buf)
			_, _ = c.Write([]byte(reply))
			_ = c.Close()
		}
	}()
	return l.Addr().String()
}

func TestRunRefuses(t *testing.T) {
	for reply, want := range map[string]string{
		"": "closed the connection before its reply",
		"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nnope\n":      `status 404, want 200: "nope\n"`,
		"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n":                   "Content-Length 9, want 10",
		"HTTP/1.1 200 OK\r\n\r\n":                                        "Content-Length -1, want 10",
		"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234":             "5 bytes before the end",
		"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789X":       "1 bytes follow the reply",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n": "chunked",
	} {
		p := dial(t, raw(t, reply), 1)
		_, err := p.Run([]Request{Get("/x", 10)}, Limit{Count: 1})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "GET /x") {
			t.Errorf("reply %q: error %v, want one that says %q", reply, err, want)
		}
	}
}

func TestRunNeedsLimit(t *testing.T) {
	p := dial(t, serve(t, sized), 1)
	if _, err := p.Run([]Request{Get("/1", 1)}, Limit{}); err == nil {
		t.Error("a run without a limit was started")
	}
	if _, err := p.Run(nil, Limit{Count: 1}); err == nil {
		t.Error("a run without requests was started")
	}
}

func TestDialFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	for _, a := range []string{addr, "localhost", "localhost:80"} {
		if p, err := Dial(a, 1); err == nil {
			p.Close()
			t.Errorf("dialled %s, where nobody listens", a)
		}
	}
}

// Clients that copy get and count the same.
func TestRunCopies(t *testing.T) {
	addr := serve(t, sized)
	var reqs []Request
	var sum int64
	for _, n := range []int64{0, 1, maxHead, 3 * maxHead, 20 << 20} {
		reqs = append(reqs, Get(fmt.Sprintf("/%d", n), n))
		sum += n
	}
	for _, size := range []int{1000, 64 << 10, 0, 1 << 20} {
		p := dial(t, addr, 2)
		p.Copies = size
		res, err := p.Run(reqs, Limit{Count: 2 * len(reqs)})
		if err != nil {
			t.Fatalf("reads of %d bytes: %v", size, err)
		}
		if res.Bytes != 2*sum || len(res.Latencies) != 2*len(reqs) {
			t.Errorf("reads of %d bytes: %d bytes in %d replies, want %d", size, res.Bytes, len(res.Latencies), 2*sum)
		}
	}
}
