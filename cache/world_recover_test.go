package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"narwharf/cache/index"
	"narwharf/cache/upload"
	"narwharf/cache/upload/fsck"
	"narwharf/cache/upload/recovery"
	"narwharf/narinfo"
)

// remove deletes files behind the server's back.
func (w *world) remove(names ...string) {
	w.t.Helper()
	for _, name := range names {
		if err := os.Remove(filepath.Join(w.dir, "cache", name)); err != nil {
			w.t.Fatal(err)
		}
	}
	w.changedBehind()
}

func (w *world) write(name string, text []byte) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, "cache", name), text, 0o644); err != nil {
		w.t.Fatal(err)
	}
	w.changedBehind()
}

func TestRecover(t *testing.T) {
	w := newWorld(t)
	kept, gone, changed, garbage, added := newUpload(t, "kept", "none"), newUpload(t, "gone", "none"), newUpload(t, "changed", "none"), newUpload(t, "garbage", "none"), newUpload(t, "added", "none")
	w.putAll(kept, gone, changed, garbage)
	w.must(w.put(added.narURL(), added.body), 201)
	alt := changed.repacked(t, "zstd")
	w.putAll(alt)
	w.stop()
	sig := signatures(t, 1)
	write := func(name string, text []byte) {
		if err := os.WriteFile(filepath.Join(w.dir, "cache", name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(added.infoURL(), added.text())
	write(changed.infoURL(), alt.edited(func(i *narinfo.Info) { i.Sigs = sig })) // as a crash in the middle of healing leaves it
	write(garbage.infoURL(), []byte("rot\n"))
	write("/"+someHash+".narinfo", kept.text())    // of another path
	write("/notahash.narinfo", []byte("whatever")) // not ours
	if err := os.Remove(filepath.Join(w.dir, "cache", gone.infoURL())); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.mustServe(kept, added)
	w.must(w.get(gone.infoURL()), 404)
	r, err := w.index.Get(changed.info.Path.Hash())
	if err != nil || !slices.Equal(r.Info.Sigs, sig) || r.Info.URL != alt.info.URL || r.By != "ci" || slices.Contains(r.Alternates, alt.info.URL) {
		t.Errorf("recovered %+v, %v", r, err)
	}
	// What the index knows of an unreadable file is better than nothing.
	w.must(w.get(garbage.infoURL()), 200)
	if n := strings.Count(w.log.String(), "is damaged, run narwharf fsck"); n != 2 {
		t.Errorf("%d files are reported, want 2:\n%s", n, w.log)
	}
	added2, dropped, err := recovery.Recover(w.u)
	if added2 != 0 || dropped != 0 || err != nil {
		t.Errorf("a second time: %d, %d, %v", added2, dropped, err)
	}
}

func TestRecoverAfterALostDatabase(t *testing.T) {
	w := newWorld(t)
	var all []*testPath
	for i := range 300 {
		p := rawUpload(t, fmt.Sprint("p", i), narOf(t, nil), "none", narOf(t, nil))
		all = append(all, p)
	}
	w.must(w.put(all[0].narURL(), all[0].body), 201)
	for _, p := range all {
		w.must(w.put(p.infoURL(), p.text()), 201)
	}
	w.stop()
	if err := os.Remove(filepath.Join(w.dir, "narwharf.db")); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.mustServe(all...)
	w.check()
}

func TestRecoverReportsFailures(t *testing.T) {
	broken := errors.New("broken")
	bad := &faultyIndex{fail: func([]string) (error, bool) { return broken, false }}
	w := newWorld(t, func(s *setup) { s.wrap = func(i index.Index) index.Index { bad.Index = i; return i } })
	p, q := newUpload(t, "p", "none"), newUpload(t, "q", "none")
	w.putAll(p, q)
	w.remove(p.infoURL())
	w.write(q.infoURL(), q.edited(func(i *narinfo.Info) { i.Sigs = signatures(t, 1) }))
	u, err := upload.New(w.files, bad, w.setup.uploads, w.setup.Log)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, _, err := recovery.Recover(u); !errors.Is(err, broken) {
			t.Errorf("Recover with a broken index: %v", err)
		}
	}
}

func TestRebuild(t *testing.T) {
	w := newWorld(t)
	p, q, other := newUpload(t, "p", "zstd"), newUpload(t, "q", "none"), newUpload(t, "other", "gzip")
	w.putAll(p, q, other)
	alt, orphan := p.repacked(t, "br"), newUpload(t, "orphan", "none")
	w.putAll(alt)
	w.must(w.put(orphan.narURL(), orphan.body), 201)
	w.mustServe(p, q, other) // and so in memory
	before, err := w.index.Get(p.info.Path.Hash())
	if err != nil {
		t.Fatal(err)
	}
	w.remove(q.infoURL(), q.info.URL)
	w.write(other.infoURL(), []byte("rot\n"))
	w.write("nar/"+someFile+".nar", []byte("rot"))
	w.write("nar/not-a-nar", []byte("x"))
	var report strings.Builder
	_, err = recovery.Rebuild(t.Context(), w.u, func(format string, args ...any) { fmt.Fprintf(&report, format+"\n", args...) })
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"left out: " + other.info.Path.Hash() + ".narinfo", "left out: nar/" + someFile, "1 path, and 1 NAR file", "who uploaded"} {
		if !strings.Contains(report.String(), want) {
			t.Errorf("no %q in\n%s", want, &report)
		}
	}
	after, err := w.index.Get(p.info.Path.Hash())
	if err != nil || !slices.Equal(after.Alternates, []string{alt.info.URL}) || string(after.Info.Append(nil)) != string(before.Info.Append(nil)) || after.By != "" {
		t.Errorf("rebuilt %+v, %v", after, err)
	}
	if d := after.Uploaded.Sub(before.Uploaded).Abs(); d > time.Minute {
		t.Errorf("the time is off by %v", d)
	}
	w.mustServe(p)
	w.must(w.get(q.infoURL()), 404) // what was in memory too
	w.must(w.get(other.infoURL()), 404)
	rot := &testPath{info: &narinfo.Info{URL: "nar/" + someFile + ".nar"}}
	w.age(p, alt, orphan, other, rot)
	if n, _, err := w.u.Sweep(time.Now()); err != nil || n != 3 { // orphan, that of other, which lost its narinfo, and rot
		t.Errorf("swept %d, %v", n, err)
	}
	w.must(w.get(alt.narURL()), 200)
}

func TestRebuildThatIsCancelled(t *testing.T) {
	w := newWorld(t)
	p := newUpload(t, "p", "zstd")
	w.putAll(p)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := recovery.Rebuild(ctx, w.u, func(string, ...any) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	w.mustServe(p)
	w.check()
}

// Reads go on while the index is made anew, and uploads wait and succeed.
func TestRebuildBesideOthers(t *testing.T) {
	w := newWorld(t)
	p := newUpload(t, "p", "zstd")
	w.putAll(p, p.repacked(t, "none"))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				w.s.Cache.Signer.Forget("")
				w.mustServe(p)
			}
		})
	}
	var uploaded []*testPath
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			q := newUpload(t, fmt.Sprint("q", i), "none", p)
			w.putAll(q)
			uploaded = append(uploaded, q)
		}
	})
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, _, err := w.u.Sweep(time.Now()); err != nil {
				t.Error(err)
			}
			if _, err := fsck.Run(t.Context(), w.u, fsck.Options{Repair: true, Report: func(l string) {
				if strings.HasPrefix(l, "damaged") || strings.HasPrefix(l, "repaired") {
					t.Error(l)
				}
			}}); err != nil {
				t.Error(err)
			}
		}
	})
	for range 15 {
		if _, err := recovery.Rebuild(t.Context(), w.u, func(string, ...any) {}); err != nil {
			t.Error(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	close(stop)
	wg.Wait()
	w.mustServe(append(uploaded, p)...)
	w.check()
}

func TestSweep(t *testing.T) {
	w := newWorld(t)
	used, young, old, old2 := newUpload(t, "used", "none"), newUpload(t, "young", "none"), newUpload(t, "old", "none"), newUpload(t, "old2", "none")
	w.putAll(used)
	for _, p := range []*testPath{young, old, old2} {
		w.must(w.put(p.narURL(), p.body), 201)
	}
	w.age(used, old, old2)
	// One that cannot be removed must not keep the others.
	w.breakAt(func(op, name string) error {
		if op == "remove" && name == old.info.URL {
			return io.ErrClosedPipe
		}
		return nil
	})
	n, size, err := w.u.Sweep(time.Now())
	if n != 1 || size != int64(len(old2.body)) || !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("swept %d files of %d bytes, %v", n, size, err)
	}
	w.consistent()
	w.breakAt(nil)
	n, size, err = w.u.Sweep(time.Now())
	if n != 1 || size != int64(len(old.body)) || err != nil {
		t.Errorf("swept %d files of %d bytes, %v", n, size, err)
	}
	w.must(w.get(young.narURL()), 200)
	w.mustLack(old, old2)
	w.mustServe(used)
	w.check()
}

// Whoever is told that a NAR is here can refer to it, however the sweeper's
// work falls between the two requests.
func TestSweepAgainstHead(t *testing.T) {
	w := newWorld(t)
	for i := range 60 {
		p := newUpload(t, fmt.Sprint("p", i), "none")
		w.must(w.put(p.narURL(), p.body), 201)
		w.age(p)
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, _, err := w.u.Sweep(time.Now()); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			a := w.head(p.narURL(), "Authorization", "Bearer "+w.token)
			if a.status == 404 {
				w.must(w.put(p.narURL(), p.body), 201)
			} else {
				w.must(a, 200)
			}
			w.must(w.put(p.infoURL(), p.text()), 201)
		})
		wg.Wait()
		w.mustServe(p)
	}
	w.check()
}

// And a narinfo that comes without asking is taken in with its NAR or refused
// without it, but never left without.
func TestSweepAgainstNarinfo(t *testing.T) {
	w := newWorld(t)
	var taken, refused int
	for i := range 60 {
		p := newUpload(t, fmt.Sprint("p", i), "none")
		w.must(w.put(p.narURL(), p.body), 201)
		w.age(p)
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, _, err := w.u.Sweep(time.Now()); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			switch a := w.put(p.infoURL(), p.text()); a.status {
			case 201:
				taken++
				w.mustServe(p)
			case 422:
				refused++
				w.mustLack(p)
			default:
				t.Error(a)
			}
		})
		wg.Wait()
	}
	t.Logf("%d taken in, %d refused", taken, refused)
	w.check()
}

func TestSweeper(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { w.u.SweepUntil(ctx); close(done) }()
	cancel()
	<-done
}

// After a stop in order nothing is compared before the server is ready; what somebody did to
// the files meanwhile is found beside it, and so are NARs that are gone.
func TestCheckAfterAStopInOrder(t *testing.T) {
	w := newWorld(t)
	same, gone, changed, added, lost := newUpload(t, "same", "none"), newUpload(t, "gone", "none"), newUpload(t, "changed", "none"), newUpload(t, "added", "none"), newUpload(t, "lost", "none")
	w.putAll(same, gone, changed, lost)
	w.must(w.put(added.narURL(), added.body), 201)
	c := w.u.Counts()
	if _, err := w.index.Totals(); err != nil { // as a scrape of the metrics does
		t.Fatal(err)
	}
	if err := w.index.Close(index.Files{Count: c.NarFiles, Size: c.NarBytes}); err != nil {
		t.Fatal(err)
	}
	w.stop()
	time.Sleep(10 * time.Millisecond) // more than a file's time is exact
	sig := signatures(t, 1)
	for name, text := range map[string][]byte{
		added.infoURL():   added.text(),
		changed.infoURL(): changed.edited(func(i *narinfo.Info) { i.Sigs = sig }),
	} {
		if err := os.WriteFile(filepath.Join(w.dir, "cache", name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{gone.infoURL(), lost.info.URL} {
		if err := os.Remove(filepath.Join(w.dir, "cache", name)); err != nil {
			t.Fatal(err)
		}
	}
	w.start()
	if w.index.Dirty() || w.index.Closed().IsZero() {
		t.Fatal("it was no stop in order")
	}
	for range 2 {
		if err := recovery.Check(t.Context(), w.u, w.index.Closed()); err != nil {
			t.Fatal(err)
		}
	}
	w.mustServe(same, added)
	w.must(w.get(gone.infoURL()), 404)
	w.must(w.get(changed.infoURL()), 200, sig[0])
	if r, err := w.index.Get(changed.info.Path.Hash()); err != nil || r.By != "ci" {
		t.Errorf("%+v, %v", r, err)
	}
	for range 2 {
		w.must(w.get(lost.narURL()), 404)
	}
	if text := w.log.String(); strings.Count(text, "a NAR is lost, or was cut") != 1 || !strings.Contains(text, string(lost.info.Path)) {
		t.Errorf("the log:\n%s", text)
	}
	w.counted("narwharf_cache_lost_nars", 1)
	w.must(w.put(lost.narURL(), lost.body), 201)
	w.counted("narwharf_cache_lost_nars", 0)
	w.mustServe(lost)
}

// A NAR that goes while the server runs shows where it is read, and in a rebuild.
func TestLostNarsShow(t *testing.T) {
	w := newWorld(t)
	p, q := newUpload(t, "p", "none"), newUpload(t, "q", "zstd")
	w.putAll(p, q)
	w.must(w.get("/nar/"+someFile+".nar"), 404) // of nobody
	w.counted("narwharf_cache_lost_nars", 0)
	w.remove(p.info.URL)
	for range 3 {
		w.must(w.get(p.narURL()), 404)
	}
	w.counted("narwharf_cache_lost_nars", 1)
	w.remove(q.info.URL)
	w.must(w.get("/"+q.info.Path.Hash()+".ls"), 404)
	if n := strings.Count(w.log.String(), "a NAR is lost, or was cut"); n != 2 {
		t.Errorf("logged %d times:\n%s", n, w.log)
	}
	var report strings.Builder
	if _, err := recovery.Rebuild(t.Context(), w.u, func(format string, args ...any) { fmt.Fprintf(&report, format+"\n", args...) }); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(report.String(), "2 paths without a NAR any more") {
		t.Errorf("%s", &report)
	}
	w.fsck(true)
	w.counted("narwharf_cache_lost_nars", 0)
}

// A NAR that was cut, or in whose place there is something else, is as lost as one that is not there: it
// shows, fsck ends, and what is uploaded again is whole.
func TestCutNarsShow(t *testing.T) {
	w := newWorld(t)
	p, q := newUpload(t, "p", "none"), newUpload(t, "q", "zstd")
	w.putAll(p, q)
	w.damage(p, func(body []byte) []byte { return body[:len(body)/2] })
	w.remove(q.info.URL)
	if err := os.MkdirAll(filepath.Join(w.dir, "cache", q.info.URL), 0o755); err != nil {
		t.Fatal(err)
	}
	w.must(w.get(q.narURL()), 404)
	if err := recovery.Check(t.Context(), w.u, time.Now()); err != nil {
		t.Fatal(err)
	}
	w.counted("narwharf_cache_lost_nars", 2)
	if _, err := recovery.Rebuild(t.Context(), w.u, func(string, ...any) {}); err != nil {
		t.Fatal(err)
	}
	w.counted("narwharf_cache_lost_nars", 2)
	w.fsck(true)
	w.counted("narwharf_cache_lost_nars", 0)
	if err := os.Remove(filepath.Join(w.dir, "cache", q.info.URL)); err != nil {
		t.Fatal(err)
	}
	for _, up := range []*testPath{p, q} {
		w.must(w.get(up.infoURL()), 404)
		if w.head(up.narURL(), "Authorization", "Bearer "+w.token).status != 200 { // as Nix does
			w.must(w.put(up.narURL(), up.body), 201)
		}
		w.must(w.put(up.infoURL(), up.text()), 201)
		w.mustServe(up)
	}
}
