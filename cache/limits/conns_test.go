package limits

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// site is a server behind a gate.
type site struct {
	t    *testing.T
	gate *Gate
	addr string
	log  *logged
}

type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) has(words string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), words)
}

// newSite serves: /hold answers when the client goes, all else says for whom it is.
func newSite(t *testing.T, o Options) *site {
	t.Helper()
	s := &site{t: t, log: new(logged)}
	o.Log = slog.New(slog.NewTextHandler(s.log, nil))
	s.gate = NewGate(o)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	good := func(req *http.Request) string {
		id, _ := strings.CutPrefix(req.Header.Get("Authorization"), "good ")
		return id
	}
	srv := &http.Server{
		Handler: s.gate.Requests(good, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Path == "/hold" {
				w.WriteHeader(http.StatusOK)
				_ = http.NewResponseController(w).Flush()
				<-req.Context().Done()
				return
			}
			fmt.Fprintf(w, "%s", req.RemoteAddr)
		})),
		ConnContext: s.gate.ConnContext, ConnState: s.gate.ConnState,
	}
	go srv.Serve(s.gate.Listener(l)) //nolint:errcheck // ends with Close
	t.Cleanup(func() { srv.Close() })
	return s
}

// conn is a connection of a client.
type conn struct {
	net.Conn
	in *bufio.Reader
}

func (s *site) dial() *conn {
	s.t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return &conn{c, bufio.NewReader(c)}
}

// ask asks over the connection, and returns status and body, or status 0.
func (c *conn) ask(method, path string, header ...string) (int, string) {
	fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: x\r\n%s\r\n", method, path, strings.Join(append(header, ""), "\r\n"))
	resp, err := http.ReadResponse(c.in, nil) //nolint:bodyclose // that of /hold has no end, and closing it would read on
	if err != nil {
		return 0, err.Error()
	}
	if path == "/hold" {
		return resp.StatusCode, ""
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(body)
}

// TestIdleMakesRoom: connections that say nothing keep nobody out, nor do those between two
// requests; those at work stay.
func TestIdleMakesRoom(t *testing.T) {
	for name, o := range map[string]Options{
		"of an address": {Total: 1000, PerAddress: 8, PerCredential: 1000},
		"in total":      {Total: 8, PerAddress: 1000, PerCredential: 1000},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, o)
			busy := s.dial()
			if status, _ := busy.ask("GET", "/hold"); status != 200 {
				t.Fatal(status)
			}
			for range 50 {
				s.dial()
			}
			for range 20 {
				if status, text := s.dial().ask("GET", "/"); status != 200 {
					t.Fatalf("%d %s", status, text)
				}
			}
			if n := s.gate.Connections(); n > 9 {
				t.Errorf("%d connections", n)
			}
			if !s.log.has("closed to make room") {
				t.Error("the log says nothing")
			}
			_ = busy.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			if _, err := busy.in.ReadByte(); err == io.EOF {
				t.Error("one at work was closed")
			}
		})
	}
}

// TestAllAtWork: where none can make room, one is refused in words.
func TestAllAtWork(t *testing.T) {
	s := newSite(t, Options{Total: 100, PerAddress: 3, PerCredential: 100})
	for range 3 {
		if status, _ := s.dial().ask("GET", "/hold"); status != 200 {
			t.Fatal(status)
		}
	}
	c := s.dial()
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil || resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Fatalf("%v, %v", resp, err)
	}
	defer resp.Body.Close()
	if !s.log.has("connections were refused") || !s.log.has("limits.connections_per_address") {
		t.Error("the log says nothing")
	}
}

// TestCredentials: who shows a good credential does not count by his address, but with
// his like; one that is no good does.
func TestCredentials(t *testing.T) {
	s := newSite(t, Options{Total: 1000, PerAddress: 5, PerCredential: 30})
	var parked []*conn
	for i := range 30 {
		c := s.dial()
		if status, text := c.ask("GET", "/hold", fmt.Sprint("Authorization: good ", i%2)); status != 200 {
			t.Fatalf("%d %s", status, text)
		}
		parked = append(parked, c)
	}
	for range 20 {
		if status, _ := s.dial().ask("GET", "/", "Authorization: bad"); status != 200 {
			t.Fatal(status)
		}
	}
	for _, c := range parked {
		_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err := c.in.ReadByte(); err == io.EOF {
			t.Fatal("one with a credential was closed for those without")
		}
	}
	for range 15 {
		if status, _ := s.dial().ask("GET", "/hold", "Authorization: good 0"); status != 200 {
			t.Fatal(status)
		}
	}
	if status, text := s.dial().ask("GET", "/x", "Authorization: good 0"); status != 503 || !strings.Contains(text, "try again") {
		t.Errorf("%d %s", status, text)
	}
	if status, text := s.dial().ask("PUT", "/x", "Authorization: good 0", "Content-Length: 0"); status != 413 || !strings.Contains(text, "limits.connections_per_token") {
		t.Errorf("%d %s", status, text)
	}
	if status, text := s.dial().ask("GET", "/api/v1/hosts", "Authorization: good 0"); status != 503 || !strings.Contains(text, `"kind":"unavailable"`) {
		t.Errorf("%d %s", status, text)
	}
	if status, _ := s.dial().ask("GET", "/", "Authorization: good 1"); status != 200 {
		t.Errorf("another credential: %d", status)
	}
}

// TestProxies: a trusted proxy's word is taken for whom it asks, and nobody else's; it is
// not an address that has many connections.
func TestProxies(t *testing.T) {
	s := newSite(t, Options{Total: 1000, PerAddress: 3, PerCredential: 1000, Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	for i := range 40 {
		if status, _ := s.dial().ask("GET", "/hold", fmt.Sprintf("X-Forwarded-For: 10.1.1.1, 192.0.2.%d", i%20)); status != 200 {
			t.Fatal(status)
		}
	}
	if status, _ := s.dial().ask("GET", "/hold", "X-Forwarded-For: 2001:db8::1"); status != 200 {
		t.Fatal(status)
	}
	for i := range 2 {
		if status, _ := s.dial().ask("GET", "/hold", fmt.Sprintf("X-Forwarded-For: 2001:db8::%d, 127.0.0.9", i+2)); status != 200 {
			t.Fatal(status)
		}
	}
	one := s.dial()
	if status, _ := one.ask("GET", "/", "X-Forwarded-For: 2001:db8::ffff"); status != 503 {
		t.Errorf("a fourth of one /64: %d", status)
	}
	again := s.dial()
	for i := range 10 { // one connection of a proxy, for many
		want := fmt.Sprintf("198.51.100.%d", i)
		if status, text := again.ask("GET", "/", "X-Forwarded-For: 6.6.6.6, "+want+":4711"); status != 200 || !strings.HasPrefix(text, want) {
			t.Errorf("%d %s, want %s", status, text, want)
		}
	}
	plain := newSite(t, Options{Total: 1000, PerAddress: 3, PerCredential: 1000})
	if _, text := plain.dial().ask("GET", "/", "X-Forwarded-For: 6.6.6.6"); !strings.HasPrefix(text, "127.0.0.1:") {
		t.Errorf("anybody's word is taken: %s", text)
	}
}

// noFiles is a listener of a process that has no more files for a while.
type noFiles struct {
	net.Listener
	left int
}

func (l *noFiles) Accept() (net.Conn, error) {
	if l.left > 0 {
		l.left--
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}

// TestNoFiles: a process without files says so, and goes on.
func TestNoFiles(t *testing.T) {
	log := new(logged)
	g := NewGate(Options{Total: 10, PerAddress: 10, PerCredential: 10, Log: slog.New(slog.NewTextHandler(log, nil))})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in, err := g.Listener(&noFiles{l, 3}).Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if !log.has("no more files") || !log.has("LimitNOFILE") {
		t.Error("the log says nothing")
	}
	if n := FromFiles(); n < 16 || n > 32768 {
		t.Errorf("%d connections", n)
	}
}
