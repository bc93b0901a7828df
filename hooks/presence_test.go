package hooks

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/host/presence"
)

// pipes is a listener in memory.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	close func()
}

func newPipes() *pipes {
	p := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
	p.close = sync.OnceFunc(func() { close(p.done) })
	return p
}

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case p.conns <- far:
		return near, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

// Accept implements net.Listener.
func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (p *pipes) Close() error {
	p.close()
	return nil
}

// Addr implements net.Listener.
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// inBubble runs a test on a clock of its own, which passes when all wait.
func inBubble(t *testing.T, test func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := makeWorld(t, true)
		test(t, w)
	})
}

// leavingPoll parks web-1's poll and returns how to break it off.
func (w *world) leavingPoll(etag string) (leave func()) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, "GET", w.http.URL+desiredPath, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.host)
	req.Header.Set("If-None-Match", etag)
	req.Header.Set("Prefer", "wait=60")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if resp, err := w.client.Do(req); err == nil {
			resp.Body.Close()
			w.t.Error("the poll was answered")
		}
	}()
	synctest.Wait()
	return func() {
		cancel()
		<-ended
		synctest.Wait()
	}
}

func (w *world) online() bool {
	w.t.Helper()
	return decode[api.Host](w.t, w.must(w.do("GET", "/api/v1/hosts/web-1", w.op, nil), 200, "")).Online
}

// goesAfter sees that web-1 counts as gone after a time, and not before, and
// that who looks at the hosts is told.
func (w *world) goesAfter(d time.Duration) {
	w.t.Helper()
	type told struct {
		at     time.Time
		online bool
	}
	var watchers []chan told
	for _, path := range []string{"/api/v1/hosts?channel=web", "/api/v1/hosts", "/api/v1/hosts/web-1"} {
		etag := w.do("GET", path, w.op, nil).header.Get("ETag")
		ch := make(chan told, 1)
		watchers = append(watchers, ch)
		go func() {
			a, err := w.try("GET", path, w.op, nil, "If-None-Match", etag, "Prefer", "wait=300")
			if err != nil || a.status != 200 {
				w.t.Errorf("GET %s: %s (%v)", path, a, err)
			}
			ch <- told{time.Now(), strings.Contains(a.body, `"online":true`)}
		}()
	}
	synctest.Wait()
	begin := time.Now()
	time.Sleep(d - time.Millisecond)
	if !w.online() {
		w.t.Errorf("gone before %v", d)
	}
	time.Sleep(time.Millisecond)
	if w.online() {
		w.t.Errorf("still there after %v", d)
	}
	for _, ch := range watchers {
		if got := <-ch; got.online || got.at.Sub(begin) != d {
			w.t.Errorf("a watcher was told after %v, online %v; want it at %v", got.at.Sub(begin), got.online, d)
		}
	}
}

// TestGone: a host whose poll broke off is offline soon; one that was answered
// has time for its work.
func TestGone(t *testing.T) {
	for name, lot := range map[string]bool{"in the lot": true, "in net/http": false} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				if !lot {
					_ = w.parking.Close()
					synctest.Wait()
				}
				w.must(w.report(status(1, api.Idle)), 204, "")
				etag := w.must(w.do("GET", desiredPath, w.host, nil), 200, "").header.Get("ETag")
				w.goesAfter(presence.OnlineFor)

				leave := w.leavingPoll(etag)
				time.Sleep(50 * time.Second)
				if !w.online() {
					t.Error("offline while it polls")
				}
				leave()
				w.goesAfter(goneAfter)

				// It comes back within that time: the old poll says nothing more.
				leave = w.leavingPoll(etag)
				leave()
				time.Sleep(goneAfter - time.Second)
				if a := w.do("GET", desiredPath, w.host, nil, "If-None-Match", etag, "Prefer", "wait=5"); a.status != 304 {
					t.Errorf("time-out: %s", a)
				}
				w.goesAfter(presence.OnlineFor)

				// A report, too, is a sign of life.
				leave = w.leavingPoll(etag)
				leave()
				w.must(w.report(status(2, api.Staging)), 204, "")
				w.goesAfter(presence.OnlineFor)

				// What breaks off after another poll was answered is an old
				// connection, of which the end was noticed late.
				leave = w.leavingPoll(etag)
				w.must(w.do("GET", desiredPath, w.host, nil), 200, "")
				leave()
				w.goesAfter(presence.OnlineFor)
			})
		})
	}
}

// TestGoneAtStop: a poll that a stopping server answers did not break off.
func TestGoneAtStop(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.must(w.report(status(1, api.Idle)), 204, "")
		etag := w.do("GET", desiredPath, w.host, nil).header.Get("ETag")
		got := make(chan answer, 1)
		go func() {
			a, _ := w.try("GET", desiredPath, w.host, nil, "If-None-Match", etag, "Prefer", "wait=60")
			got <- a
		}()
		synctest.Wait()
		w.s.Stop()
		w.must(<-got, 503, api.Unavailable)
		time.Sleep(goneAfter + time.Second)
		if !w.online() {
			t.Error("offline")
		}
	})
}
