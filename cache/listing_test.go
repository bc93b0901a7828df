package cache

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"narwharf/cache/blob"
	"narwharf/cache/index"
	"narwharf/cache/nar"
	"narwharf/cache/narfiletest"
)

type lsNode struct {
	Type       string
	Size       int
	NarOffset  int
	Executable bool
	Target     string
	Entries    map[string]lsNode
}

func TestListingIsMadeFromTheNar(t *testing.T) {
	w := newWorld(t)
	files := map[string]string{"a": "first", "b": "", "c ö": strings.Repeat("third", 500)}
	for _, compression := range []string{"none", "zstd", "br"} {
		p := packUpload(t, "listed-"+compression, narOf(t, files), compression)
		w.putAll(p)
		url := "/" + p.info.Path.Hash() + ".ls"
		a := w.must(w.head(url), 200)
		if a.header.Get("Content-Type") != "application/json" {
			t.Errorf("headers %v", a.header)
		}
		a = w.must(w.get(url), 200)
		var doc struct {
			Version int
			Root    lsNode
		}
		if err := json.Unmarshal([]byte(a.body), &doc); err != nil {
			t.Fatal(err)
		}
		if doc.Version != 1 || doc.Root.Type != "directory" || len(doc.Root.Entries) != len(files) {
			t.Fatalf("the listing is %s", a.body)
		}
		for name, text := range files {
			e := doc.Root.Entries[name]
			if e.Type != "regular" || e.Size != len(text) || string(p.nar[e.NarOffset:e.NarOffset+e.Size]) != text {
				t.Errorf("%s is listed as %+v", name, e)
			}
		}
		// Kept as a file beside the narinfo, and sent packed if that is liked.
		if text, err := blob.ReadFile(w.files, p.info.Path.Hash()+".ls", 1<<20); err != nil || string(text) != a.body {
			t.Errorf("the file has %q, %v", text, err)
		}
		w.check()
	}
}

// One that comes with the upload is checked and not believed: it comes before
// the NAR, and anything could stand in it.
func TestPutListing(t *testing.T) {
	w := newWorld(t)
	p := newUpload(t, "p", "zstd")
	url := "/" + p.info.Path.Hash() + ".ls"
	lie := []byte(`{"version":1,"root":{"type":"directory","entries":{"lie":{"type":"regular","size":1,"narOffset":5}}}}`)
	w.must(w.put(url, lie), 201)
	w.must(w.put(url, narfiletest.Compress(t, "gzip", lie), "Content-Encoding", "gzip"), 201)
	w.must(w.get(url), 404)
	w.putAll(p)
	w.must(w.put(url, lie), 201)
	if a := w.must(w.get(url), 200); strings.Contains(a.body, "lie") {
		t.Errorf("the listing is %s", a.body)
	}
	for name, body := range map[string]string{
		"nothing": "", "no JSON": "x", "no listing": "{}", "climbs": `{"version":1,"root":{"type":"directory","entries":{"..":{"type":"regular","size":1}}}}`,
		"version 2": strings.Replace(string(lie), "1", "2", 1),
	} {
		if a := w.put(url, []byte(body)); a.status != 422 {
			t.Errorf("%s: %v", name, a)
		}
	}
	w.check()
}

// Many ask at once for one listing: it is made once.
func TestListingAtOnce(t *testing.T) {
	w := newWorld(t)
	p := newUpload(t, "p", "zstd")
	w.putAll(p)
	var writes int
	var mu sync.Mutex
	w.breakAt(func(op, name string) error {
		if op == "create" {
			mu.Lock()
			defer mu.Unlock()
			writes++
		}
		return nil
	})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { w.must(w.get("/"+p.info.Path.Hash()+".ls"), 200) })
	}
	wg.Wait()
	if writes != 1 {
		t.Errorf("made %d times", writes)
	}
	w.breakAt(nil)
	w.check()
}

// A full disk takes no upload, and reads go on.
func TestListingThatCannotBeKept(t *testing.T) {
	w := newWorld(t)
	p := newUpload(t, "p", "zstd")
	w.putAll(p)
	url := "/" + p.info.Path.Hash() + ".ls"
	w.breakAt(func(string, string) error { return syscall.ENOSPC })
	first := w.must(w.get(url), 200)
	w.breakAt(nil)
	w.check()
	if second := w.must(w.get(url), 200); first.body != second.body || first.body == "" {
		t.Errorf("first %s, then %s", first.body, second.body)
	}
	w.check()
}

func TestListingOfADamagedOrLostNar(t *testing.T) {
	w := newWorld(t)
	p, q := newUpload(t, "p", "zstd"), newUpload(t, "q", "none")
	w.putAll(p, q)
	w.damage(p, func(b []byte) []byte { return b[:len(b)-5] })
	w.must(w.get("/"+p.info.Path.Hash()+".ls"), 500)
	if err := os.Remove(filepath.Join(w.dir, "cache", q.info.URL)); err != nil {
		t.Fatal(err)
	}
	w.must(w.get("/"+q.info.Path.Hash()+".ls"), 404)
	for _, x := range []*testPath{p, q} {
		if _, err := w.files.Stat(x.info.Path.Hash() + ".ls"); err == nil {
			t.Error("a listing is left")
		}
	}
}

// A name that is not UTF-8 cannot stand in JSON. Nix itself fails to list it.
func TestListingOfOddNames(t *testing.T) {
	w := newWorld(t)
	p := packUpload(t, "latin1", narOf(t, map[string]string{"caf\xe9": "x"}), "none")
	w.putAll(p)
	w.must(w.get("/"+p.info.Path.Hash()+".ls"), 404, "UTF-8")
	w.check()
}

// The listing of a path that came back with other content is another.
func TestListingDoesNotOutliveItsPath(t *testing.T) {
	w := newWorld(t)
	p := packUpload(t, "p", narOf(t, map[string]string{"old": "x"}), "none")
	q := packUpload(t, "p", narOf(t, map[string]string{"new": "x"}), "none")
	url := "/" + p.info.Path.Hash() + ".ls"
	w.putAll(p)
	old := w.must(w.get(url), 200)
	// Somebody removes the path while nothing runs.
	w.stop()
	for _, name := range []string{p.info.Path.Hash() + ".narinfo", p.info.URL} {
		if err := os.Remove(filepath.Join(w.dir, "cache", name)); err != nil {
			t.Fatal(err)
		}
	}
	w.start()
	w.putAll(q)
	now := w.must(w.get(url), 200)
	if !strings.Contains(old.body, "old") || !strings.Contains(now.body, "new") {
		t.Errorf("first %s, then %s", old.body, now.body)
	}
	w.check()
}

// A path that is taken out while its listing is made must not leave one behind.
func TestListingOfAPathThatGoes(t *testing.T) {
	gets := 0
	w := newWorld(t, func(s *setup) {
		s.wrap = func(i index.Index) index.Index { return &vanishing{i, &gets} }
	})
	p := newUpload(t, "p", "zstd")
	w.putAll(p)
	gets = 1
	w.must(w.get("/"+p.info.Path.Hash()+".ls"), 404)
	if _, err := w.files.Stat(p.info.Path.Hash() + ".ls"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the listing is left: %v", err)
	}
	w.check()
}

// vanishing is an index that after some Gets has nothing.
type vanishing struct {
	index.Index
	gets *int
}

func (v *vanishing) Get(hash string) (*index.Record, error) {
	switch *v.gets {
	case 0:
		return v.Index.Get(hash)
	case 1:
		*v.gets = 2
		return v.Index.Get(hash)
	}
	*v.gets = 0
	return nil, index.ErrNotFound
}

// TestLocalListing: that of a local path is the one of its NAR, has an ETag
// that is known before the walk, and shows a path that is not what it should be.
func TestLocalListing(t *testing.T) {
	w, m := localWorld(t)
	p := m.build("p", map[string]string{"bin/run": "x", "share/doc": strings.Repeat("words ", 300), "empty": ""})
	url := "/" + p.info.Path.Hash() + ".ls"
	a := w.must(w.get(url), 200)
	root, err := nar.List(bytes.NewReader(p.nar), 1000)
	if err != nil {
		t.Fatal(err)
	}
	want, err := root.AppendJSON(nil)
	if err != nil || a.body != string(want) || a.header.Get("Content-Type") != "application/json" {
		t.Errorf("%v, want %s (%v)", a, want, err)
	}
	if i := strings.Index(a.body, `"narOffset":`); i < 0 {
		t.Error("no narOffset")
	}
	w.must(w.get(url, "If-None-Match", a.header.Get("Etag")), 304)
	h := w.must(w.head(url), 200)
	if h.header.Get("Etag") != a.header.Get("Etag") || h.body != "" {
		t.Errorf("HEAD: %v", h)
	}
	if left, err := filepath.Glob(filepath.Join(w.dir, "cache", "*.ls")); err != nil || len(left) > 0 {
		t.Errorf("kept: %v, %v", left, err)
	}
	if err := os.WriteFile(m.real(p.info.Path)+"/more", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	w.must(w.get(url), 500, "is damaged")
	w.counted(`narwharf_local_broken_total{kind="changed"}`, 1)
	m.remove(p)
	w.must(w.get(url), 404)
	w.must(w.get(url, "If-None-Match", a.header.Get("Etag")), 404)
}
