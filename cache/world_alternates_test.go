package cache

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"narwharf/cache/index"
)

// TestAlternatesEnd: uploaders that raced for a path leave one file each; those that nobody asks for
// go after 31 days, and the path's own stays, as does what is asked for.
func TestAlternatesEnd(t *testing.T) {
	w := newWorld(t)
	const day = 24 * time.Hour
	data := narOf(t, map[string]string{"a": "b", "c": "d"})
	var all []*testPath
	for _, compression := range []string{"zstd", "br", "gzip", "none"} {
		p := packUpload(t, "raced", data, compression)
		w.must(w.put(p.narURL(), p.body), 201)
		w.must(w.put(p.infoURL(), p.text()), 201)
		all = append(all, p)
	}
	first, asked, idle, put := all[0], all[1], all[2], all[3]
	// Another path has the same NAR, and uses an alternate of the first as its own.
	twin := packUpload(t, "twin", data, "gzip")
	w.must(w.put(twin.infoURL(), twin.text()), 201)

	age := func(p *testPath, by time.Duration) { t.Helper(); w.ageBy(by, p) }
	sweep := func(want int) {
		t.Helper()
		before, err := os.ReadDir(filepath.Join(w.dir, "cache", "nar"))
		if err != nil {
			t.Fatal(err)
		}
		files, _, err := w.u.Sweep(time.Now())
		if err != nil || files != len(before)-want {
			t.Errorf("%d of %d files went, %v; want %d to stay", files, len(before), err, want)
		}
		r, err := w.index.Get(first.info.Path.Hash())
		if err != nil || r.Info.URL != first.info.URL {
			t.Fatal(r, err)
		}
		w.mustServe(first)
		w.check()
	}
	sweep(4)
	for _, p := range all {
		age(p, 30*day)
	}
	w.must(w.get(asked.narURL()), 200) // which is noted
	sweep(4)
	for _, p := range []*testPath{first, idle, put} {
		age(p, 40*day)
	}
	w.must(w.head(put.narURL(), "Authorization", "Bearer "+w.token), 200)
	w.must(w.put(put.narURL(), put.body), 201)
	sweep(4) // idle is what twin uses
	w.mustServe(twin)
	w.must(w.get(put.narURL()), 200)

	// When twin is gone, nobody needs it.
	if err := index.Delete(w.index, twin.info.Path.Hash()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(w.dir, "cache", twin.info.Path.Hash()+".narinfo")); err != nil {
		t.Fatal(err)
	}
	w.u.Changed(twin.info.Path.Hash())
	age(idle, 40*day)
	sweep(3)
	w.must(w.get(idle.narURL()), 404)
	for _, p := range []*testPath{asked, put} {
		w.must(w.get(p.narURL()), 200)
		age(p, 32*day)
	}
	w.must(w.get(asked.narURL(), "Range", "bytes=0-9"), 206)
	sweep(2)

	// An alternate is what heals a path whose own file is lost: it stays then.
	age(asked, 40*day)
	if err := os.Remove(filepath.Join(w.dir, "cache", first.info.URL)); err != nil {
		t.Fatal(err)
	}
	w.behind.files, w.behind.bytes = 1, int64(len(first.body))
	if files, _, err := w.u.Sweep(time.Now()); files != 0 || err != nil {
		t.Errorf("%d files went, %v", files, err)
	}
	w.must(w.put(first.narURL(), first.body), 201)
	sweep(1)
}
