package longpoll

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestPanic: a poll that panics costs its connection, not the server.
func TestPanic(t *testing.T) {
	var log strings.Builder
	polls := New(Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	var looks, overs atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		detached, err := polls.Serve(w, req, Poll{Topics: []string{"topic"}, Over: func(bool) { overs.Add(1) }, Look: func() (Answer, error) {
			if looks.Add(1) > 1 {
				panic("a bug")
			}
			return Answer{Status: 200, ETag: `"x"`}, nil
		}})
		if err != nil || !detached {
			t.Errorf("poll: %v, detached %v", err, detached)
		}
	}))
	defer srv.Close()
	l := polls.Listener(time.Minute)
	defer l.Close()
	go func() { _ = srv.Config.Serve(l) }()
	for polls.parking.enter() == false {
		time.Sleep(time.Millisecond)
	}
	polls.parking.polls.Done()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, "GET /x HTTP/1.1\r\nHost: a\r\nIf-None-Match: \"x\"\r\nPrefer: wait=60\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	for polls.Count().Detached == 0 {
		time.Sleep(time.Millisecond)
	}
	polls.Notify("topic")
	if text, err := io.ReadAll(conn); err != nil || len(text) > 0 {
		t.Errorf("answer %q (%v), want none", text, err)
	}
	polls.Stop() // waits for it
	if overs.Load() != 1 || !strings.Contains(log.String(), "a bug") {
		t.Errorf("over %d times; log %s", overs.Load(), &log)
	}
	if n := polls.Count(); n.Waiting != 0 {
		t.Errorf("a topic is still waited for: %+v", n)
	}
}
