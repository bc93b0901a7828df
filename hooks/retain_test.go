package hooks

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"narwharf/cache/root"
	"narwharf/cache/state"
	"narwharf/hooks/api"
	"narwharf/hooks/api/retention"
	"narwharf/narinfo"
)

// roots are the owners of roots, sorted, after they were settled.
func (w *world) roots() (owners []string) {
	w.t.Helper()
	if err := w.s.Retain.Settle(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	err := root.EachOwner(w.t.Context(), w.db, "", func(owner string) error {
		owners = append(owners, owner)
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return owners
}

func (w *world) rootsOf(owner string) (paths []narinfo.Path) {
	w.t.Helper()
	err := w.db.View(w.t.Context(), func(tx state.Reader) (err error) {
		paths, err = root.Owner(tx, owner)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return paths
}

func (w *world) wantRoots(want ...string) {
	w.t.Helper()
	if got := w.roots(); !slices.Equal(got, want) {
		w.t.Errorf("roots have %q, want %q", got, want)
	}
}

// later moves the clock of the world.
func (w *world) later(d time.Duration) {
	now := w.now
	was := now()
	begun := time.Now()
	w.setClock(func() time.Time { return was.Add(d).Add(time.Since(begun)) })
}

// running is the report of a host that runs a release well.
func running(seq int64, p narinfo.Path) *api.Status {
	return status(seq, api.OK, func(st *api.Status) {
		st.Seq, st.HighestSeq, st.Current, st.Wanted, st.Profile, st.Booted = seq, seq, p.In("/nix/store"), p.In("/nix/store"), p.In("/nix/store"), p.In("/nix/store")
	})
}

// A release is a root with its promote, and until so many came after it; the last that hosts
// ran well stays beyond that.
func TestReleasesAreRoots(t *testing.T) {
	w := newWorld(t)
	for seq := int64(1); seq <= 13; seq++ {
		p := w.system(fmt.Sprint("s", seq))
		w.promote(seq, w.entry("*", p))
		if got := w.rootsOf(fmt.Sprintf("release:web:%d", seq)); !slices.Equal(got, []narinfo.Path{p}) {
			t.Errorf("after promote %d its roots are %q", seq, got)
		}
		if seq == 2 {
			st := running(seq, p)
			w.must(w.report(st), 204, "")
		}
	}
	w.must(w.do("DELETE", "/api/v1/hosts/web-1", w.op, nil), 204, "")
	want := []string{"release:web:10", "release:web:11", "release:web:12", "release:web:13", "release:web:2", "release:web:4", "release:web:5", "release:web:6", "release:web:7", "release:web:8", "release:web:9"}
	w.wantRoots(want...)
	w.wantRoots(want...)
	// An older server's data has none.
	err := w.db.Update(t.Context(), nil, func(tx state.Tx) error {
		if err := tx.Clear("cache/root"); err != nil {
			return err
		}
		return tx.Clear("cache/root-owner")
	})
	if err != nil {
		t.Fatal(err)
	}
	w.wantRoots(want...)
	w.must(w.do("DELETE", "/api/v1/channels/web", w.ci, nil, "If-Match", `"13"`), 204, "")
	w.wantRoots()
}

// A host keeps what it reports, until it was not heard of for long or is removed.
func TestHostsAreRoots(t *testing.T) {
	w := newWorld(t)
	a, b := w.system("a"), w.system("b")
	w.promote(1, w.entry("*", a))
	st := running(1, a)
	st.Booted, st.Previous, st.Confirmed = b.In("/nix/store"), "/etc/passwd", b.In("/nix/store")+"/bin"
	w.must(w.report(st), 204, "")
	want := []narinfo.Path{a, b}
	slices.Sort(want)
	if got := w.rootsOf("host:web-1"); !slices.Equal(got, want) {
		t.Errorf("its roots are %q, want %q", got, want)
	}
	w.wantRoots("host:web-1", "release:web:1")
	w.later(80 * 24 * time.Hour)
	w.restart() // memory forgets when it was seen
	w.wantRoots("host:web-1", "release:web:1")
	w.later(20 * 24 * time.Hour)
	w.wantRoots("release:web:1")
	st.Counter++
	w.must(w.report(st), 204, "") // the same systems
	w.wantRoots("host:web-1", "release:web:1")
	w.later(80 * 24 * time.Hour)
	w.must(w.do("GET", "/api/v1/hosts/web-1/desired?channel=web", w.host, nil), 200, "")
	w.wantRoots("host:web-1", "release:web:1")
	w.later(80 * 24 * time.Hour)
	w.restart()
	w.wantRoots("host:web-1", "release:web:1")
	w.must(w.do("DELETE", "/api/v1/hosts/web-1", w.op, nil), 204, "")
	w.wantRoots("release:web:1")
}

// A pin keeps a path or a release, is a file, ends by itself, and comes back from its file.
func TestPins(t *testing.T) {
	w := newWorld(t)
	a, b := w.system("a"), w.system("b")
	w.promote(1, w.entry("*", a))
	w.promote(2, w.entry("*", b))
	put := func(name string, p any) answer { return w.do("PUT", "/api/v1/pins/"+name, w.op, p) }
	w.must(put("one", retention.Pin{Channel: "web", Seq: 1, Reason: "audit"}), 200, "", a.In("/nix/store"), `"by":"op"`)
	until := w.now().Add(time.Hour)
	w.must(put("two", retention.Pin{Path: b.In("/nix/store"), Until: &until}), 200, "")
	w.wantRoots("pin:one", "pin:two", "release:web:1", "release:web:2")

	w.must(put("x", map[string]any{}), 400, api.BadRequest, "a store path or of a release")
	w.must(put("x", retention.Pin{Path: "/nix/store/x"}), 400, api.BadRequest)
	w.must(put("x", retention.Pin{Channel: "web", Seq: 7}), 404, api.NotFound)
	w.must(put("x", retention.Pin{Channel: "none"}), 404, api.NotFound)
	w.must(put("-x", retention.Pin{Channel: "web"}), 400, api.BadRequest)
	over := w.now().Add(-time.Hour)
	w.must(put("x", retention.Pin{Channel: "web", Until: &over}), 400, api.BadRequest, "which is over")
	lost := w.put("lost")
	delete(w.cache.infos, lost.Hash())
	w.must(put("x", retention.Pin{Path: lost.In("/nix/store")}), 422, api.ClosureIncomplete, "--refresh")
	for _, token := range []string{w.ci, w.host, ""} {
		if a := w.do("PUT", "/api/v1/pins/x", token, retention.Pin{Channel: "web"}); a.status != 403 && a.status != 401 {
			t.Errorf("a pin without the scope: %s", a)
		}
	}
	w.files.fail = fmt.Errorf("disk")
	w.must(put("x", retention.Pin{Channel: "web"}), 500, api.Internal)
	w.must(w.do("DELETE", "/api/v1/pins/one", w.op, nil), 500, api.Internal)
	w.files.fail = nil
	w.wantRoots("pin:one", "pin:two", "release:web:1", "release:web:2")

	w.later(2 * time.Hour)
	w.wantRoots("pin:one", "release:web:1", "release:web:2")
	w.wantEvents("pin.expired", 1, false)
	w.stop()
	w.path += ".new"
	w.start()
	if _, _, err := w.s.Restore(t.Context(), t.Logf); err != nil {
		t.Fatal(err)
	}
	w.wantRoots("pin:one", "release:web:1", "release:web:2")
	op := w.token("op-again", "operate", "pull")
	list := decode[struct{ Pins []retention.Pin }](t, w.must(w.do("GET", "/api/v1/pins", op, nil), 200, "")).Pins
	if len(list) != 1 || list[0].Reason != "audit" || list[0].Seq != 1 {
		t.Errorf("restored %+v", list)
	}
	// A pin whose file is gone gets it again; roots without their pin end.
	if err := w.files.Remove("pins/one.json"); err != nil {
		t.Fatal(err)
	}
	err := w.db.Update(t.Context(), nil, func(tx state.Tx) error { return root.Set(tx, "pin:ghost", []narinfo.Path{a}) })
	if err != nil {
		t.Fatal(err)
	}
	w.wantRoots("pin:one", "release:web:1", "release:web:2")
	if _, err := w.files.Read("pins/one.json", 1<<20); err != nil {
		t.Error(err)
	}
	w.must(w.do("GET", "/api/v1/pins/one", op, nil), 200, "")
	w.must(w.do("DELETE", "/api/v1/pins/one", op, nil), 204, "")
	w.must(w.do("DELETE", "/api/v1/pins/one", op, nil), 404, api.NotFound)
	w.must(w.do("GET", "/api/v1/pins/one", op, nil), 404, api.NotFound, "narwharf pin")
	w.wantRoots("release:web:1", "release:web:2")
	if _, err := w.files.Read("pins/one.json", 1<<20); err == nil {
		t.Error("the file of a pin that ended is still there")
	}
}

// What was collected is said in the history, and a rollback there is refused in words.
func TestCollectedReleases(t *testing.T) {
	w := newWorld(t)
	var old narinfo.Path
	for seq := int64(1); seq <= 12; seq++ {
		p := w.system(fmt.Sprint("s", seq))
		w.promote(seq, w.entry("*", p))
		if seq == 1 {
			old = p
		}
	}
	w.roots()
	collected := func() (seqs []int64) {
		for _, h := range decode[struct{ History []api.HistoryItem }](t, w.do("GET", "/api/v1/channels/web/history", "", nil)).History {
			if h.Collected {
				seqs = append(seqs, h.Seq)
			}
		}
		return seqs
	}
	if got := collected(); got != nil {
		t.Errorf("%d are collected, and all paths are here", got)
	}
	entry := w.entry("*", old)
	delete(w.cache.infos, old.Hash())
	if got := collected(); !slices.Equal(got, []int64{1}) {
		t.Errorf("%d are collected, want 1", got)
	}
	h := w.head(13)
	h.Rollback = true
	w.must(w.promoteAs(w.ci, 12, w.release(h, entry)), 422, api.ClosureIncomplete, "was collected", "narwharf channel history web")
	h.Rollback = false
	if a := w.must(w.promoteAs(w.ci, 12, w.release(h, entry)), 422, api.ClosureIncomplete); strings.Contains(a.body, "collected") {
		t.Errorf("no rollback: %s", a)
	}
}

// A promote holds its closure before it checks it, and a dry run holds nothing.
func TestPromoteHolds(t *testing.T) {
	w := newWorld(t)
	p := w.system("a")
	entry := w.entry("*", p)
	w.must(w.do("PUT", "/api/v1/channels/web?dry_run=1", w.ci, api.Promotion{Release: *w.release(w.head(1), entry), Keys: []string{w.key.Public().String()}}, "If-Match", `"0"`), 200, "")
	if w.cache.held != nil {
		t.Errorf("a dry run holds %q", w.cache.held)
	}
	w.cache.using = fmt.Errorf("the disk is full")
	w.must(w.promoteAs(w.ci, 0, w.release(w.head(1), entry)), 500, api.Internal)
	w.wantRoots()
	w.cache.using, w.cache.held = nil, nil
	w.promote(1, entry)
	if len(w.cache.held) != 3 || !slices.Contains(w.cache.held, p.Hash()) {
		t.Errorf("it held %q, want the closure of %s", w.cache.held, p)
	}
}

// fakeCollector answers what it was given.
type fakeCollector struct {
	asked []string
	err   error
}

func (f *fakeCollector) note(format string, args ...any) {
	f.asked = append(f.asked, fmt.Sprintf(format, args...))
}

func (f *fakeCollector) Plan(_ context.Context, early bool) (*retention.Plan, error) {
	f.note("plan %v", early)
	return &retention.Plan{Loose: retention.Sum{Paths: 3, Bytes: 9}}, f.err
}

func (f *fakeCollector) Collect(_ context.Context, early bool, by string) (*retention.Status, error) {
	f.note("collect %v %s", early, by)
	return &retention.Status{Running: &retention.Running{By: by}}, f.err
}

func (f *fakeCollector) Status(context.Context) (*retention.Status, error) {
	return new(retention.Status), f.err
}

func (f *fakeCollector) Free() (int64, bool, error) { return 0, false, f.err }

func (f *fakeCollector) Why(_ context.Context, p narinfo.Path) (*retention.Why, error) {
	f.note("why %s", p)
	return &retention.Why{Path: string(p), Roots: []retention.Chain{}}, f.err
}

func (f *fakeCollector) Usage(_ context.Context, channel string) (*retention.Usage, error) {
	f.note("du %s", channel)
	return &retention.Usage{Of: []retention.Share{}}, f.err
}

func (f *fakeCollector) Delete(_ context.Context, hash, by string) (*retention.Deleted, error) {
	f.note("delete %s %s", hash, by)
	return &retention.Deleted{Path: hash}, f.err
}

// Who may ask what about what is kept, and what is no question.
func TestRetentionRoutes(t *testing.T) {
	w := newWorld(t)
	w.halt()
	f := new(fakeCollector)
	w.collector = f
	w.serve(w.db)
	p := w.system("a")
	w.promote(1, w.entry("*", p))
	const none = api.Kind("")
	path := "path=" + p.In("/nix/store")
	for _, c := range []struct {
		method, url, token string
		status             int
		kind               api.Kind
		asked              string
	}{
		{"POST", "gc", w.admin, 202, none, "collect false admin"},
		{"POST", "gc?early=1", w.admin, 202, none, "collect true admin"},
		{"POST", "gc", w.op, 403, api.Forbidden, ""},
		{"POST", "gc?dry_run=1", w.op, 200, none, "plan false"},
		{"POST", "gc?dry_run=1&early=1", w.admin, 200, none, "plan true"},
		{"POST", "gc?dry_run=1", w.ci, 403, api.Forbidden, ""},
		{"POST", "gc", "", 401, api.Unauthorized, ""},
		{"GET", "gc", w.op, 200, none, ""},
		{"GET", "gc", w.ci, 403, api.Forbidden, ""},
		{"GET", "why?" + path, w.op, 200, none, "why " + string(p)},
		{"GET", "why?path=" + string(p), w.op, 200, none, "why " + string(p)},
		{"GET", "why?path=hello", w.op, 400, api.BadRequest, ""},
		{"GET", "why", w.op, 400, api.BadRequest, ""},
		{"GET", "why?" + path, w.ci, 403, api.Forbidden, ""},
		{"GET", "du", w.op, 200, none, "du "},
		{"GET", "du", w.ci, 403, api.Forbidden, ""},
		{"GET", "du?channel=web", w.ci, 200, none, "du web"},
		{"GET", "du?channel=none", w.op, 404, api.NotFound, ""},
		{"GET", "du?channel=N", w.op, 400, api.BadRequest, ""},
		{"DELETE", "paths/" + p.Hash(), w.admin, 200, none, "delete " + p.Hash() + " admin"},
		{"DELETE", "paths/" + string(p), w.admin, 200, none, "delete " + p.Hash() + " admin"},
		{"DELETE", "paths/x", w.admin, 400, api.BadRequest, ""},
		{"DELETE", "paths/" + p.Hash(), w.op, 403, api.Forbidden, ""},
	} {
		f.asked = nil
		a := w.do(c.method, "/api/v1/"+c.url, c.token, nil)
		if a.status != c.status || a.err.Kind != c.kind || strings.Join(f.asked, "; ") != c.asked {
			t.Errorf("%s %s: %s, asked %q; want %d %s, %q", c.method, c.url, a, f.asked, c.status, c.kind, c.asked)
		}
	}
	f.err = api.Errorf(api.InUse, "web keeps it")
	w.must(w.do("DELETE", "/api/v1/paths/"+p.Hash(), w.admin, nil), 409, api.InUse, "web keeps it")
}
