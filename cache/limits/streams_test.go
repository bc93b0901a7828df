package limits

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// streams is a server over TLS behind a gate, and clients of HTTP/2.
type streams struct {
	t    *testing.T
	gate *Gate
	url  string
	srv  *httptest.Server
}

// newStreams serves: /hold waits until the request ends, /park the same within Park.
func newStreams(t *testing.T, o Options) *streams {
	t.Helper()
	o.Log = slog.New(slog.DiscardHandler)
	s := &streams{t: t, gate: NewGate(o)}
	good := func(req *http.Request) string {
		id, _ := strings.CutPrefix(req.Header.Get("Authorization"), "good ")
		return id
	}
	s.srv = httptest.NewUnstartedServer(s.gate.Requests(good, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.Path {
		case "/hold", "/park":
			if req.URL.Path == "/park" {
				defer Park(req.Context())()
			}
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			<-req.Context().Done()
		default:
			fmt.Fprintf(w, "%s %s", req.Proto, req.RemoteAddr)
		}
	})))
	s.srv.Config.ConnContext, s.srv.Config.ConnState = s.gate.ConnContext, s.gate.ConnState
	s.srv.Listener = s.gate.Listener(s.srv.Listener)
	s.srv.EnableHTTP2 = true
	s.srv.StartTLS()
	s.url = s.srv.URL
	t.Cleanup(s.srv.Close)
	return s
}

// client has one connection for all of its requests.
func (s *streams) client() *http.Client {
	t := s.srv.Client().Transport.(*http.Transport).Clone() //nolint:forcetypeassert // it is httptest's
	s.t.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t, Timeout: 20 * time.Second}
}

// get asks, and returns status and body; the body of what holds is not read.
func (s *streams) get(ctx context.Context, c *http.Client, path string, header ...string) (int, string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(ctx, "GET", s.url+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	if resp.StatusCode == 200 && (path == "/hold" || path == "/park") {
		return 200, ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(body)
}

// TestStreamsCount: what one connection of HTTP/2 asks at once counts as connections do, and what is
// answered does not.
func TestStreamsCount(t *testing.T) {
	s := newStreams(t, Options{Total: 1000, PerAddress: 5, PerCredential: 3})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := s.client()
	if status, body := s.get(ctx, c, "/"); status != 200 || !strings.HasPrefix(body, "HTTP/2") {
		t.Fatalf("%d %s", status, body)
	}
	for range 20 { // one after the other
		if status, body := s.get(ctx, c, "/"); status != 200 {
			t.Fatalf("%d %s", status, body)
		}
	}
	for i := range 4 { // the connection is the fifth
		if status, body := s.get(ctx, c, "/hold"); status != 200 {
			t.Fatalf("request %d: %d %s", i, status, body)
		}
	}
	if status, body := s.get(ctx, c, "/"); status != 503 || !strings.Contains(body, "try again") {
		t.Errorf("one more than an address may have: %d %s", status, body)
	}
	// Who shows a token has his own, and the connection goes with him.
	for i := range 2 {
		if status, body := s.get(ctx, c, "/hold", "Authorization", "good one"); status != 200 {
			t.Fatalf("request %d with a token: %d %s", i, status, body)
		}
	}
	if status, body := s.get(ctx, c, "/", "Authorization", "good one"); status != 503 {
		t.Errorf("one more than a token may have: %d %s", status, body)
	}
	if status, body := s.get(ctx, c, "/", "Authorization", "good two"); status != 200 {
		t.Errorf("another token: %d %s", status, body)
	}
	if n := s.gate.Connections(); n != 7 {
		t.Errorf("%d connections and requests are counted, want 7", n)
	}
	cancel()
	s.becomes("what has ended does not count", func() bool { return s.gate.Connections() <= 1 })
	if status, body := s.get(t.Context(), s.client(), "/"); status != 200 {
		t.Errorf("afterwards: %d %s", status, body)
	}
}

func (s *streams) becomes(what string, is func() bool) {
	s.t.Helper()
	for range 1000 {
		if is() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	s.t.Fatalf("never: %s", what)
}

// TestStreamsMakeRoom: a connection whose requests all wait makes room for a newer one, and one of
// whose requests one is at work does not.
func TestStreamsMakeRoom(t *testing.T) {
	for name, work := range map[string]bool{"all wait": false, "one is at work": true} {
		t.Run(name, func(t *testing.T) {
			s := newStreams(t, Options{Total: 1000, PerAddress: 4, PerCredential: 1000})
			old := s.client()
			var ended sync.WaitGroup
			for _, path := range []string{"/park", "/park", map[bool]string{true: "/hold", false: "/park"}[work]} {
				req, err := http.NewRequestWithContext(t.Context(), "GET", s.url+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				resp, err := old.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				ended.Go(func() {
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				})
			}
			// A connection that is one too many: the old one goes, or the new one is refused.
			c, err := tls.Dial("tcp", s.srv.Listener.Addr().String(), s.client().Transport.(*http.Transport).TLSClientConfig) //nolint:forcetypeassert // it is
			if work {
				if err == nil {
					_ = c.Close()
					t.Fatal("a new connection was taken though all that there are are at work")
				}
				if n := s.gate.Connections(); n != 4 {
					t.Errorf("%d are counted", n)
				}
				old.CloseIdleConnections()
				s.srv.CloseClientConnections()
			} else if err != nil {
				t.Fatal(err)
			} else {
				defer c.Close()
			}
			ended.Wait()
		})
	}
}

// TestVictimTakesNothing: to close a connection over TLS does not wait for its client.
func TestVictimTakesNothing(t *testing.T) {
	s := newStreams(t, Options{Total: 1000, PerAddress: 1, PerCredential: 1000})
	first, err := net.Dial("tcp", s.srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	began := time.Now()
	if status, body := s.get(t.Context(), s.client(), "/"); status != 503 && status != 200 {
		t.Errorf("%d %s", status, body)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it took %v", took)
	}
}
