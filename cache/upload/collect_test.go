package upload_test

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"narwharf/cache/index"
	"narwharf/cache/root"
	"narwharf/cache/state"
	"narwharf/cache/state/memory"
	"narwharf/cache/state/statetest"
	"narwharf/cache/upload"
	"narwharf/narinfo"
)

// later is a pair whose clock a test puts forward.
type later struct {
	*pair
	ahead time.Duration
}

func newLater(t *testing.T) *later {
	l := &later{pair: &pair{t: t, dir: t.TempDir()}}
	l.state = statetest.Twice(memory.New(func() time.Time { return time.Now().Add(l.ahead) }))
	l.a, l.b = l.open("a"), l.open("b")
	return l
}

// upload takes in a path and returns its hash part.
func (p *pair) upload(s *upload.Store, i *narinfo.Info) string {
	p.t.Helper()
	if err := s.PutInfo(i.Path.Hash(), i, "ci"); err != nil {
		p.t.Fatal(err)
	}
	return i.Path.Hash()
}

func (p *pair) collect(s *upload.Store, want []narinfo.Path, batch ...string) {
	p.t.Helper()
	gone, err := s.Collect(context.Background(), batch, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	var got []narinfo.Path
	for _, g := range gone {
		got = append(got, g.Path)
	}
	if !slices.Equal(got, want) {
		p.t.Errorf("collected %q, want %q", got, want)
	}
}

func (p *pair) mustLack(i *narinfo.Info) {
	p.t.Helper()
	if r := p.check(i); r != nil {
		p.t.Errorf("%s is there", i.Path)
	}
	if _, err := p.a.Files.Stat(i.URL); !errors.Is(err, fs.ErrNotExist) {
		p.t.Errorf("%s: %v", i.URL, err)
	}
}

func (p *pair) mustHave(all ...*narinfo.Info) {
	p.t.Helper()
	for _, i := range all {
		if r := p.check(i); r == nil {
			p.t.Errorf("%s is gone", i.Path)
		}
		if _, err := p.a.Files.Stat(i.URL); err != nil {
			p.t.Error(err)
		}
	}
}

// What has a lease, a root or a referrer stays; the rest goes, with its files.
func TestCollect(t *testing.T) {
	p := newLater(t)
	lib := p.nar(p.a, "lib", "a library")
	p.upload(p.a, lib)
	app := p.nar(p.a, "app", "an application", lib.Path)
	p.upload(p.a, app)
	twin := p.nar(p.a, "twin", "an application") // has the same NAR
	p.upload(p.a, twin)
	one := func(i *narinfo.Info) []narinfo.Path { return []narinfo.Path{i.Path} }

	p.collect(p.a, nil, app.Path.Hash(), lib.Path.Hash()) // the leases
	p.ahead = 25 * time.Hour                              // somebody may have been told shortly before they ended
	p.collect(p.b, nil, app.Path.Hash(), lib.Path.Hash())
	p.ahead = 48 * time.Hour
	set := func(paths ...narinfo.Path) {
		t.Helper()
		err := p.state.Update(t.Context(), root.Locks(paths), func(tx state.Tx) error { return root.Set(tx, "pin:x", paths) })
		if err != nil {
			t.Fatal(err)
		}
	}
	set(app.Path)
	p.collect(p.a, nil, app.Path.Hash(), lib.Path.Hash())
	set()
	p.collect(p.a, nil, lib.Path.Hash()) // its referrer is not in the batch
	if gone, err := p.a.Index.Use(t.Context(), []string{lib.Path.Hash(), "0123456789abcdfghijklmnpqrsvwxyz"}); err != nil || len(gone) != 1 {
		t.Error(gone, err)
	}
	p.mustHave(lib, app, twin)
	p.collect(p.b, one(app), "0123456789abcdfghijklmnpqrsvwxyz", app.Path.Hash(), lib.Path.Hash(), app.Path.Hash())
	if r := p.check(app); r != nil {
		t.Error(r)
	}
	p.mustHave(lib, twin) // twin has app's NAR, too
	p.ahead += 48 * time.Hour
	refuse := errors.New("refused")
	if gone, err := p.a.Collect(t.Context(), []string{lib.Path.Hash()}, func(*index.Tx, *index.Record) (bool, error) { return true, refuse }); len(gone) > 0 || !errors.Is(err, refuse) {
		t.Error(gone, err)
	}
	if gone, err := p.a.Collect(t.Context(), []string{lib.Path.Hash()}, func(*index.Tx, *index.Record) (bool, error) { return false, nil }); len(gone) > 0 || err != nil {
		t.Error(gone, err)
	}
	p.mustHave(lib, twin)
	p.collect(p.a, one(twin), twin.Path.Hash())
	p.mustLack(twin)
	p.mustLack(app)
	p.mustHave(lib)
	p.collect(p.b, one(lib), lib.Path.Hash())
	p.mustLack(lib)
	left, err := filepath.Glob(filepath.Join(p.dir, "cache", "*", "*"))
	if err != nil || len(left) > 0 {
		t.Error(left, err)
	}
	for _, bucket := range []string{"cache/use", "cache/file", "cache/going", "index/1/path", "index/1/nar", "index/1/ref"} {
		err := p.state.View(t.Context(), func(tx state.Reader) error {
			list, err := tx.List(bucket, state.Range{})
			if len(list) > 0 {
				t.Errorf("%s has %q", bucket, list)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	// And all of it can come back.
	p.nar(p.b, "lib", "a library")
	p.upload(p.b, lib)
	p.nar(p.b, "app", "an application", lib.Path)
	p.upload(p.b, app)
	p.mustHave(lib, app)
}

// One server collects while the other is told, or takes something in: what either
// answered is true.
func TestCollectBesideOthers(t *testing.T) {
	p := newLater(t)
	kept := map[string]int{}
	for n := range 60 {
		name := func(s string) string { return s + string(rune('a'+n%26)) + string(rune('a'+n/26)) }
		lib := p.nar(p.a, name("lib"), name("library"))
		p.upload(p.a, lib)
		app := p.nar(p.a, name("app"), name("application"), lib.Path)
		p.ahead += 48 * time.Hour
		var others = map[string]func() error{
			"use": func() error {
				gone, err := p.a.Index.Use(t.Context(), []string{lib.Path.Hash()})
				if len(gone) > 0 {
					err = fs.ErrNotExist
				}
				return err
			},
			"referrer": put(p.a, app, "a"),
			"again":    put(p.a, lib, "a"),
			"NAR": func() error {
				p.nar(p.a, name("lib"), name("library"))
				return put(p.a, lib, "a")()
			},
			"root": func() error {
				return p.state.Update(t.Context(), root.Locks([]narinfo.Path{lib.Path}), func(tx state.Tx) error {
					v, err := tx.Get("index/1/path", lib.Path.Hash())
					if err == nil && v == nil {
						err = fs.ErrNotExist
					}
					if err != nil {
						return err
					}
					return root.Set(tx, "pin:"+name("x"), []narinfo.Path{lib.Path})
				})
			},
		}
		kinds := slices.Sorted(maps.Keys(others))
		kind := kinds[n%len(kinds)]
		var gone []upload.Gone
		_, err := race(func() (err error) {
			gone, err = p.b.Collect(t.Context(), []string{lib.Path.Hash()}, nil)
			return err
		}, others[kind])
		r := p.check(lib)
		_, stat := p.a.Files.Stat(lib.URL)
		switch kind {
		case "use", "root", "referrer":
			if (err == nil) != (r != nil) || (len(gone) > 0) != (r == nil) {
				t.Errorf("%s: %v; collected %d; there: %v", kind, err, len(gone), r != nil)
			}
		case "NAR":
			if err != nil || r == nil || stat != nil {
				t.Errorf("%s: %v, %v; there: %v", kind, err, stat, r != nil)
			}
		case "again": // its NAR may have gone, and then it is sent again
			if (err == nil) != (r != nil) || r != nil && stat != nil {
				t.Errorf("%s: %v, %v; there: %v", kind, err, stat, r != nil)
			}
		}
		if r != nil {
			kept[kind]++
		}
		if kind == "referrer" && r != nil && p.check(app) == nil {
			t.Error("the referrer was not taken in")
		}
	}
	t.Logf("kept: %v", kept)
}

// uncertain is an index whose changes are made and end as if nobody knew.
type uncertain struct {
	index.Index
	now bool
}

func (u *uncertain) Change(locks []string, fn func(tx *index.Tx) error) error {
	if err := u.Index.Change(locks, fn); err != nil || !u.now {
		return err
	}
	return state.ErrUncertain
}

// Nobody knows whether a collection was committed: what is in memory of paths is read again, and
// the next one goes on from what is there.
func TestCollectUncertain(t *testing.T) {
	p := newLater(t)
	var changed []string
	idx := &uncertain{Index: p.a.Index}
	s, err := upload.New(p.a.Files, idx, upload.Options{StoreDir: "/nix/store", MaxNarSize: 1 << 20, NarGrace: time.Hour, Changed: func(hash string) { changed = append(changed, hash) }}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	lib := p.nar(s, "lib", "a library")
	hash := p.upload(s, lib)
	p.ahead = 48 * time.Hour
	changed, idx.now = nil, true
	if gone, err := s.Collect(t.Context(), []string{hash}, nil); len(gone) > 0 || !errors.Is(err, state.ErrUncertain) || !slices.Equal(changed, []string{""}) {
		t.Errorf("%v, %v; changed are %q", gone, err, changed)
	}
	idx.now = false
	p.collect(s, nil, hash)
	if _, _, err := s.Sweep(time.Now().Add(p.ahead)); err != nil {
		t.Fatal(err)
	}
	p.mustLack(lib)
}

// A server loses the database in the commit of an upload. When that is there again, file and index are the same:
// of what was committed, and of what was not, also without a start.
func TestPutUncertain(t *testing.T) {
	for _, committed := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			p := newLater(t)
			idx := &cutOff{Index: p.a.Index, committed: committed}
			s, err := upload.New(p.a.Files, idx, upload.Options{StoreDir: "/nix/store", MaxNarSize: 1 << 20, NarGrace: time.Hour, Changed: func(string) {}, Shared: true}, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			lib := p.nar(s, "lib", "a library")
			idx.left = 3
			if err := s.PutInfo(lib.Path.Hash(), lib, "ci"); err == nil {
				t.Error("an upload without a commit was answered for")
			}
			time.Sleep(time.Minute)
			_, noRecord := p.a.Index.Get(lib.Path.Hash())
			_, noFile := p.a.Files.Stat(lib.Path.Hash() + ".narinfo")
			if (noRecord == nil) != committed || (noFile == nil) != committed {
				t.Errorf("committed: %v; its record: %v, its file: %v", committed, noRecord, noFile)
			}
		})
	}
}

// cutOff is an index whose next changes fail: the first in its commit, the others at once.
type cutOff struct {
	index.Index
	left      int
	committed bool // of the first
}

func (c *cutOff) Change(locks []string, fn func(tx *index.Tx) error) error {
	switch c.left--; {
	case c.left == 2 && c.committed:
		return errors.Join(c.Index.Change(locks, fn), state.ErrUncertain)
	case c.left == 2:
		return c.Index.Change(locks, func(tx *index.Tx) error { return errors.Join(fn(tx), state.ErrUnavailable) })
	case c.left >= 0:
		return state.ErrUnavailable
	}
	return c.Index.Change(locks, fn)
}
