package nixstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"narwharf/narinfo"
)

// TestLockedByAnotherProcess is TestLocked where only the kernel's locks tell.
func TestLockedByAnotherProcess(t *testing.T) {
	users(t, func(t *testing.T, uid int) {
		f := newFixture(t, "/nix/store")
		i := pathInfo("/nix/store", "x")
		f.put(i)
		f.leaveWAL()
		f.connect("wal")
		f.exec("pragma locking_mode = exclusive")
		f.exec("begin exclusive")
		f.exec("delete from Refs")
		o := f.options()
		o.Timeout = 300 * time.Millisecond
		r := startReader(t, uid, o)
		if a := r.ask("open"); a.Kind != ErrLocked.Error() || !strings.Contains(a.Error, "another process holds the Nix database for itself") {
			t.Errorf("open: %+v", a)
		}
		f.exec("rollback")
		if err := f.w.Close(); err != nil { // takes the -wal and -shm files away
			t.Fatal(err)
		}
		f.connect("wal")
		f.exec("insert into Refs select id, id from ValidPaths")
		f.exec("delete from Refs")
		if a := r.ask("open"); a.Error != "" {
			t.Fatal(a.Error)
		}
		r.has(i)
		// A transaction of Nix is in nobody's way, before or after its end.
		f.exec("begin immediate")
		f.exec("insert into ValidPaths (path, hash, registrationTime, narSize) select path || '-2', hash, 1, 1 from ValidPaths")
		r.has(i)
		r.hasNot(i.Path + "-2")
		f.exec("commit")
		r.has(i)
		if a := r.ask("info " + string(i.Path) + "-2"); a.Error != "" {
			t.Error(a.Error)
		}
	})
}

// TestReplacedWhileAsked puts other databases in place again and again under
// many who ask: each gets what one of them says, or that the store cannot be read
// now.
func TestReplacedWhileAsked(t *testing.T) {
	f := newFixture(t, "/nix/store")
	infos := pathInfos("/nix/store", 300, 3)
	f.put(infos...)
	s := f.open()
	root := infos[299].Path
	want := closureOf(infos, root)
	ctx, stop := context.WithCancel(context.Background())
	var all sync.WaitGroup
	answers := make(chan int, 4)
	for range cap(answers) {
		all.Go(func() {
			n := 0
			for ; ctx.Err() == nil; n++ {
				i, err := s.Info(ctx, root)
				if err == nil && i.NarHash != infos[299].NarHash || err != nil && !errors.Is(err, ErrUnavailable) && ctx.Err() == nil {
					t.Errorf("info: %v", err)
				}
				got, err := s.Closure(ctx, root)
				if err == nil && !slices.Equal(names(got), want) || err != nil && !errors.Is(err, ErrUnavailable) && ctx.Err() == nil {
					t.Errorf("closure of %d: %v", len(got), err)
				}
				if _, err := s.Version(ctx); err != nil && !errors.Is(err, ErrUnavailable) && ctx.Err() == nil {
					t.Errorf("version: %v", err)
				}
			}
			answers <- n
		})
	}
	for n := range 8 {
		other := newFixtureIn(t, "/nix/store", shortDir(t))
		other.put(pathInfo("/nix/store", fmt.Sprint("first-", n))) // so that the rows have other numbers
		other.put(infos...)
		other.leaveWAL()
		for _, file := range []string{"-wal", "-shm", ""} {
			if err := os.Rename(databaseIn(other.state)+file, databaseIn(f.state)+file); err != nil {
				t.Fatal(err)
			}
		}
		if i, err := s.InfoByHash(context.Background(), pathInfo("/nix/store", fmt.Sprint("first-", n)).Path.Hash()); err != nil {
			t.Errorf("number %d: %v %v", n, i, err)
		}
	}
	stop()
	all.Wait()
	for range cap(answers) {
		if <-answers == 0 {
			t.Error("one asked nothing")
		}
	}
	if n := openFiles(t); n > 20 {
		t.Errorf("%d files of databases are open", n)
	}
}

// TestStoreOfAnotherPrefix would find nothing, and say of every path that it is
// not there.
func TestStoreOfAnotherPrefix(t *testing.T) {
	t.Setenv("NIX_DAEMON_SOCKET_PATH", "")
	const ours, theirs = "/nix/store", "/opt/my nix/store"
	f := newFixture(t, theirs)
	i := pathInfo(theirs, "x")
	if err := os.MkdirAll(f.state, 0o755); err != nil {
		t.Fatal(err)
	}
	s, err := Open(Options{StoreDir: ours, StateDir: f.state}) // empty: it may become ours
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Info(context.Background(), i.Path); !errors.Is(err, ErrNotValid) {
		t.Error(err)
	}
	f.put(i)
	same(t, mustInfo(t, f.open(), i.Path), i)

	want := "the database " + databaseIn(f.state) + " has the paths of /opt/my nix/store and none of /nix/store: give /opt/my nix/store as the store directory, "
	for _, dir := range []string{ours, "/opt/my nix", "/opt/my nix/stor", "/opt/my nix/store2", "/mnt/opt/my nix/store"} {
		other, err := Open(Options{StoreDir: dir, StateDir: f.state})
		if err == nil {
			other.Close()
		}
		if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), strings.ReplaceAll(want, ours, dir)) {
			t.Errorf("%s: %v", dir, err)
		}
	}

	// One that is put in place later is noticed, too.
	home := newFixtureIn(t, ours, shortDir(t))
	j := pathInfo(ours, "y")
	home.put(j)
	s = home.open()
	same(t, mustInfo(t, s, j.Path), j)
	f.leaveWAL()
	for _, file := range []string{"-wal", "-shm", ""} {
		if err := os.Rename(databaseIn(f.state)+file, databaseIn(home.state)+file); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Info(context.Background(), j.Path); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "none of /nix/store") {
		t.Error(err)
	}
	// A row that makes no sense does not make it another's store.
	odd := newFixtureIn(t, ours, shortDir(t))
	odd.exec("insert into ValidPaths (path, hash, registrationTime, narSize) values ('/elsewhere/x', 'y', 1, 1)")
	odd.put(j)
	same(t, mustInfo(t, odd.open(), j.Path), j)
}

// TestRealStoreOfAnotherPrefix asks a real Nix's store under a wrong name, by
// way of its database and of its daemon.
func TestRealStoreOfAnotherPrefix(t *testing.T) {
	eachNix(t, func(t *testing.T, n *nix) {
		p := n.add("x", "x")
		n.daemon()
		mustInfo(t, n.open(n.daemonOnly()), p) // the daemon that answered has the database open
		o := n.options()
		o.StoreDir = "/nix/store"
		s, err := Open(o)
		if err == nil {
			s.Close()
		}
		if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "has the paths of "+n.storeDir+" and none of /nix/store") {
			t.Errorf("%v", err)
		}
		o = n.daemonOnly()
		o.StoreDir = "/nix/store"
		if s, err = Open(o); err != nil {
			t.Fatal(err) // nothing tells before the first question
		}
		defer s.Close()
		_, err = s.Info(context.Background(), p)
		if err == nil || errors.Is(err, ErrNotValid) || !strings.Contains(err.Error(), "is not in the Nix store") {
			t.Errorf("%v", err)
		}
		_, err = s.InfoByHash(context.Background(), p.Hash())
		if err == nil || errors.Is(err, ErrNotValid) || !strings.Contains(err.Error(), `is not directly in "/nix/store"`) {
			t.Errorf("%v", err)
		}
	})
}

// TestManyPaths is a store of 10,000 paths; for one of 200,000 see the benchmarks.
func TestManyPaths(t *testing.T) {
	const n = 10_000
	f := newFixture(t, "/nix/store")
	infos := pathInfos("/nix/store", n, 4)
	f.put(infos...)
	s := f.open()
	for i := 0; i < n; i += 397 {
		same(t, mustInfo(t, s, infos[i].Path), infos[i])
		got, err := s.InfoByHash(context.Background(), infos[i].Path.Hash())
		if err != nil || got.Path != infos[i].Path {
			t.Error(got, err)
		}
	}
	for _, roots := range [][]narinfo.Path{{infos[n-1].Path}, {infos[10].Path, infos[n/2].Path}, names(infosOf(infos))} {
		got, err := s.Closure(context.Background(), roots...)
		if err != nil || !slices.Equal(names(got), closureOf(infos, roots...)) {
			t.Errorf("closure of %d roots: %d, %v", len(roots), len(got), err)
		}
	}
	v, err := s.Version(context.Background())
	if err != nil || !s.Still(v) {
		t.Error(err)
	}
	f.remove(infos[n-1].Path)
	if s.Still(v) {
		t.Error("a path has gone and nobody noticed")
	}
	// A path that something refers to cannot go, as in Nix.
	if _, err := f.w.Exec("delete from ValidPaths where path = ?", infos[0].Path.In("/nix/store")); err == nil {
		t.Error("the fixture is not like Nix's database")
	}
}

func infosOf(all []*PathInfo) (infos []*narinfo.Info) {
	for _, i := range all {
		infos = append(infos, i.Info)
	}
	return infos
}
