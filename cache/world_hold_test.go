package cache

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"narwharf/cache/narfile"
	"narwharf/narinfo"
	"narwharf/signing/access/scope"
)

// roots are the paths that the cache keeps in the machine's store.
func (m *machine) roots() (names []string) {
	m.t.Helper()
	entries, err := os.ReadDir(filepath.Join(m.root, "nix/var/nix/gcroots/narwharf"))
	if err != nil && !os.IsNotExist(err) {
		m.t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// packedFiles are the NARs that were encoded.
func (m *machine) packedFiles() int {
	m.t.Helper()
	files, err := filepath.Glob(filepath.Join(m.packed, "*.zst"))
	if err != nil {
		m.t.Fatal(err)
	}
	return len(files)
}

// A lookup by an uploader keeps a local path where it is, and encodes none of them.
func TestLookupHolds(t *testing.T) {
	w, m := localWorld(t)
	p := m.build("p", map[string]string{"a": "b"})
	auth := []string{"Authorization", "Bearer " + w.token}
	for range 2 {
		w.must(w.get(p.infoURL()), 200) // from memory the second time
	}
	if got := m.roots(); len(got) > 0 {
		t.Fatalf("a reader's lookup holds %q", got)
	}
	a := w.must(w.head(p.infoURL(), auth...), 200)
	if got := m.roots(); len(got) != 1 || got[0] != string(p.info.Path) {
		t.Fatalf("an uploader's lookup holds %q", got)
	}
	m.remove(p) // what no root keeps
	w.must(w.get(p.infoURL(), auth...), 404)

	// By GET, and where the client has the text already.
	for i, header := range [][]string{auth, append([]string{"If-None-Match", "*"}, auth...)} {
		p := m.build(fmt.Sprint("q", i), map[string]string{"a": "b"})
		if a = w.get(p.infoURL(), header...); a.status != 200 && a.status != http.StatusNotModified {
			t.Errorf("%v", a)
		}
		if got := strings.Join(m.roots(), " "); !strings.Contains(got, string(p.info.Path)) {
			t.Errorf("held are %q", got)
		}
	}

	// A lookup of a whole system: roots are cheap, encodes would not be.
	many := make([]*testPath, 1000)
	for i := range many {
		many[i] = m.build(fmt.Sprint("many-", i), map[string]string{"a": fmt.Sprint(i)})
	}
	began := time.Now()
	var clients sync.WaitGroup
	for n := range 25 {
		clients.Go(func() {
			for i := n; i < len(many); i += 25 {
				w.must(w.get(many[i].infoURL(), auth...), 200)
			}
		})
	}
	clients.Wait()
	t.Logf("1000 lookups in %v", time.Since(began))
	if n := len(m.roots()); n != 1003 {
		t.Errorf("%d roots", n)
	}
	if n := m.packedFiles(); n > 0 {
		t.Errorf("%d paths were encoded", n)
	}
}

// Where everybody may upload, everybody's lookups hold, those on the connection too.
func TestLookupHoldsForAnonymousPush(t *testing.T) {
	w, m := localWorld(t, func(s *setup) { s.anonymous = scope.Set{pull, push} })
	p := m.build("p", map[string]string{"a": "b"})
	for range 3 {
		w.must(w.get(p.infoURL()), 200)
		link := filepath.Join(m.root, "nix/var/nix/gcroots/narwharf", string(p.info.Path))
		if err := os.Remove(link); err != nil {
			t.Fatal(err)
		}
	}
}

// What an upload refers to is held before it is answered, and becomes an upload later.
func TestUploadHoldsReferences(t *testing.T) {
	w, m := localWorld(t)
	lib := m.build("lib", map[string]string{"a": "b"})
	w.putAll(newUpload(t, "app", "zstd", lib))
	if got := m.roots(); len(got) != 1 || got[0] != string(lib.info.Path) {
		t.Errorf("held are %q", got)
	}
	if n := m.packedFiles(); n > 0 {
		t.Errorf("%d paths were encoded before the answer", n)
	}
	w.check()
	gone := m.build("gone", map[string]string{"c": "d"})
	app := newUpload(t, "app2", "zstd", lib, gone)
	w.must(w.put(app.narURL(), app.body), 201)
	m.remove(gone)
	w.must(w.put(app.infoURL(), app.text()), 422, "gone", "--refresh")
}

// What nothing can hold is adopted: what an upload refers to before it is answered,
// what was looked up soon.
func TestWhatNothingHoldsIsAdopted(t *testing.T) {
	w, m := localWorld(t)
	if err := os.RemoveAll(filepath.Join(m.root, "nix/var/nix/gcroots")); err != nil {
		t.Fatal(err)
	}
	libc := m.build("libc", map[string]string{"l": "c"})
	lib := m.build("lib", map[string]string{"a": "b"}, libc)
	seen := m.build("seen", map[string]string{"e": "f"})
	w.putAll(newUpload(t, "app", "zstd", lib))
	m.remove(lib, libc)
	w.mustSubstitute(lib)
	w.mustSubstitute(libc)
	w.check()
	w.must(w.get(seen.infoURL(), "Authorization", "Bearer "+w.token), 200)
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(done)
		w.adopter.Run(ctx)
	}()
	for range 500 {
		if _, err := w.index.Get(seen.info.Path.Hash()); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	<-done
	m.remove(seen)
	w.mustSubstitute(seen)

	broken := m.build("broken", map[string]string{"g": "h"})
	if err := os.WriteFile(filepath.Join(m.real(broken.info.Path), "g"), []byte("x!"), 0o644); err != nil {
		t.Fatal(err)
	}
	app := newUpload(t, "app2", "zstd", broken)
	w.must(w.put(app.narURL(), app.body), 201)
	w.must(w.put(app.infoURL(), app.text()), 422, "is not what Nix knows it as", string(broken.info.Path))
}

// A narinfo that came from here and has a signature more is taken, whatever form of our
// URLs it has: `nix store sign --store` does so.
func TestSignedAgain(t *testing.T) {
	w, m := localWorld(t)
	sigs := signatures(t, 4)
	lib := m.build("lib", map[string]string{"l": "i"})
	auth := []string{"Authorization", "Bearer " + w.token}
	for i, c := range []struct {
		name  string
		first func(p *testPath) // what happened to it before
	}{
		{"never asked for", func(*testPath) {}},
		{"compressed", func(p *testPath) { w.mustSubstitute(p) }},
		{"adopted", func(p *testPath) {
			if _, err := w.adopter.Adopt(t.Context(), pathsOf(p, lib), "x"); err != nil {
				t.Fatal(err)
			}
		}},
		{"uploaded", func(p *testPath) { w.putAll(newUpload(t, p.info.Path.Name(), "zstd", lib)) }},
	} {
		name := fmt.Sprint("p", i)
		p := m.build(name, map[string]string{"file": "I am " + name + strings.Repeat(".", 2000)}, lib)
		old, err := narinfo.Parse([]byte(w.must(w.get(p.infoURL()), 200).body)) // what a client may remember
		if err != nil {
			t.Fatal(err)
		}
		c.first(p)
		now, err := narinfo.Parse([]byte(w.must(w.get(p.infoURL(), auth...), 200).body))
		if err != nil || now.FileHash.IsZero() || now.FileSize == 0 {
			t.Fatalf("%s: no Nix before 2.35 can write this narinfo: %s, %v", c.name, now.Append(nil), err)
		}
		if a := w.must(w.get("/"+now.URL), 200); int64(len(a.body)) != now.FileSize || narinfo.Hash(sha256.Sum256([]byte(a.body))) != now.FileHash {
			t.Errorf("%s: FileHash or FileSize is wrong", c.name)
		}
		for n, info := range []*narinfo.Info{now, old} {
			info.Sigs = append(info.Sigs, sigs[n])
			w.must(w.put(p.infoURL(), info.Append(nil)), 201)
		}
		for n := range 2 {
			w.must(w.get(p.infoURL()), 200, sigs[n])
		}
		r, err := w.index.Get(p.info.Path.Hash())
		if err != nil || !narfile.Grammar.MatchString(strings.TrimPrefix(r.Info.URL, "nar/")) || len(r.Alternates) > 1 {
			t.Errorf("%s: %+v, %v", c.name, r, err)
		}
		w.mustSubstitute(p)
		old.Sigs, old.NarHash[0] = nil, old.NarHash[0]+1
		old.URL = "nar/" + old.Path.Hash() + "-" + old.NarHash.Base32() + ".nar.zst"
		w.must(w.put(p.infoURL(), old.Append(nil)), 409, "another content")
	}
	gone := m.build("gone", map[string]string{"g": "o"})
	a := w.must(w.get(gone.infoURL()), 200)
	m.remove(gone)
	w.must(w.put(gone.infoURL(), []byte(a.body)), 422)
	w.check()
}
