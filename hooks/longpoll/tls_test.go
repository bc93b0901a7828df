package longpoll

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// TestParkedOverTLS: a connection over TLS parks, is woken, asks again, and net/http knows each time
// that it is over TLS; polls of HTTP/2 wait in their handlers.
func TestParkedOverTLS(t *testing.T) {
	polls := New(Options{Log: slog.New(slog.DiscardHandler), Answered: func(string, int) {}, WriteError: func(w http.ResponseWriter, _ *http.Request, err error) {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}})
	var version, plain atomic.Int64
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.TLS == nil || !req.TLS.HandshakeComplete {
			plain.Add(1)
		}
		_, err := polls.Serve(w, req, Poll{Topics: []string{"news"}, Look: func() (Answer, error) {
			v := fmt.Sprint(version.Load())
			return Answer{Status: 200, ETag: `"` + v + `"`, Body: []byte(v)}, nil
		}})
		if err != nil {
			t.Error(err)
		}
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	returned := make(chan error, 1)
	go func() { returned <- srv.Config.Serve(polls.Listener(time.Minute)) }()
	defer func() { polls.Stop(); _ = polls.parking.Close(); <-returned }()

	config := srv.Client().Transport.(*http.Transport).TLSClientConfig.Clone() //nolint:forcetypeassert // it is httptest's
	config.NextProtos = []string{"http/1.1"}
	c, err := tls.Dial("tcp", srv.Listener.Addr().String(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	in := bufio.NewReader(c)
	becomes := func(what string, is func(Counts) bool) {
		t.Helper()
		for range 1000 {
			if is(polls.Count()) {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
		t.Fatalf("never: %s: %+v", what, polls.Count())
	}
	for v := range 4 {
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: a\r\nIf-None-Match: \"%d\"\r\nPrefer: wait=60\r\n\r\n", v)
		becomes("it parks", func(n Counts) bool { return n.Detached == 1 })
		version.Add(1)
		polls.Notify("news")
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || string(body) != fmt.Sprint(v+1) {
			t.Fatalf("woken with %q, %v", body, err)
		}
		becomes("it waits for a request", func(n Counts) bool { return n.Silent == 1 })
	}
	_ = c.Close()
	becomes("its client has left", func(n Counts) bool { return n.Silent == 0 })
	if n := plain.Load(); n != 0 {
		t.Errorf("%d requests were not over TLS to net/http", n)
	}

	// HTTP/2.
	answered := make(chan string, 1)
	go func() {
		req, err := http.NewRequestWithContext(t.Context(), "GET", srv.URL+"/", nil)
		if err != nil {
			answered <- err.Error()
			return
		}
		req.Header.Set("If-None-Match", `"4"`)
		req.Header.Set("Prefer", "wait=60")
		resp, err := srv.Client().Do(req)
		if err != nil {
			answered <- err.Error()
			return
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		answered <- fmt.Sprintf("%s %s %v", resp.Proto, body, err)
	}()
	becomes("it waits", func(n Counts) bool { return n.Waiting == 1 && n.Detached == 0 })
	version.Add(1)
	polls.Notify("news")
	if got := <-answered; got != "HTTP/2.0 5 <nil>" {
		t.Error(got)
	}
}
