package fastpath

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const get = "GET /x HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n"

// serve runs an http.Server behind a Listener that knows /x.
func serve(t *testing.T, idle time.Duration) (address string, served *atomic.Int64, srv *http.Server) {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served = new(atomic.Int64)
	l := &Listener{
		Listener: tcp, Idle: idle, HeaderTimeout: 10 * time.Second,
		Served: func(*Answer, int64) { served.Add(1) },
		Lookup: func(p []byte, _ bool) *Answer {
			if string(p) == "x" {
				return &Answer{Tail: []byte("\r\nContent-Length: 4\r\n\r\nfast"), Body: 4}
			}
			return nil
		},
	}
	srv = &http.Server{
		ReadHeaderTimeout: 10 * time.Second, ConnState: ConnState,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, err := io.ReadAll(r.Body)
			fmt.Fprintf(w, "slow %s %s %s", r.Method, r.URL.Path, b)
			if err != nil {
				t.Error(err)
			}
		}),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l)
	}()
	t.Cleanup(func() {
		srv.Close()
		<-done
	})
	return tcp.Addr().String(), served, srv
}

func TestRequests(t *testing.T) {
	address, served, _ := serve(t, time.Minute)
	tests := map[string]struct {
		send []string
		want []string
		fast int64
	}{
		"fast":             {[]string{get, get}, []string{"fast", "fast"}, 2},
		"fast, slow, fast": {[]string{get, "GET /y HTTP/1.1\r\nHost: a\r\n\r\n", get}, []string{"fast", "slow GET /y ", "fast"}, 2},
		"HEAD, fast":       {[]string{strings.Replace(get, "GET", "HEAD", 1), get}, []string{"", "fast"}, 1},
		"upload, fast":     {[]string{"PUT /y HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n", "bo", "dy", get, get}, []string{"slow PUT /y body", "fast", "fast"}, 2},
		"upload and more":  {[]string{"PUT /y HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n", "body" + get, get}, []string{"slow PUT /y body", "slow GET /x ", "slow GET /x "}, 0},
		"chunks":           {[]string{"PUT /y HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n", get}, []string{"slow PUT /y body", "slow GET /x "}, 0},
		"pipelined":        {[]string{get + get}, []string{"slow GET /x ", "slow GET /x "}, 0},
		"halves":           {[]string{get[:20], get[20:] + get}, []string{"slow GET /x ", "slow GET /x "}, 0},
		"body":             {[]string{"GET /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody", get}, []string{"slow GET /x body", "fast"}, 1},
		"body that looks like a request": {
			[]string{fmt.Sprintf("PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", len(get)), get},
			[]string{"slow PUT /x " + get}, 0,
		},
		"by a proxy": {
			[]string{strings.Replace(get, "\r\n\r\n", "\r\nX-Forwarded-For: 10.0.0.1\r\nx-forwarded-proto: https\r\nForwarded: for=\"[::1]\"\r\nVia: 1.1 varnish\r\nConnection: keep-alive\r\n\r\n", 1), get},
			[]string{"fast", "fast"}, 2,
		},
		"no name of a field": {[]string{strings.Replace(get, "\r\n\r\n", "\r\nX-A b: c\r\n\r\n", 1)}, []string{"400 Bad Request: invalid header name"}, 0},
		"another connection": {
			[]string{strings.Replace(get, "\r\n\r\n", "\r\nConnection: keep-alive, X-A\r\n\r\n", 1), get},
			[]string{"slow GET /x ", "slow GET /x "}, 0,
		},
		"authorization": {[]string{strings.Replace(get, "\r\n\r\n", "\r\nAuthorization: x\r\n\r\n", 1)}, []string{"slow GET /x "}, 0},
		"condition":     {[]string{strings.Replace(get, "\r\n\r\n", "\r\nIf-None-Match: \"x\"\r\n\r\n", 1)}, []string{"slow GET /x "}, 0},
		"close":         {[]string{strings.Replace(get, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1)}, []string{"fast"}, 1},
		"folded field":  {[]string{"GET /x HTTP/1.1\r\nHost: a\r\n b\r\n\r\n"}, []string{"400 Bad Request: malformed Host header"}, 0},
		"control character": {
			[]string{strings.Replace(get, "*/*", "*\x00*", 1)},
			[]string{"400 Bad Request"}, 0,
		},
		"another letter": {[]string{strings.Replace(get, "Host", "Ho\u017ft", 1)}, []string{"400 Bad Request"}, 0},
		"no name of a host": {
			[]string{strings.Replace(get, "Host: a", "Host: a b", 1)},
			[]string{"400 Bad Request: malformed Host header"}, 0,
		},
		"address":   {[]string{strings.Replace(get, "Host: a", "host:[2001:db8::1]:8080", 1)}, []string{"fast"}, 1},
		"qualities": {[]string{strings.Replace(get, "\r\n\r\n", "\r\nAccept-Encoding: gzip;q=0\r\n\r\n", 1)}, []string{"slow GET /x "}, 0},
		"no host":   {[]string{"GET /x HTTP/1.1\r\n\r\n"}, []string{"400 Bad Request: missing required Host header"}, 0},
		"two hosts": {[]string{"GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"}, []string{"400 Bad Request"}, 0},
		"HTTP/1.0":  {[]string{"GET /x HTTP/1.0\r\nHost: a\r\n\r\n"}, []string{"slow GET /x "}, 0},
		"HEAD":      {[]string{strings.Replace(get, "GET", "HEAD", 1)}, []string{""}, 0},
	}
	for name, c := range tests {
		served.Store(0)
		got := exchange(t, address, c.send, len(c.want), strings.HasPrefix(c.send[0], "HEAD"))
		for i, want := range c.want {
			if i >= len(got) || got[i] != want {
				t.Errorf("%s: answers %q, want %q", name, got, c.want)
				break
			}
		}
		if n := served.Load(); n != c.fast {
			t.Errorf("%s: %d fast answers, want %d", name, n, c.fast)
		}
	}
}

// exchange sends the pieces, one after the other, and reads n answers.
func exchange(t *testing.T, address string, pieces []string, n int, head bool) (bodies []string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	for _, p := range pieces {
		if _, err := io.WriteString(conn, p); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond) // so that each is a read of its own
	}
	r := bufio.NewReader(conn)
	for i := range n {
		method := "GET"
		if head && i == 0 {
			method = "HEAD"
		}
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			t.Errorf("after %d answers: %v", len(bodies), err)
			return bodies
		}
		b, err := io.ReadAll(resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			t.Error(err)
		}
		if resp.StatusCode == 200 && resp.Header.Get("Date") == "" {
			t.Error("an answer has no Date")
		}
		bodies = append(bodies, string(b))
	}
	return bodies
}

// TestIdle: a connection that was answered fast and falls silent is closed.
func TestIdle(t *testing.T) {
	address, _, _ := serve(t, 200*time.Millisecond)
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, get); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	text, err := io.ReadAll(conn) // ends when the server closes
	if err != nil || !strings.HasSuffix(string(text), "fast") {
		t.Errorf("read %q, %v; want one answer and then the end", text, err)
	}
}

// TestAhead: what a client sends while net/http answers stays in the connection for
// the next look; and he is seen to leave meanwhile.
func TestAhead(t *testing.T) {
	address, served, srv := serve(t, time.Minute)
	slow := srv.Handler
	left := make(chan struct{})
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/wait":
			time.Sleep(200 * time.Millisecond)
		case "/leave":
			<-r.Context().Done()
			close(left)
		}
		slow.ServeHTTP(w, r)
	})
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	r := bufio.NewReader(conn)
	wait := strings.Replace(get, "/x", "/wait", 1)
	put := "PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"
	for _, round := range []struct{ say, hear []string }{
		{[]string{wait, get}, []string{"slow GET /wait ", "fast"}},
		{[]string{wait, put, "body"}, []string{"slow GET /wait ", "slow PUT /x body"}},
		{[]string{get}, []string{"fast"}},
	} {
		for _, piece := range round.say {
			if _, err := io.WriteString(conn, piece); err != nil {
				t.Fatal(err)
			}
			time.Sleep(50 * time.Millisecond) // so that it is a read of its own
		}
		for _, want := range round.hear {
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || string(b) != want {
				t.Errorf("%q (%v), want %q", b, err, want)
			}
		}
	}
	if n := served.Load(); n != 2 {
		t.Errorf("%d fast answers, want 2", n)
	}
	if _, err := io.WriteString(conn, strings.Replace(get, "/x", "/leave", 1)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	conn.Close()
	select {
	case <-left:
	case <-time.After(10 * time.Second):
		t.Error("a client that left was not seen to")
	}
}

// TestClose: a client that wants no second answer is told so, and sees the end.
func TestClose(t *testing.T) {
	address, served, _ := serve(t, time.Minute)
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, strings.Replace(get, "\r\n\r\n", "\r\nConnection: Close\r\n\r\n", 1)); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(conn)
	if err != nil || !strings.Contains(string(text), "\r\nConnection: close\r\n") || !strings.HasSuffix(string(text), "fast") || served.Load() != 1 {
		t.Errorf("read %q, %v; want one answer and then the end", text, err)
	}
}

// TestResume: a connection that was hijacked comes back with what was read of its
// next request.
func TestResume(t *testing.T) {
	address, served, srv := serve(t, time.Minute)
	back := &oneListener{conns: make(chan net.Conn, 1)}
	slow := srv.Handler
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/park" {
			slow.ServeHTTP(w, r)
			return
		}
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		go func() {
			first := make([]byte, 1)
			if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 6\r\n\r\nparked"); err != nil {
				t.Error(err)
			}
			if _, err := io.ReadFull(c, first); err != nil {
				t.Error(err)
			}
			c.(interface{ Resume(byte) }).Resume(first[0])
			back.conns <- c
		}()
	})
	go func() { _ = srv.Serve(back) }()
	park := strings.Replace(get, "/x", "/park", 1)
	got := exchange(t, address, []string{get, park, get, "GET /y HTTP/1.1\r\nHost: a\r\n\r\n", park, get}, 6, false)
	if want := "fast parked fast slow GET /y  parked fast"; strings.Join(got, " ") != want || served.Load() != 3 {
		t.Errorf("%q, %d of them fast; want %q", got, served.Load(), want)
	}
}

// A oneListener accepts what is sent to it.
type oneListener struct {
	conns chan net.Conn
	once  sync.Once
}

func (l *oneListener) Accept() (net.Conn, error) {
	c, ok := <-l.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (l *oneListener) Close() error   { l.once.Do(func() { close(l.conns) }); return nil }
func (l *oneListener) Addr() net.Addr { return &net.TCPAddr{} }

// TestShutdown: connections that net/http never saw a request on do not keep a
// graceful shutdown from ending.
func TestShutdown(t *testing.T) {
	address, served, srv := serve(t, time.Minute)
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, get); err != nil {
		t.Fatal(err)
	}
	for served.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	begin := time.Now()
	if err := srv.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	// net/http takes a connection without a request for idle after 5 s.
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("shutdown took %v", took)
	}
}

// TestSendfile: net/http must still find the TCPConn's ReadFrom.
func TestSendfile(t *testing.T) {
	var c any = &conn{}
	if _, ok := c.(io.ReaderFrom); !ok {
		t.Error("a connection hides ReadFrom, and with it sendfile")
	}
	if _, ok := c.(interface{ CloseWrite() error }); !ok {
		t.Error("a connection hides CloseWrite")
	}
}

// FuzzParse: what is answered is one request for net/http too, and no more; and
// where net/http has got just one request, it ends where we say.
func FuzzParse(f *testing.F) {
	f.Add([]byte(get))
	f.Add([]byte("GET /x HTTP/1.1\r\nHost: a\r\n\r\n\r\n"))
	f.Add([]byte("GET / HTTP/1.1\r\nHost:00\n\r\n\r\n")) // net/http sees the end at the bare newline
	f.Add([]byte("PUT /x HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: b\r\nContent-Length: 12\r\n\r\nbody"))
	f.Add([]byte("PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got := parse(b)
		if got.left < 0 || got.left > 1<<20 {
			if got.path != nil {
				t.Fatalf("%q is answered", b)
			}
			return
		}
		r := bufio.NewReader(io.MultiReader(bytes.NewReader(b), strings.NewReader(strings.Repeat("x", int(got.left)))))
		req, err := http.ReadRequest(r)
		if err != nil {
			// http.ReadRequest checks URLs, which Lookup does by knowing them.
			if got.path == nil || strings.Contains(err.Error(), "parse") || strings.Contains(err.Error(), "malformed") || strings.Contains(err.Error(), "invalid") {
				return
			}
			t.Fatalf("%q: %v", b, err)
		}
		if got.path != nil && (req.Method != "GET" || req.ContentLength != 0 || got.close != req.Close) {
			t.Fatalf("%q is %s with %d bytes", b, req.Method, req.ContentLength)
		}
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			t.Fatalf("%q with %d more: %v", b, got.left, err)
		}
		if rest, _ := io.ReadAll(r); len(rest) > 0 {
			t.Fatalf("%q with %d more: %d bytes of another request follow", b, got.left, len(rest))
		}
	})
}
