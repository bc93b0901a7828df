package nixstore

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// age makes a root older.
func age(t *testing.T, link string, by time.Duration) {
	t.Helper()
	if err := touch(link, time.Now().Add(-by)); err != nil {
		t.Fatal(err)
	}
}

// rooted is a store with gcroots, and the folder of our roots.
func rooted(t *testing.T) (f *fixture, s *Store, dir string) {
	f = newFixture(t, "/nix/store")
	if err := os.Mkdir(filepath.Join(f.state, "gcroots"), 0o755); err != nil {
		t.Fatal(err)
	}
	return f, f.open(), filepath.Join(f.state, "gcroots", "narwharf")
}

// A path that is held has a root, which is young as long as it is asked for.
func TestHold(t *testing.T) {
	f, s, dir := rooted(t)
	if left, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(left) > 0 {
		t.Errorf("opening the store made %v, %v", left, err)
	}
	infos := pathInfos("/nix/store", 3, 0)
	f.put(infos...)
	p := infos[0].Path
	link := filepath.Join(dir, string(p))
	for range 2 {
		if err := s.Hold(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if to, err := os.Readlink(link); err != nil || to != p.In("/nix/store") {
			t.Errorf("the root leads to %q, %v", to, err)
		}
	}
	if err := s.Hold(t.Context(), infos[1].Path); err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(dir, string(infos[1].Path))
	age(t, link, 30*time.Hour)
	age(t, old, 30*time.Hour)
	if err := s.Hold(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(dir, "of-somebody")
	if err := os.Symlink("/nix/store/x", foreign); err != nil {
		t.Fatal(err)
	}
	age(t, foreign, 30*time.Hour)
	if left, err := s.Release(25 * time.Hour); err != nil || left != 1 {
		t.Errorf("%d roots are left, %v", left, err)
	}
	for name, want := range map[string]bool{link: true, old: false, foreign: true} {
		if _, err := os.Lstat(name); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	gone := pathInfo("/nix/store", "gone")
	if err := s.Hold(t.Context(), gone.Path); !errors.Is(err, ErrNotValid) {
		t.Errorf("a path that is not valid: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, string(gone.Path))); err == nil {
		t.Error("it has a root")
	}
	// What a process left that was killed before the root counted is no root.
	late := filepath.Join(dir, string(infos[2].Path))
	if err := os.Symlink(infos[2].Path.In("/nix/store"), late); err != nil {
		t.Fatal(err)
	}
	if err := touch(late, unconfirmed); err != nil {
		t.Fatal(err)
	}
	if err := s.Hold(t.Context(), infos[2].Path); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Lstat(late); err != nil || time.Since(st.ModTime()) > time.Minute {
		t.Errorf("%v, %v", st.ModTime(), err)
	}
}

// A collection that is at work is told of a root over its socket.
func TestHoldBesideACollection(t *testing.T) {
	f, s, _ := rooted(t)
	infos := pathInfos("/nix/store", 2, 0)
	f.put(infos...)
	lock, err := os.OpenFile(filepath.Join(f.state, "gc.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- s.Hold(context.Background(), infos[0].Path) }()
	select {
	case err := <-done:
		t.Fatalf("it did not wait for the collection: %v", err)
	case <-time.After(150 * time.Millisecond):
	}
	if err := os.Mkdir(filepath.Join(f.state, "gc-socket"), 0o755); err != nil {
		t.Fatal(err)
	}
	listen, err := net.Listen("unix", filepath.Join(f.state, "gc-socket", "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer listen.Close()
	c, err := listen.Accept()
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil || line != infos[0].Path.In("/nix/store")+"\n" {
		t.Errorf("told %q, %v", line, err)
	}
	if _, err := c.Write([]byte("1")); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	_ = c.Close()
	_ = listen.Close()
	// It had come by the path already, when we told it.
	go func() { done <- s.Hold(context.Background(), infos[1].Path) }()
	time.Sleep(100 * time.Millisecond)
	f.remove(infos[1].Path)
	_ = lock.Close()
	if err := <-done; !errors.Is(err, ErrNotValid) {
		t.Errorf("a path that was collected: %v", err)
	}
}

// Where nothing can be made, that is said.
func TestHoldWithoutRoots(t *testing.T) {
	f := newFixture(t, "/nix/store")
	infos := pathInfos("/nix/store", 1, 0)
	f.put(infos...)
	if err := f.open().Hold(t.Context(), infos[0].Path); !errors.Is(err, ErrNoRoot) {
		t.Errorf("no gcroots, no folder: %v", err)
	}
	s, err := Open(Options{StateDir: f.state, Roots: filepath.Join(t.TempDir(), "roots"), DaemonSocket: filepath.Join(t.TempDir(), "none")})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Hold(t.Context(), infos[0].Path); !errors.Is(err, ErrNoRoot) {
		t.Errorf("no gcroots, no daemon: %v", err)
	}
}

// Many at once, some of the same path.
func TestHoldMany(t *testing.T) {
	f, s, dir := rooted(t)
	infos := pathInfos("/nix/store", 200, 0)
	f.put(infos...)
	var all sync.WaitGroup
	for n := range 25 {
		all.Go(func() {
			for i := range infos {
				if err := s.Hold(t.Context(), infos[(i+n*8)%len(infos)].Path); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	if links, err := os.ReadDir(dir); err != nil || len(links) != len(infos) {
		t.Errorf("%d roots, %v", len(links), err)
	}
}
