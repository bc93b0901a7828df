package api

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"narwharf/hooks/api/trust"
)

func client(t *testing.T, o ClientOptions) *Client {
	t.Helper()
	c, err := NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func serve(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

func TestServersInTurn(t *testing.T) {
	asked := 0
	bad := serve(t, func(w http.ResponseWriter, _ *http.Request) { asked++; w.WriteHeader(http.StatusBadGateway) })
	good := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/prefix/api/v1/x" || r.Header.Get("Authorization") != "Bearer t0" {
			t.Errorf("%s %q", r.URL.Path, r.Header.Get("Authorization"))
		}
		w.Write([]byte(`{}`)) //nolint:errcheck // a test's server
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := "http://" + l.Addr().String()
	l.Close()
	c := client(t, ClientOptions{Servers: []string{gone, bad.URL, good.URL + "/prefix/"}, Token: "t0"})
	for range 3 {
		if _, err := c.Do(context.Background(), Call{Path: "/api/v1/x"}); err != nil {
			t.Fatal(err)
		}
	}
	if asked != 1 || c.Server() != good.URL+"/prefix" {
		t.Errorf("the bad server was asked %d times, first is %s", asked, c.Server())
	}
}

func TestNoOtherServerAfterAnAnswer(t *testing.T) {
	second := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("the second server was asked") })
	first := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusConflict)
		w.Write([]byte(`{"kind":"stale","message":"older","start_id":7,"counter":3}`)) //nolint:errcheck // a test's server
	})
	c := client(t, ClientOptions{Servers: []string{first.URL, second.URL}})
	err := c.PutStatus(context.Background(), "h1", &Status{}, false)
	var e *Error
	if !errors.As(err, &e) || e.Kind != StaleStatus || e.StartID != 7 || e.Counter != 3 || e.Status != 409 {
		t.Fatal(err)
	}
}

func TestForeignErrors(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		kind   Kind
		words  string
	}{
		{502, "<html><body>bad gateway</body></html>", Unavailable, "502 Bad Gateway"},
		{403, "blocked by policy\nmore", Forbidden, "blocked by policy"},
		{404, `{"error":"x"}`, NotFound, "404"},
		{500, "", Internal, "500"},
		{418, "", BadRequest, "418"},
	} {
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "3")
			w.WriteHeader(c.status)
			w.Write([]byte(c.body)) //nolint:errcheck // a test's server
		})
		_, err := client(t, ClientOptions{Servers: []string{s.URL}}).Do(context.Background(), Call{Path: "/x"})
		var e *Error
		if !errors.As(err, &e) || e.Kind != c.kind || !strings.Contains(e.Message, c.words) || strings.Contains(e.Message, "more") || e.RetryAfter != 3*time.Second {
			t.Errorf("%d: %v", c.status, err)
		}
	}
}

func TestDesired(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RequestURI() != "/api/v1/hosts/h1/desired?channel=web&keys=0&seq=0&target=role%3Aweb" {
			t.Error(r.URL.RequestURI())
		}
		if r.Header.Get("If-None-Match") == `"a"` {
			if r.Header.Get("Prefer") != "wait=45" {
				t.Errorf("Prefer: %q", r.Header.Get("Prefer"))
			}
			w.WriteHeader(http.StatusNotModified)
			return
		}
		if r.Header.Get("Prefer") != "" {
			t.Error("it waits for an answer that it does not have")
		}
		w.Header().Set("ETag", `"a"`)
		w.Write([]byte(`{"channel":"web","seq":4}`)) //nolint:errcheck // a test's server
	})
	c := client(t, ClientOptions{Servers: []string{s.URL}})
	d, etag, err := c.Desired(context.Background(), "h1", "web", "role:web", Have{}, "", 45*time.Second)
	if err != nil || d.Seq != 4 || etag != `"a"` {
		t.Fatal(d, etag, err)
	}
	if _, _, err := c.Desired(context.Background(), "h1", "web", "role:web", Have{}, etag, 45500*time.Millisecond); !errors.Is(err, ErrNotModified) {
		t.Fatal(err)
	}
}

// TestHalfOpen: a server that never answers costs a time-out, and the next
// call has a connection of its own.
func TestHalfOpen(t *testing.T) {
	stop := make(chan struct{})
	defer close(stop)
	var mu sync.Mutex
	conns := map[string]bool{}
	seen := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(conns)
	}
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		conns[r.RemoteAddr] = true
		mu.Unlock()
		if r.URL.Path == "/hang" {
			select {
			case <-stop:
			case <-r.Context().Done():
			}
		}
	})
	c := client(t, ClientOptions{Servers: []string{s.URL}, Timeout: 100 * time.Millisecond})
	start := time.Now()
	if _, err := c.Do(context.Background(), Call{Path: "/hang"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if time.Since(start) > 5*time.Second {
		t.Error("it took", time.Since(start))
	}
	for range 2 {
		if _, err := c.Do(context.Background(), Call{Path: "/", Timeout: 5 * time.Second}); err != nil {
			t.Fatal(err)
		}
	}
	if n := seen(); n != 2 {
		t.Errorf("%d connections", n)
	}
	if _, err := c.Do(context.Background(), Call{Path: "/", Fresh: true, Timeout: 5 * time.Second}); err != nil || seen() != 3 {
		t.Errorf("fresh: %v, %d connections", err, seen())
	}
}

func TestLimits(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/away":
			http.Redirect(w, r, "http://192.0.2.1/x", http.StatusFound)
		case "/big":
			w.Write(make([]byte, 100)) //nolint:errcheck // a test's server
		}
	})
	c := client(t, ClientOptions{Servers: []string{s.URL}})
	if _, err := c.Do(context.Background(), Call{Path: "/big", MaxBody: 99}); err == nil || !strings.Contains(err.Error(), "more than 99 bytes") {
		t.Error(err)
	}
	if _, err := c.Do(context.Background(), Call{Path: "/away"}); err == nil || !strings.Contains(err.Error(), "redirects to http://192.0.2.1") {
		t.Error(err)
	}
}

// TestTokenStaysWithItsServer: a redirect to another port of the server's own name is not followed.
func TestTokenStaysWithItsServer(t *testing.T) {
	stolen := ""
	other := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		stolen += r.URL.Path + r.Header.Get("Authorization") + " "
	})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/path":
			http.Redirect(w, r, "/here", http.StatusFound)
		case "/here":
			_, _ = io.WriteString(w, r.Header.Get("Authorization"))
		default:
			http.Redirect(w, r, other.URL+"/x", http.StatusTemporaryRedirect)
		}
	})
	c := client(t, ClientOptions{Servers: []string{s.URL}, Token: "nwt_secret"})
	for _, call := range []Call{{Path: "/away"}, {Path: "/away", Fresh: true}, {Method: http.MethodPut, Path: "/away", Body: []byte("report")}} {
		if _, err := c.Do(context.Background(), call); err == nil || stolen != "" {
			t.Errorf("%+v: %v; the other server was asked %q", call, err, stolen)
		}
	}
	if a, err := c.Do(context.Background(), Call{Path: "/path"}); err != nil || string(a.Body) != "Bearer nwt_secret" {
		t.Errorf("within the server: %v", err)
	}
}

func TestPrivateCA(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := client(t, ClientOptions{Servers: []string{s.URL}}).Do(context.Background(), Call{Path: "/"}); err == nil {
		t.Error("an unknown certificate was trusted")
	}
	if _, err := client(t, ClientOptions{Servers: []string{s.URL}, Trust: trust.Files{CA: ca}}).Do(context.Background(), Call{Path: "/"}); err != nil {
		t.Error(err)
	}
}

func TestParseURL(t *testing.T) {
	for text, want := range map[string]string{
		"https://cache.example.org":               "https://cache.example.org",
		"https://cache.example.org/some/prefix//": "https://cache.example.org/some/prefix",
		"http://[::1]:8080/":                      "http://[::1]:8080",
	} {
		if u, err := ParseURL(text); err != nil || u.String() != want {
			t.Errorf("%s: %v, %v", text, u, err)
		}
	}
	for _, bad := range []string{"", "cache.example.org", "ftp://x/", "http://", "/x", "http://%zz", "https://x/?a=b", "https://x/#a", "https://me:secret@x"} {
		if u, err := ParseURL(bad); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v, %v", bad, u, err)
		}
	}
}

func TestBadOptions(t *testing.T) {
	dir := t.TempDir()
	two := filepath.Join(dir, "two")
	if err := os.WriteFile(two, []byte("a b\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, o := range []ClientOptions{
		{}, {Servers: []string{"cache.example.org"}}, {Servers: []string{"https://user:pw@cache.example.org"}}, {Servers: []string{"ftp://x"}},
		{Servers: []string{"http://x"}, TokenFile: two}, {Servers: []string{"http://x"}, TokenFile: filepath.Join(dir, "none")},
		{Servers: []string{"http://x"}, Token: "a", TokenFile: two}, {Servers: []string{"http://x"}, Trust: trust.Files{CA: two}},
	} {
		if _, err := NewClient(o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}
