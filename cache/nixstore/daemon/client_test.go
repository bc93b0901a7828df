package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestDaemonConnectionsAreReused(t *testing.T) {
	infos := pathInfos("/nix/store", 200, 3)
	f := newFakeDaemon(t, 38, infos...)
	s := f.client()
	for _, i := range infos {
		mustInfo(t, s, i.Path)
	}
	all, err := s.Closure(context.Background(), infos[199].Path, infos[100].Path)
	if got, want := names(all), closureOf(infos, infos[199].Path, infos[100].Path); err != nil || !slices.Equal(got, want) {
		t.Errorf("%d paths, want %d, %v", len(got), len(want), err)
	}
	if n := f.dialled.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestDaemonChanges(t *testing.T) {
	f := newFakeDaemon(t, 38)
	s := f.client()
	i := pathInfo("/nix/store", "x")
	i.References = nil
	for n := range 5 {
		if _, err := s.Info(context.Background(), i.Path); !errors.Is(err, ErrNotValid) {
			t.Fatal(err)
		}
		i.NarHash[1] = byte(n)
		f.set(i)
		same(t, mustInfo(t, s, i.Path), i)
		if all, err := s.Closure(context.Background(), i.Path); err != nil || all[0].NarHash != i.NarHash {
			t.Errorf("%+v, %v", all, err)
		}
		f.mu.Lock()
		delete(f.infos, i.Path)
		f.mu.Unlock()
		if _, err := s.Closure(context.Background(), i.Path); !errors.Is(err, ErrNotValid) {
			t.Errorf("%v", err)
		}
	}
}

func TestDaemonClosureNamesWhatIsMissing(t *testing.T) {
	infos := pathInfos("/nix/store", 20, 3)
	f := newFakeDaemon(t, 38, infos...)
	s := f.client()
	delete(f.infos, infos[0].Path)
	all, err := s.Closure(context.Background(), infos[19].Path)
	if all != nil || !errors.Is(err, ErrNotValid) || !strings.HasPrefix(err.Error(), infos[0].Path.In("/nix/store")+" is not in the local store any more, and /nix/store/") {
		t.Errorf("%d paths, %v", len(all), err)
	}
	gone := pathInfo("/nix/store", "gone").Path
	if _, err := s.Closure(context.Background(), gone); !errors.Is(err, ErrNotValid) || err.Error() != gone.In("/nix/store")+" is not in the local store" {
		t.Error(err)
	}
}

func TestDaemonRestarts(t *testing.T) {
	infos := pathInfos("/nix/store", 20, 3)
	f := newFakeDaemon(t, 38, infos...)
	s := f.client()
	for _, i := range infos {
		mustInfo(t, s, i.Path)
		f.stop()
		f.start()
	}
	f.stop()
	_, err := s.Info(context.Background(), infos[0].Path)
	if !errors.Is(err, ErrNoAnswer) || !strings.Contains(err.Error(), "there is no such socket") {
		t.Error(err)
	}
	f.start()
	mustInfo(t, s, infos[0].Path)
}

func TestDaemonGoesAwayInTheMiddle(t *testing.T) {
	i := pathInfo("/nix/store", "x")
	f := newFakeDaemon(t, 38, i)
	s := f.client()
	f.before = func(x *wire, c net.Conn) bool {
		x.putNumber(msgLast)
		x.putNumber(1)
		x.putText(i.Deriver.In("/nix/store"))
		x.flush()
		_ = c.Close()
		return true
	}
	_, err := s.Info(context.Background(), i.Path)
	if !errors.Is(err, ErrNoAnswer) || errors.Is(err, ErrNotValid) || !strings.Contains(err.Error(), "unexpected EOF") {
		t.Error(err)
	}
	if n := f.asked.Load(); n != 2 {
		t.Errorf("asked %d times", n)
	}
	if _, err := s.Closure(context.Background(), i.Path); !errors.Is(err, ErrNoAnswer) {
		t.Error(err)
	}
}

func TestSilentDaemon(t *testing.T) {
	i, other := pathInfo("/nix/store", "x"), pathInfo("/nix/store", "y")
	f := newFakeDaemon(t, 38, i, other)
	s := f.client()
	mustInfo(t, s, other.Path) // leaves an idle connection
	release := make(chan struct{})
	defer close(release)
	f.mu.Lock()
	f.before = func(*wire, net.Conn) bool { <-release; return true }
	f.mu.Unlock()

	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := s.Info(ctx, i.Path); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > time.Second {
		t.Errorf("after %s: %v", time.Since(start), err)
	}
	s.timeout = 200 * time.Millisecond
	start = time.Now()
	_, err := s.Info(context.Background(), i.Path)
	if !errors.Is(err, ErrNoAnswer) || !strings.Contains(err.Error(), "no answer for 200ms") || time.Since(start) > time.Second {
		t.Errorf("after %s: %v", time.Since(start), err)
	}
}

func TestDaemonContextAfterTheAnswer(t *testing.T) {
	infos := pathInfos("/nix/store", 300, 0)
	f := newFakeDaemon(t, 38, infos...)
	s := f.client()
	// A context that ends right after its call must not end the next one.
	for n, i := range infos {
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(n)*20*time.Microsecond)
		if got, err := s.Info(ctx, i.Path); err == nil && got.Path != i.Path || err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, %v", got, err)
		}
		cancel()
		if got := mustInfo(t, s, i.Path); got.NarHash != i.NarHash {
			t.Errorf("%+v", got)
		}
	}
}

func TestDaemonConcurrently(t *testing.T) {
	infos := pathInfos("/nix/store", 100, 3)
	f := newFakeDaemon(t, 38, infos...)
	s := f.client()
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for n := range 50 {
				i := infos[(g*13+n*7)%100]
				if got, err := s.Info(context.Background(), i.Path); err != nil || got.NarHash != i.NarHash {
					t.Errorf("%+v, %v", got, err)
				}
			}
			if all, err := s.Closure(context.Background(), infos[99].Path); err != nil || len(all) != len(closureOf(infos, infos[99].Path)) {
				t.Errorf("%d paths, %v", len(all), err)
			}
		})
	}
	wg.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.idle) > maxIdle {
		t.Errorf("%d idle connections", len(s.idle))
	}
}

func TestDaemonSweep(t *testing.T) {
	infos := pathInfos("/nix/store", 3, 0)
	f := newFakeDaemon(t, 38, infos...)
	s := f.client()
	mustInfo(t, s, infos[0].Path)
	d := s
	d.mu.Lock()
	if len(d.idle) != 1 || d.timer == nil {
		t.Errorf("%d idle, timer %v", len(d.idle), d.timer)
	}
	d.mu.Unlock()
	d.sweep()
	d.mu.Lock()
	if len(d.idle) != 1 || d.timer == nil {
		t.Errorf("%d idle after a sweep that came early, timer %v", len(d.idle), d.timer)
	}
	d.idle[0].used = time.Now().Add(-idleTime)
	d.mu.Unlock()
	d.sweep()
	d.mu.Lock()
	if len(d.idle) != 0 || d.timer != nil {
		t.Errorf("%d idle, timer %v", len(d.idle), d.timer)
	}
	d.mu.Unlock()
	mustInfo(t, s, infos[0].Path)
}

func TestSocketErrors(t *testing.T) {
	dir := shortDir(t)
	l, err := net.Listen("unix", dir+"/dead")
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ socket, want string }{
		{dir + "/none", "there is no such socket"},
		{dir + "/dead", "nobody listens on it"},
		{dir + "/" + strings.Repeat("n", 120), "its path is longer than the 107 bytes that a socket can have"},
	} {
		err := New(c.socket, "/nix/store", time.Second).Ping(context.Background())
		if want := fmt.Sprintf("nix-daemon does not answer on %s: %s", c.socket, c.want); !errors.Is(err, ErrNoAnswer) || !strings.Contains(err.Error(), want) {
			t.Error(err)
		}
	}
}

// A path is kept for the time of one connection while its link is made, and by the link
// from then on.
func TestDaemonRoot(t *testing.T) {
	for _, minor := range []uint64{21, 26, 38} {
		i := pathInfo("/nix/store", "a")
		f := newFakeDaemon(t, minor, i)
		c := f.client()
		for _, broken := range []error{errors.New("broken"), nil} {
			f.mu.Lock()
			f.roots = nil
			f.mu.Unlock()
			err := c.Root(t.Context(), i.Path, "/var/lib/x/roots/a", func() error {
				f.mu.Lock()
				defer f.mu.Unlock()
				if want := []string{"11 " + i.Path.In("/nix/store")}; !slices.Equal(f.roots, want) {
					t.Errorf("before the link: %q", f.roots)
				}
				return broken
			})
			want := []string{"11 " + i.Path.In("/nix/store"), "12 /var/lib/x/roots/a"}
			if broken != nil {
				want = want[:1]
			}
			f.mu.Lock()
			if !errors.Is(err, broken) || !slices.Equal(f.roots, want) {
				t.Errorf("%q, %v", f.roots, err)
			}
			f.mu.Unlock()
		}
	}
}
