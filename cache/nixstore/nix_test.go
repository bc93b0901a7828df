package nixstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"narwharf/cache/nixstore/daemon"
	"narwharf/narinfo"
)

// TestNixAgrees compares every path of a real store with what its own Nix says
// of it: out of the database, and over the daemon in every version of the
// protocol that is spoken here.
func TestNixAgrees(t *testing.T) {
	eachNix(t, func(t *testing.T, n *nix) {
		roots := n.build()
		want := n.pathInfos()
		closure := n.requisites(roots...)
		n.daemon()
		agree := func(s *Store, backend string) {
			t.Helper()
			for _, w := range want {
				got := mustInfo(t, s, w.Path)
				same(t, got, w)
				if g, w := string(got.AppendFingerprint(nil)), string(w.AppendFingerprint(nil)); g != w {
					t.Errorf("fingerprint %s\nwant %s", g, w)
				}
				if i, err := s.InfoByHash(context.Background(), w.Path.Hash()); err != nil || i.Path != w.Path {
					t.Errorf("%+v, %v", i, err)
				}
			}
			all, err := s.Closure(context.Background(), roots...)
			if got := names(all); err != nil || !slices.Equal(got, closure) {
				t.Errorf("closure %v, %v\nwant %v", got, err, closure)
			}
			if s.Backend() != backend {
				t.Errorf("the answer came from the %s", s.Backend())
			}
		}
		remote := n.open(n.daemonOnly())
		agree(remote, "daemon")
		for minor := uint64(21); minor <= remote.daemon.Newest; minor++ {
			s := n.open(n.daemonOnly())
			s.daemon.Close()
			s.daemon = daemon.New(n.socket, n.storeDir, s.timeout)
			s.daemon.Newest = minor
			agree(s, "daemon")
		}
		local := n.open(n.options())
		mustInfo(t, local, roots[0]) // may still be the daemon's
		agree(local, "database")

		other := startReader(t, nobody, n.options())
		if a := other.ask("open"); a.Error != "" {
			t.Fatal(a.Error)
		}
		for _, w := range want {
			other.has(w)
		}
		for _, s := range []*Store{local, remote} {
			gone := pathInfo(n.storeDir, "gone").Path
			if _, err := s.Info(context.Background(), gone); !errors.Is(err, ErrNotValid) {
				t.Error(err)
			}
			if _, err := s.Closure(context.Background(), roots[0], gone); !errors.Is(err, ErrNotValid) || !strings.Contains(err.Error(), string(gone)) {
				t.Error(err)
			}
		}
		if !want[0].Ultimate && !slices.ContainsFunc(want, func(i *PathInfo) bool { return i.Ultimate }) {
			t.Error("no path was built here")
		}
		if !slices.ContainsFunc(want, func(i *PathInfo) bool { return len(i.Sigs) == 2 }) {
			t.Error("no path is signed twice")
		}
		if !slices.ContainsFunc(want, func(i *PathInfo) bool { return slices.Contains(i.References, i.Path) }) {
			t.Error("no path refers to itself")
		}
	})
}

// TestNixAddsAndDeletes asks after every change that Nix makes, as the owner,
// as another user and over a connection to the daemon that is kept.
func TestNixAddsAndDeletes(t *testing.T) {
	eachNix(t, func(t *testing.T, n *nix) {
		n.add("first", "first")
		n.daemon()
		local, remote := n.open(n.options()), n.open(n.daemonOnly())
		other := startReader(t, nobody, n.options())
		if a := other.ask("open"); a.Error != "" {
			t.Fatal(a.Error)
		}
		ctx := context.Background()
		version, err := local.Version(ctx)
		if err != nil {
			t.Fatal(err)
		}
		check := func(p narinfo.Path, valid bool) {
			t.Helper()
			for _, s := range []*Store{local, remote} {
				_, err := s.Info(ctx, p)
				_, err2 := s.Closure(ctx, p)
				if (err == nil) != valid || (err2 == nil) != valid || !valid && (!errors.Is(err, ErrNotValid) || !errors.Is(err2, ErrNotValid)) {
					t.Errorf("%s, valid %t: %v, %v", p, valid, err, err2)
				}
			}
			a := other.ask("info " + string(p))
			if (a.Error == "") != valid || !valid && a.Kind != ErrNotValid.Error() {
				t.Errorf("%s, valid %t: %+v", p, valid, a)
			}
			v, err := local.Version(ctx)
			if err != nil || v == version {
				t.Errorf("version %v after %v, %v", v, version, err)
			}
			version = v
		}
		for i := range 3 {
			p := n.add("file", fmt.Sprint("text ", i))
			check(p, true)
			n.run("nix-store", "--delete", p.In(n.storeDir))
			check(p, false)
			if again := n.add("file", fmt.Sprint("text ", i)); again != p {
				t.Fatal(again)
			}
			check(p, true)
			n.run("nix-collect-garbage")
			check(p, false)
		}
		if local.Backend() != "database" || other.ask("version").Backend != "database" || remote.Backend() != "daemon" {
			t.Errorf("%s, %s", local.Backend(), remote.Backend())
		}
		n.run("nix-store", "--verify", "--check-contents")
	})
}

// TestNixIsNotRunning: what a Nix leaves behind that has ended. Before 2.22 it
// takes a daemon to read it, and from the daemon's first answer on the database
// is read, also after the daemon has gone.
func TestNixIsNotRunning(t *testing.T) {
	users(t, func(t *testing.T, uid int) {
		eachNix(t, func(t *testing.T, n *nix) {
			p := n.add("file", "text")
			r := startReader(t, uid, n.options())
			a := r.ask("open")
			if n.version != "2.8" {
				if a.Error != "" || r.ask("info "+string(p)).Error != "" {
					t.Errorf("%+v", a)
				}
				return
			}
			if a.Kind != ErrUnavailable.Error() || !strings.Contains(a.Error, "has no -wal file beside it, which only Nix may create; ") {
				t.Errorf("%+v", a)
			}
			if _, err := os.Stat(databaseIn(n.state) + "-wal"); err == nil {
				t.Error("-wal was created")
			}
			stop := n.daemon()
			if a := r.ask("open"); a.Error != "" {
				t.Fatal(a.Error)
			}
			if a := r.ask("info " + string(p)); a.Error != "" || a.Backend != "database" {
				t.Errorf("%+v", a)
			}
			stop()
			second := n.add("second", "text")
			for _, p := range []narinfo.Path{p, second} {
				if a := r.ask("info " + string(p)); a.Error != "" || a.Backend != "database" {
					t.Errorf("%+v", a)
				}
			}
			n.run("nix-store", "--delete", p.In(n.storeDir))
			if a := r.ask("info " + string(p)); a.Kind != ErrNotValid.Error() || a.Backend != "database" {
				t.Errorf("%+v", a)
			}
		})
	})
}

func TestNixDatabaseThatUsersMayNotRead(t *testing.T) {
	eachNix(t, func(t *testing.T, n *nix) {
		p := n.add("file", "text")
		if err := os.Chmod(n.state+"/db", 0o700); err != nil {
			t.Fatal(err)
		}
		n.daemon()
		r := startReader(t, nobody, n.options())
		if a := r.ask("open"); a.Error != "" {
			t.Fatal(a.Error)
		}
		for range 3 {
			if a := r.ask("info " + string(p)); a.Error != "" || a.Backend != "daemon" {
				t.Errorf("%+v", a)
			}
		}
		if a := r.ask("closure " + string(p)); a.Error != "" || a.Paths != 1 {
			t.Errorf("%+v", a)
		}
	})
}

func TestNixWithoutWAL(t *testing.T) {
	eachNix(t, func(t *testing.T, n *nix) {
		n.config = "use-sqlite-wal = false\n"
		p := n.add("file", "text")
		_, err := Open(n.options())
		if !errors.Is(err, ErrUnavailable) {
			t.Error(err)
		}
		n.daemon()
		s := n.open(n.options())
		if i := mustInfo(t, s, p); i.Path != p || s.Backend() != "daemon" {
			t.Errorf("%+v from the %s", i, s.Backend())
		}
	})
}

func TestNixRoot(t *testing.T) {
	eachNix(t, func(t *testing.T, n *nix) {
		root := n.dir + "/root"
		n.storeDir = "/nix/store"
		file := n.write("file", "text", 0o644)
		p := n.path(n.run("nix-store", "--store", "local?root="+root, "--add", file)[0])
		if n.version == "2.8" {
			_, err := Open(Options{Root: root})
			if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), root+"/nix/var/nix/db/db.sqlite has no -wal file") {
				t.Error(err)
			}
			return
		}
		s := n.open(Options{Root: root})
		if i := mustInfo(t, s, p); i.StoreDir != "/nix/store" {
			t.Errorf("%+v", i)
		}
		if text, err := os.ReadFile(s.RealPath(p)); err != nil || string(text) != "text" {
			t.Errorf("%q, %v", text, err)
		}
		second := n.path(n.run("nix-store", "--store", "local?root="+root, "--add", n.write("second", "text", 0o644))[0])
		mustInfo(t, s, second)
	})
}

func TestNixRefusesUser(t *testing.T) {
	eachNix(t, func(t *testing.T, n *nix) {
		n.config = "allowed-users = root\n"
		n.add("file", "text")
		n.daemon()
		r := startReader(t, nobody, n.daemonOnly())
		if a := r.ask("open"); a.Kind != ErrUnavailable.Error() || !strings.Contains(a.Error, "is this user among allowed-users in nix.conf?") {
			t.Errorf("%+v", a)
		}
	})
}
