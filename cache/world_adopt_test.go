package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"narwharf/cache/local"
	"narwharf/cache/narfile"
	"narwharf/cache/refusal"
	"narwharf/narinfo"
	"narwharf/signing"
)

func pathsOf(list ...*testPath) []narinfo.Path {
	var paths []narinfo.Path
	for _, p := range list {
		paths = append(paths, p.info.Path)
	}
	return paths
}

// TestAdopt: an adopted path is an upload like any other, at the URLs of both,
// and stays when Nix deletes it.
func TestAdopt(t *testing.T) {
	key := newKey(t, "here-1")
	ring := new(keyring)
	ring.set(key)
	w, m := localWorld(t, func(s *setup) { s.signUploads, s.keys = false, ring.load })
	lib := m.build("lib", map[string]string{"lib.so": "code"})
	app := m.build("app", map[string]string{"bin/app": strings.Repeat("an app ", 1000)}, lib)
	twin := m.build("twin", map[string]string{"bin/app": strings.Repeat("an app ", 1000)}) // the same NAR
	theirs := signatures(t, 2)
	m.exec("update ValidPaths set sigs = ? where path = ?", strings.Join(theirs, " "), app.info.Path.In("/nix/store"))
	up := newUpload(t, "up", "zstd")
	w.putAll(up)

	packed, plain := app.urls()
	w.mustSubstitute(app)
	before := w.must(w.get(packed), 200)
	all := pathsOf(app, twin, lib, up)
	if n, err := w.adopter.Adopt(t.Context(), all, "adopted for channel web"); err != nil || n != 3 {
		t.Fatalf("%d paths, %v", n, err)
	}
	if n, err := w.adopter.Adopt(t.Context(), all, "adopted for channel db"); err != nil || n != 0 {
		t.Errorf("a second time: %d paths, %v", n, err)
	}
	w.check()
	r, err := w.index.Get(app.info.Path.Hash())
	if err != nil || r.By != "adopted for channel web" || r.Uploaded.IsZero() || !narfile.Grammar.MatchString(strings.TrimPrefix(r.Info.URL, "nar/")) {
		t.Fatalf("%+v, %v", r, err)
	}
	app.info.Sigs = theirs
	if want := signInfo(app.info, []signing.SecretKey{key}); !slices.Equal(r.Info.Sigs, want) {
		t.Errorf("signatures %q, want %q", r.Info.Sigs, want)
	}
	m.remove(app, twin, lib)
	ring.set() // the signature made then is in the file
	if err := w.setup.Cache.Signer.Reload(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, p := range []*testPath{app, twin, lib} {
			info := w.mustSubstitute(p)
			if info.FileHash.IsZero() || len(info.Sigs) == 0 {
				t.Errorf("narinfo %s", info.Append(nil))
			}
			if a, b := p.urls(); unzstd(t, w.must(w.get(a), 200).body) == nil || w.must(w.get(b), 200).body != string(p.nar) {
				t.Errorf("%s has other bytes", b)
			}
		}
		if a := w.must(w.get(packed), 200); a.body != before.body || a.header.Get("Etag") != before.header.Get("Etag") {
			t.Errorf("%s has other bytes than before", packed)
		}
		if a := w.must(w.get(plain, "Range", "bytes=50-"), 206); a.body != string(app.nar[50:]) {
			t.Errorf("a range of %d bytes", len(a.body))
		}
		w.restart()
	}
	w.check()
}

// TestAdoptRefuses: what is not what Nix knows it as becomes no upload, and
// what was done before stays done.
func TestAdoptRefuses(t *testing.T) {
	w, m := localWorld(t)
	lib := m.build("lib", map[string]string{"lib.so": "code"})
	altered := m.build("altered", map[string]string{"a": "as it was"}, lib)
	halved := m.build("halved", map[string]string{"a": "x", "b": "y"})
	deleted := m.build("deleted", map[string]string{"a": "z"})
	user := m.build("user", map[string]string{"a": "u"}, altered)
	m.remove(deleted)
	if err := errors.Join(os.WriteFile(m.real(altered.info.Path)+"/a", []byte("as it is "), 0o644), os.Remove(m.real(halved.info.Path)+"/a")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		paths []narinfo.Path
		kind  refusal.Kind
		words string
	}{
		{pathsOf(user, altered, lib), refusal.LocalDiffers, "nix store verify --repair /nix/store/" + string(altered.info.Path)},
		{pathsOf(halved), refusal.LocalDiffers, "nix store verify --repair"},
		{pathsOf(lib, deleted), refusal.Gone, "is not in this cache any more"},
	} {
		_, err := w.adopter.Adopt(t.Context(), c.paths, "x")
		if r := refusal.In(err); r == nil || r.Kind != c.kind || !strings.Contains(r.Text, c.words) {
			t.Errorf("%v: %v", c.paths, err)
		}
		for _, p := range []*testPath{altered, halved, deleted, user} {
			if _, err := w.index.Get(p.info.Path.Hash()); err == nil {
				t.Errorf("%s was adopted", p.info.Path)
			}
		}
		w.consistent()
	}
	if err := os.WriteFile(m.real(altered.info.Path)+"/a", []byte("as it was"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := w.adopter.Adopt(t.Context(), pathsOf(user, altered, lib), "x"); err != nil {
		t.Error(err)
	}
	w.check()
}

// TestAdoptDamagedCopy: a packed copy that rotted on the disk becomes no upload;
// the path is packed anew.
func TestAdoptDamagedCopy(t *testing.T) {
	w, m := localWorld(t)
	p := m.build("p", map[string]string{"a": noise(100_000)})
	w.mustSubstitute(p)
	files, err := filepath.Glob(filepath.Join(m.packed, "*"+local.CompressedSuffix))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	f, err := os.OpenFile(files[0], os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt([]byte("rot"), 5000)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.adopter.Adopt(t.Context(), pathsOf(p), "x"); err != nil {
		t.Fatal(err)
	}
	m.remove(p)
	w.mustSubstitute(p)
	w.check()
}

// TestAdoptFaults takes every fault of the disk, one after the other: the next
// attempt goes on, and nothing is seen by half.
func TestAdoptFaults(t *testing.T) {
	w, m := localWorld(t)
	lib := m.build("lib", map[string]string{"lib.so": "code"})
	app := m.build("app", map[string]string{"a": "app"}, lib)
	broken := errors.New("broken")
	for step := 1; ; step++ {
		if step > 100 {
			t.Fatal("it never comes to an end")
		}
		count := 0
		var mu sync.Mutex
		w.breakAt(func(op, name string) error {
			mu.Lock()
			defer mu.Unlock()
			if count++; count == step {
				return broken
			}
			return nil
		})
		_, err := w.adopter.Adopt(t.Context(), pathsOf(app, lib), "x")
		w.breakAt(nil)
		if err == nil {
			if count >= step {
				t.Errorf("step %d broke, and adopting went well", step)
			}
			break
		}
		if !errors.Is(err, broken) {
			t.Errorf("step %d: %v", step, err)
		}
		w.check()
		if step%2 == 0 { // as if it had been killed there
			w.restart()
			w.check()
		}
		w.mustSubstitute(app)
	}
	w.check()
	m.remove(app, lib)
	w.mustSubstitute(app)
	w.mustSubstitute(lib)
}

// TestAdoptWhileUploading: both at once give one record with one fingerprint,
// and an upload of another content that came first is not overwritten.
func TestAdoptWhileUploading(t *testing.T) {
	w, m := localWorld(t)
	for i := range 20 {
		name := fmt.Sprint("p-", i)
		p := m.build(name, map[string]string{"file": "I am " + name + strings.Repeat(".", 2000)})
		same := newUpload(t, name, "gzip")
		if same.info.NarHash != p.info.NarHash {
			t.Fatal("the test's two paths differ")
		}
		var group sync.WaitGroup
		group.Go(func() {
			if _, err := w.adopter.Adopt(context.Background(), pathsOf(p), "adopted"); err != nil {
				t.Error(err)
			}
		})
		group.Go(func() { w.putAll(same) })
		group.Wait()
		r, err := w.index.Get(p.info.Path.Hash())
		if err != nil {
			t.Fatal(err)
		}
		if n := len(r.Files()); n != 2 && r.Info.URL != same.info.URL {
			t.Errorf("%s: %v", r.Info.Path, r.Files())
		}
		w.mustServe(same)
		m.remove(p)
		w.check()
	}

	other := newUpload(t, "other", "zstd")
	w.putAll(other)
	own := m.build("other", map[string]string{"file": "another content"})
	if n, err := w.adopter.Adopt(t.Context(), pathsOf(own), "x"); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	w.mustServe(other)
}

// TestAdoptReferences: what an upload refers to in the local store becomes an upload
// by itself, with all that it needs, also after a restart.
func TestAdoptReferences(t *testing.T) {
	w, m := localWorld(t)
	libc := m.build("libc", map[string]string{"libc.so": "code"})
	lib := m.build("lib", map[string]string{"lib.so": "code"}, libc)
	other := m.build("other", map[string]string{"a": "b"})
	keep := func() (stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.adopter.Run(ctx)
		}()
		return func() {
			cancel()
			<-done
		}
	}
	adopted := func(p *testPath) bool {
		for range 500 {
			if r, err := w.index.Get(p.info.Path.Hash()); err == nil {
				return r.By == "adopted for uploads that refer to it"
			}
			time.Sleep(10 * time.Millisecond)
		}
		return false
	}
	stop := keep()
	app := newUpload(t, "app", "zstd", lib)
	w.putAll(app)
	if !adopted(lib) || !adopted(libc) {
		t.Fatalf("not adopted:\n%s", w.log)
	}
	stop()
	w.putAll(newUpload(t, "late", "zstd", other))
	w.check() // a reference that is in the local store is no damage
	w.restart()
	defer keep()()
	if !adopted(other) {
		t.Errorf("not adopted after a restart:\n%s", w.log)
	}
	m.remove(lib, libc, other)
	w.check()
}

// TestAdoptReferencesGoesOn: a path that cannot be adopted keeps no other from it, and
// what cannot be adopted now is tried again.
func TestAdoptReferencesGoesOn(t *testing.T) {
	w, m := localWorld(t, func(s *setup) { s.pause = 10 * time.Millisecond })
	good := m.build("good", map[string]string{"a": "b"})
	broken := m.build("broken", map[string]string{"a": "as it was"}, good)
	user := m.build("user", map[string]string{"c": "d"}, broken)
	if err := os.WriteFile(m.real(broken.info.Path)+"/a", []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	w.putAll(newUpload(t, "up", "zstd", user))
	var failing atomic.Bool
	failing.Store(true)
	w.breakAt(func(op, name string) error {
		if op == "create" && strings.HasPrefix(name, "nar/") && failing.Load() {
			return errors.New("not now")
		}
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.adopter.Run(ctx)
	}()
	defer func() {
		cancel()
		<-done
	}()
	for range 500 {
		if strings.Contains(w.log.String(), "could not be adopted now") {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	failing.Store(false)
	for _, p := range []*testPath{good, user} {
		kept := false
		for range 1000 {
			if _, err := w.index.Get(p.info.Path.Hash()); err == nil {
				kept = true
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		if !kept {
			t.Errorf("%s was not adopted", p.info.Path)
		}
	}
	w.counted("narwharf_local_unkept_paths", 1)
	if text := w.log.String(); !strings.Contains(text, "cannot be kept") || !strings.Contains(text, string(broken.info.Path)) {
		t.Errorf("the log does not name the path:\n%s", text)
	}
}

// TestChannelsSeeLocal: what hooks asks of a cache, of a local path.
func TestChannelsSeeLocal(t *testing.T) {
	w, m := localWorld(t)
	p := m.build("system", map[string]string{"nixos-version": "26.05", "system": "x86_64-linux", "bin/switch-to-configuration": strings.Repeat("x", 9000), "d/e": "f"})
	if err := os.Symlink("/etc", m.real(p.info.Path)+"/etc"); err != nil {
		t.Fatal(err)
	}
	info, since, by, err := w.channels.Info(p.info.Path.Hash())
	if err != nil || info.NarHash != p.info.NarHash || since.IsZero() || by != "its own Nix store" {
		t.Errorf("%+v %v %q %v", info, since, by, err)
	}
	if !w.hasBytes(info) {
		t.Error("its bytes are not there")
	}
	files, err := w.channels.Peek(p.info.Path.Hash(), []string{"nixos-version", "system", "bin/switch-to-configuration", "d", "etc", "etc/passwd", "none", "d/e/f", ""}, 4096)
	if err != nil || len(files) != 6 || string(files["nixos-version"]) != "26.05" || string(files["system"]) != "x86_64-linux" {
		t.Errorf("%q, %v", files, err)
	}
	for name, want := range map[string]bool{"bin/switch-to-configuration": true, "d": true, "etc": true, "": true, "etc/passwd": false, "none": false, "d/e/f": false} {
		if text, ok := files[name]; ok != want || text != nil && (name != "etc" || string(text) != "/etc") {
			t.Errorf("%s: %t %q", name, ok, text)
		}
	}
	if err := os.RemoveAll(m.real(p.info.Path)); err != nil {
		t.Fatal(err)
	}
	if w.hasBytes(info) {
		t.Error("its bytes are there")
	}
	m.remove(p)
	if _, _, _, err := w.channels.Info(p.info.Path.Hash()); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, err := w.channels.Peek(p.info.Path.Hash(), nil, 1); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
