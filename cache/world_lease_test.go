package cache

import (
	"net/http"
	"testing"
	"time"

	"narwharf/cache/index"
	"narwharf/cache/state"
	"narwharf/signing/access/scope"
)

// unused makes paths look as if they were uploaded, and used last, long ago.
func (w *world) unused(paths ...*testPath) {
	w.t.Helper()
	for _, p := range paths {
		err := w.index.Change([]string{index.PathLock(p.info.Path.Hash())}, func(tx *index.Tx) error {
			r, err := tx.Record(p.info.Path.Hash())
			if err != nil {
				return err
			}
			r.Uploaded = time.Now().Add(-100 * time.Hour)
			if err := tx.Put(r); err != nil {
				return err
			}
			return tx.Tx.Delete(index.UseBucket, p.info.Path.Hash())
		})
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

// used tells whether a use of a path is noted.
func (w *world) used(p *testPath) (used bool) {
	w.t.Helper()
	err := w.state.View(w.t.Context(), func(tx state.Reader) error {
		v, err := tx.Get(index.UseBucket, p.info.Path.Hash())
		used = v != nil
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return used
}

// collect deletes paths, and tells whether all of them went.
func (w *world) collect(paths ...*testPath) bool {
	w.t.Helper()
	var batch []string
	for _, p := range paths {
		batch = append(batch, p.info.Path.Hash())
	}
	gone, err := w.u.Collect(w.t.Context(), batch, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return len(gone) == len(paths)
}

// Whoever may upload and is told that a path is here finds it for a lease: its use is noted
// before the answer. Readers cost nothing.
func TestLookupsByUploadersAreLeases(t *testing.T) {
	for name, serve := range map[string]func(*setup){"on the connection": func(*setup) {}, "by net/http": viaNetHTTP} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, serve)
			p := newUpload(t, "p", "zstd")
			w.putAll(p)
			alone := newUpload(t, "alone", "none")
			w.must(w.put(alone.narURL(), alone.body), 201)
			auth := []string{"Authorization", "Bearer " + w.token}
			for _, c := range []struct {
				method, path string
			}{
				{http.MethodGet, p.infoURL()}, {http.MethodHead, p.infoURL()}, {http.MethodGet, p.narURL()}, {http.MethodHead, p.narURL()},
			} {
				w.unused(p)
				for range 2 { // the second is in memory
					w.must(w.do(c.method, c.path, nil), 200)
				}
				if w.used(p) {
					t.Errorf("%s %s by anybody is a use", c.method, c.path)
				}
				w.must(w.do(c.method, c.path, nil, auth...), 200)
				if !w.used(p) || w.collect(p) {
					t.Errorf("%s %s by an uploader is no lease", c.method, c.path)
				}
			}
			// Sent again, it is used, too.
			w.unused(p)
			w.must(w.put(p.infoURL(), p.text()), 201)
			if !w.used(p) {
				t.Error("a PUT is no use")
			}
			w.unused(p)
			w.must(w.put(p.narURL(), p.body), 201)
			if !w.used(p) || w.collect(p) {
				t.Error("a PUT of its NAR is no use")
			}
			w.unused(p)
			w.must(w.get(p.infoURL()), 200)
			if !w.collect(p) {
				t.Error("it is kept")
			}
			for range 2 {
				w.must(w.do(http.MethodGet, p.infoURL(), nil, auth...), 404)
				w.must(w.do(http.MethodHead, p.narURL(), nil, auth...), 404)
				w.mustLack(p)
			}
			w.must(w.get("/"+p.info.Path.Hash()+".ls"), 404)
			w.check()
			w.putAll(p)
			w.mustServe(p)
			w.check()
		})
	}
}

// Another server may have collected a path whose narinfo is in memory here: who may upload
// is not told that it is here.
func TestLookupOfWhatIsGone(t *testing.T) {
	w := newWorld(t)
	p := newUpload(t, "p", "zstd")
	w.putAll(p)
	w.mustServe(p) // and so its narinfo is in memory
	if err := index.Delete(w.index, p.info.Path.Hash()); err != nil {
		t.Fatal(err)
	}
	w.must(w.get(p.infoURL(), "Authorization", "Bearer "+w.token), 404)
	w.must(w.get(p.infoURL()), 404)
}

// Where anybody may upload, everybody's lookup is a lease, on the connection, too.
func TestLookupsWhereAnybodyMayUpload(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.anonymous = scope.Set{pull, push} })
	p := newUpload(t, "p", "zstd")
	w.putAll(p)
	for _, path := range []string{p.infoURL(), p.narURL()} {
		for range 2 { // the second narinfo is in memory
			w.unused(p)
			w.must(w.get(path), 200)
			if !w.used(p) || w.collect(p) {
				t.Errorf("GET %s is no lease", path)
			}
			w.must(w.get(path), 200)
		}
	}
}
