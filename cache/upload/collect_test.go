package upload_test

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"testing"
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
