//go:build linux

package fastpath

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// segments serves one request by handler and returns the body that the client
// got and how many segments with data the server's side sent.
func segments(t *testing.T, hook func(context.Context, net.Conn) context.Context, handler http.HandlerFunc) (body string, sent uint32) {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &Listener{Listener: tcp, Idle: time.Minute, HeaderTimeout: time.Minute, Lookup: func([]byte, bool) *Answer { return nil }}
	accepted := make(chan net.Conn, 1)
	srv := &http.Server{Handler: handler, ConnContext: func(ctx context.Context, c net.Conn) context.Context {
		accepted <- c
		if hook == nil {
			return ctx
		}
		return hook(ctx, c)
	}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l)
	}()
	defer func() {
		srv.Close()
		<-done
	}()
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	resp, err := client.Get("http://" + tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := (<-accepted).(*conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			t.Error(err)
			return
		}
		sent = info.Data_segs_out
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(text), sent
}

// TestHold: a head that is flushed and the file that follows it are one segment,
// and two without Hold.
func TestHold(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(strings.Repeat("x", 1000)), 0o644); err != nil {
		t.Fatal(err)
	}
	send := func(hold bool) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			f, err := os.Open(name)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			w.Header().Set("Content-Length", "1000")
			w.WriteHeader(http.StatusOK)
			if hold {
				Hold(r.Context())
			}
			_ = http.NewResponseController(w).Flush()
			if n, err := io.Copy(w, &io.LimitedReader{R: f, N: 1000}); n != 1000 || err != nil {
				t.Errorf("%d bytes, %v", n, err)
			}
		}
	}
	for name, c := range map[string]struct {
		hook func(context.Context, net.Conn) context.Context
		hold bool
		want uint32
	}{
		"held":          {ConnContext, true, 1},
		"not held":      {ConnContext, false, 2},
		"not connected": {nil, true, 2},
	} {
		body, sent := segments(t, c.hook, send(c.hold))
		if body != strings.Repeat("x", 1000) || sent != c.want {
			t.Errorf("%s: %d bytes in %d segments, want %d", name, len(body), sent, c.want)
		}
	}
}

// TestHoldAlone: what nothing follows arrives all the same.
func TestHoldAlone(t *testing.T) {
	body, _ := segments(t, ConnContext, func(w http.ResponseWriter, r *http.Request) {
		Hold(r.Context())
		_, _ = io.WriteString(w, "all of it")
	})
	if body != "all of it" {
		t.Errorf("the client got %q", body)
	}
}
