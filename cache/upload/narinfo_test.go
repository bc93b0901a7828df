package upload_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"narwharf/cache/blob"
	"narwharf/cache/index"
	"narwharf/cache/nar"
	"narwharf/cache/refusal"
	"narwharf/cache/state"
	"narwharf/cache/state/memory"
	"narwharf/cache/state/statetest"
	"narwharf/cache/upload"
	"narwharf/narinfo"
)

// pair is two servers of one cache: they share state and files, and no memory.
type pair struct {
	t     *testing.T
	dir   string
	state state.Store
	a, b  *upload.Store
}

func newPair(t *testing.T) *pair {
	p := &pair{t: t, dir: t.TempDir(), state: statetest.Twice(memory.New(nil))}
	p.a, p.b = p.open("a"), p.open("b")
	return p
}

func (p *pair) open(name string) *upload.Store {
	p.t.Helper()
	files, err := blob.NewFS(filepath.Join(p.dir, "cache"), filepath.Join(p.dir, name))
	if err != nil {
		p.t.Fatal(err)
	}
	idx, err := index.Open(p.state, index.Options{})
	if err != nil {
		p.t.Fatal(err)
	}
	s, err := upload.New(files, idx, upload.Options{StoreDir: "/nix/store", MaxNarSize: 1 << 20, NarGrace: time.Hour, Shared: true}, slog.New(slog.DiscardHandler))
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

// race runs two things at once, by one server each.
func race(a, b func() error) (errA, errB error) {
	var both sync.WaitGroup
	both.Go(func() { errA = a() })
	both.Go(func() { errB = b() })
	both.Wait()
	return errA, errB
}

// put uploads a path of that content and returns its narinfo.
func (p *pair) nar(s *upload.Store, name, content string, refs ...narinfo.Path) *narinfo.Info {
	p.t.Helper()
	var text []byte
	for _, w := range []string{"nix-archive-1", "(", "type", "regular", "contents", content, ")"} {
		text = nar.AppendString(text, w)
	}
	sum := narinfo.Hash(sha256.Sum256(text))
	hash := narinfo.Hash(sha256.Sum256([]byte(name)))
	i := &narinfo.Info{
		StoreDir: "/nix/store", Path: narinfo.Path(hash.Base32()[20:] + "-" + name), URL: "nar/" + sum.Base32() + ".nar", Compression: "none",
		FileHash: sum, FileSize: int64(len(text)), NarHash: sum, NarSize: int64(len(text)), References: refs,
	}
	if err := s.PutNar(strings.TrimPrefix(i.URL, "nar/"), bytes.NewReader(text), i.FileSize); err != nil {
		p.t.Fatal(err)
	}
	return i
}

// check compares index and file of a path, and returns what the index has.
func (p *pair) check(i *narinfo.Info) *index.Record {
	p.t.Helper()
	r, err := p.a.Index.Get(i.Path.Hash())
	file, ferr := blob.ReadFile(p.a.Files, i.Path.Hash()+".narinfo", upload.MaxNarinfo)
	if errors.Is(err, index.ErrNotFound) && errors.Is(ferr, fs.ErrNotExist) {
		return nil
	}
	if err != nil || ferr != nil {
		p.t.Fatalf("%v, %v", err, ferr)
	}
	if !bytes.Equal(file, r.Info.Append(nil)) {
		p.t.Errorf("the index has\n%s and the file\n%s", r.Info.Append(nil), file)
	}
	return r
}

func put(s *upload.Store, i *narinfo.Info, by string) func() error {
	return func() error { return s.PutInfo(i.Path.Hash(), i, by) }
}

// Two servers take in the same path at once: the first fingerprint wins on both.
func TestTwoServersOneFingerprint(t *testing.T) {
	p := newPair(t)
	won := map[string]int{}
	for n := range 60 {
		name := fmt.Sprint("p", n)
		one, two := p.nar(p.a, name, "one"), p.nar(p.b, name, "two")
		a, b := race(put(p.a, one, "a"), put(p.b, two, "b"))
		winner, refused := one, b
		if a != nil {
			winner, refused = two, a
		}
		if r := refusal.In(refused); a == nil == (b == nil) || r == nil || r.Kind != refusal.Conflict {
			t.Fatalf("%v, %v: one has to win", a, b)
		}
		r := p.check(one)
		if r.Info.NarHash != winner.NarHash || r.By != map[bool]string{true: "a", false: "b"}[winner == one] {
			t.Errorf("%+v is not the one that was taken", r)
		}
		won[r.By]++
	}
	t.Logf("won: %v", won)
}

// Two servers take in signatures of the same path: both stay.
func TestTwoServersMergeSignatures(t *testing.T) {
	p := newPair(t)
	for n := range 40 {
		i := p.nar(p.a, fmt.Sprint("p", n), "one")
		signed := func(name string) *narinfo.Info {
			c := i.Clone()
			c.Sigs = []string{name + ":" + base64.StdEncoding.EncodeToString(make([]byte, 64))}
			return c
		}
		one, two := signed("one-1"), signed("two-1")
		if a, b := race(put(p.a, one, "a"), put(p.b, two, "b")); a != nil || b != nil {
			t.Fatal(a, b)
		}
		if r := p.check(i); !slices.Equal(r.Info.Sigs, append(one.Sigs, two.Sigs...)) {
			t.Errorf("signatures %q", r.Info.Sigs)
		}
	}
}

// One server sweeps a NAR while the other takes in a narinfo for it: either is
// right, and they agree.
func TestTwoServersSweep(t *testing.T) {
	p := newPair(t)
	for n := range 40 {
		i := p.nar(p.a, fmt.Sprint("p", n), fmt.Sprint("content ", n))
		if err := p.a.Keep(); err != nil { // the other knows what is written alone
			t.Fatal(err)
		}
		var size int64
		_, err := race(func() (err error) {
			size, err = p.b.RemoveUnnamed(i.URL, time.Now().Add(2*time.Hour))
			return err
		}, put(p.a, i, "a"))
		_, stat := p.a.Files.Stat(i.URL)
		if r := p.check(i); (err == nil) != (r != nil) || (stat == nil) != (r != nil) || (size < 0) != (r != nil) {
			t.Errorf("taken in: %v; the NAR: %v; swept %d bytes", err, stat, size)
		}
	}
}

// One server takes out a path while the other takes in one that refers to it.
func TestTwoServersReferences(t *testing.T) {
	p := newPair(t)
	for n := range 40 {
		lib := p.nar(p.a, fmt.Sprint("lib", n), "lib")
		if err := p.a.PutInfo(lib.Path.Hash(), lib, "a"); err != nil {
			t.Fatal(err)
		}
		app := p.nar(p.a, fmt.Sprint("app", n), "app", lib.Path)
		deleted := false
		_, err := race(func() error {
			return p.b.Index.Change([]string{index.PathLock(lib.Path.Hash())}, func(tx *index.Tx) error {
				rows, err := tx.List("index/1/ref", state.Prefix(lib.Path.Hash()))
				if deleted = err == nil && len(rows) == 0; !deleted {
					return err
				}
				return tx.Delete(lib.Path.Hash())
			})
		}, put(p.a, app, "a"))
		if deleted { // the function above may run again: what it does is in its transaction
			if err := p.b.Files.Remove(lib.Path.Hash() + ".narinfo"); err != nil {
				t.Fatal(err)
			}
		}
		if r := refusal.In(err); (err == nil) == deleted || err != nil && (r == nil || r.Kind != refusal.MissingReference) {
			t.Errorf("deleted: %t; taken in: %v", deleted, err)
		}
		p.check(app)
		p.check(lib)
	}
}

// What Twice and a second server need: a writer whose step runs again.
func TestPublishTwice(t *testing.T) {
	p := newPair(t)
	w, err := blob.Prepare(p.a.Files, "log/x", []byte("text"))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if err := errors.Join(w.Publish(), w.Publish(), w.Commit()); err != nil {
		t.Fatal(err)
	}
	if text, err := blob.ReadFile(p.b.Files, "log/x", 10); err != nil || string(text) != "text" {
		t.Errorf("%q, %v", text, err)
	}
}
