package retention

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"narwharf/cache/blob"
	"narwharf/cache/index"
	"narwharf/cache/root"
	"narwharf/cache/upload"
	"narwharf/narinfo"
)

// inWorld runs a test in a world where time is as the test wants.
func inWorld(t *testing.T, p Policy, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, p)
		w.open()
		test(t, w)
	})
}

// What goes first is what nothing has used for longest, and what refers before what it
// refers to; from max_size down to 95 % of it.
func TestSize(t *testing.T) {
	p := testPolicy
	p.MaxSize = 1
	inWorld(t, p, func(t *testing.T, w *world) {
		lib := w.mustPut("lib")
		old := w.mustPut("old", lib)
		time.Sleep(day)
		young := w.mustPut("young", lib)
		time.Sleep(30 * day)
		if res := w.collect(Request{}); res.Paths() > 0 || res.Over == 0 {
			t.Errorf("within grace: %+v", res)
		}
		time.Sleep(8 * time.Hour)
		w.MaxSize = w.uploads.Counts().NarBytes - 1
		res := w.collect(Request{})
		w.want(lib, young)
		if s := res.Gone[Size]; s.Paths != 1 || res.Bytes != old.info.FileSize || s.Bytes != res.Bytes || res.Over != 0 {
			t.Errorf("%+v", res)
		}
		w.MaxSize = 1
		time.Sleep(day)
		w.collect(Request{})
		w.want()
		w.agree()
	})
}

// A path that refers to nothing is as young as what refers to it, and one that a runner
// asked for is as young as that.
func TestUse(t *testing.T) {
	inWorld(t, testPolicy, func(t *testing.T, w *world) {
		lib := w.mustPut("lib")
		app, loose, asked := w.mustPut("app", lib), w.mustPut("loose"), w.mustPut("asked")
		time.Sleep(20 * day)
		if missing, err := w.index.Use(context.Background(), []string{app.hash(), asked.hash()}); err != nil || len(missing) > 0 {
			t.Fatal(missing, err)
		}
		time.Sleep(20 * day)
		plan, err := w.Plan(context.Background(), Request{All: true, List: 10})
		if err != nil || len(plan.Paths) != 1 || plan.Paths[0].Path != loose.info.Path || plan.Paths[0].Reason != Asked || plan.Young.Paths != 3 {
			t.Fatalf("%+v, %v", plan, err)
		}
		w.collect(Request{All: true})
		w.want(lib, app, asked)
		time.Sleep(20 * day)
		w.collect(Request{All: true})
		w.want()
	})
}

func TestMaxAge(t *testing.T) {
	p := testPolicy
	p.MaxAge = 60 * day
	inWorld(t, p, func(t *testing.T, w *world) {
		a := w.mustPut("a")
		time.Sleep(40 * day)
		b := w.mustPut("b")
		w.collect(Request{})
		w.want(a, b)
		time.Sleep(21 * day)
		if res := w.collect(Request{}); res.Gone[Age].Paths != 1 {
			t.Errorf("%+v", res)
		}
		w.want(b)
	})
}

// Roots keep what they refer to, whatever its age; why says which, with a chain.
func TestRootsAndWhy(t *testing.T) {
	inWorld(t, testPolicy, func(t *testing.T, w *world) {
		lib := w.mustPut("lib")
		mid, other := w.mustPut("mid", lib), w.mustPut("other")
		top := w.mustPut("top", mid, lib)
		w.mustRoot("release:web:3", top)
		w.mustRoot("pin:mine", mid)
		w.mustRoot("host:x", makeItem("absent", "absent"))
		time.Sleep(100 * day)
		w.collect(Request{All: true})
		w.want(lib, mid, top)
		why, err := w.Why(context.Background(), lib.info.Path)
		if err != nil {
			t.Fatal(err)
		}
		want := []Chain{
			{"pin:mine", []narinfo.Path{mid.info.Path, lib.info.Path}},
			{"release:web:3", []narinfo.Path{top.info.Path, lib.info.Path}},
		}
		slices.SortFunc(why.Roots, func(a, b Chain) int { return strings.Compare(a.Owner, b.Owner) })
		if !why.Uploaded || !slices.EqualFunc(why.Roots, want, func(a, b Chain) bool { return a.Owner == b.Owner && slices.Equal(a.Paths, b.Paths) }) {
			t.Errorf("%+v", why)
		}
		if why, err = w.Why(context.Background(), other.info.Path); err != nil || why.Uploaded || len(why.Roots) > 0 {
			t.Errorf("of what is gone: %+v, %v", why, err)
		}
		w.mustRoot("release:web:3")
		time.Sleep(time.Second)
		w.collect(Request{All: true})
		w.want(lib, mid)
	})
}

func TestUsage(t *testing.T) {
	inWorld(t, testPolicy, func(t *testing.T, w *world) {
		lib := w.mustPut("lib")
		a, b, loose := w.mustPut("aa", lib), w.mustPut("bbbb", lib), w.mustPut("loose")
		w.mustRoot("release:web:1", a)
		w.mustRoot("release:web:2", b)
		w.mustRoot("release:db:1", b)
		w.mustRoot("host:x", lib)
		sum := func(items ...*item) (s Sum) {
			for _, i := range items {
				s.add(i.info.FileSize)
			}
			return s
		}
		want := func(u *Usage, list ...Share) {
			t.Helper()
			slices.SortFunc(u.Of, func(a, b Share) int { return strings.Compare(a.Name, b.Name) })
			if !slices.Equal(u.Of, list) || u.Loose != sum(loose) || u.Uploads != sum(lib, a, b, loose) {
				t.Errorf("%+v", u)
			}
		}
		u, err := w.Usage(context.Background(), "")
		if err != nil {
			t.Fatal(err)
		}
		want(u, Share{"channel:db", Sum{}, sum(lib, b), sum(lib, b)},
			Share{"channel:web", sum(a), sum(lib, b), sum(lib, a, b)},
			Share{"hosts", Sum{}, sum(lib), sum(lib)})
		if u, err = w.Usage(context.Background(), "web"); err != nil {
			t.Fatal(err)
		}
		want(u, Share{"release:web:1", sum(a), sum(lib), sum(lib, a)}, Share{"release:web:2", Sum{}, sum(lib, b), sum(lib, b)})
	})
}

// Many owners are more than the bits of a word.
func TestUsageOfMany(t *testing.T) {
	inWorld(t, testPolicy, func(t *testing.T, w *world) {
		lib := w.mustPut("lib")
		for i := range 150 {
			w.mustRoot("release:c"+string(rune('a'+i%26))+strings.Repeat("x", i/26)+":1", w.mustPut("p"+strings.Repeat("y", i), lib))
		}
		u, err := w.Usage(context.Background(), "")
		if err != nil || len(u.Of) != 150 {
			t.Fatal(u, err)
		}
		for _, s := range u.Of {
			if s.Own.Paths != 1 || s.Shared != (Sum{1, lib.info.FileSize}) {
				t.Errorf("%+v", s)
			}
		}
	})
}

// localStore has paths of its own.
type localStore struct {
	infos  map[string]*narinfo.Info
	err    error
	packed int64
}

func (l *localStore) Info(_ context.Context, hash string) (*narinfo.Info, error) {
	if l.err != nil {
		return nil, l.err
	}
	if i := l.infos[hash]; i != nil {
		return i, nil
	}
	return nil, fs.ErrNotExist
}

func (l *localStore) MakeRoom(n int64) int64 {
	freed := min(n, l.packed)
	l.packed -= freed
	return freed
}

// A root in the local store, and an upload that refers there, keep what is behind.
func TestThroughLocalStore(t *testing.T) {
	inWorld(t, testPolicy, func(t *testing.T, w *world) {
		low, lower := w.mustPut("low"), w.mustPut("lower")
		mine := makeItem("mine", "mine", low.info.Path)
		between := makeItem("between", "between", lower.info.Path)
		local := &localStore{infos: map[string]*narinfo.Info{mine.hash(): mine.info, between.hash(): between.info}}
		w.local = local
		w.open()
		w.uploads.AllowIncomplete = true
		top := w.mustPut("top", between)
		w.mustRoot("host:x", mine)
		w.mustRoot("host:y", top)
		time.Sleep(100 * day)
		local.err = errors.New("locked")
		if res, err := w.Collect(context.Background(), Request{All: true}); err == nil || res.Paths() > 0 {
			t.Errorf("a local store that cannot be asked: %+v, %v", res, err)
		}
		local.err = nil
		w.collect(Request{All: true})
		w.want(low, lower, top)
		why, err := w.Why(context.Background(), lower.info.Path)
		if err != nil || len(why.Roots) != 1 || !slices.Equal(why.Roots[0].Paths, []narinfo.Path{top.info.Path, between.info.Path, lower.info.Path}) {
			t.Errorf("%+v, %v", why, err)
		}
		w.mustRoot("host:y")
		w.collect(Request{All: true})
		w.want(low)
	})
}

// After an index that does not know what was of use no path goes before one grace is over,
// unless a person says so.
func TestWaits(t *testing.T) {
	inWorld(t, testPolicy, func(t *testing.T, w *world) {
		a, b := w.mustPut("a"), w.mustPut("b")
		time.Sleep(100 * day)
		w.forgetSince()
		res := w.collect(Request{All: true})
		if res.Waits == nil || res.Waits.Before(time.Now().Add(30*day)) {
			t.Errorf("%+v", res)
		}
		w.want(a, b)
		w.mustRoot("pin:a", a)
		if res = w.collect(Request{All: true, Early: true}); res.Waits != nil {
			t.Errorf("%+v", res)
		}
		w.want(a)
		w.mustRoot("pin:a")
		time.Sleep(32 * day)
		w.collect(Request{All: true})
		w.want()
	})
}

// A full disk: packed copies go first, then paths within their grace but not within their
// lease, and nothing at all where that would not be enough.
func TestRoom(t *testing.T) {
	inWorld(t, testPolicy, func(t *testing.T, w *world) {
		local, full := &localStore{packed: 100}, int64(0)
		w.local = local
		w.free = func() (int64, error) { return full - w.uploads.Counts().NarBytes - local.packed, nil }
		w.open()
		a := w.mustPut("a")
		time.Sleep(day)
		b := w.mustPut("b")
		time.Sleep(31 * time.Hour)
		c := w.mustPut("c")
		ctx := context.Background()
		size := a.info.FileSize
		full = w.uploads.Counts().NarBytes + local.packed // nothing is free
		if free := w.Room(ctx, 50); free != 50 || local.packed != 50 {
			t.Errorf("%d are free, %d are packed", free, local.packed)
		}
		w.want(a, b, c)
		if free := w.Room(ctx, 90+size); free != 100+size || local.packed > 0 {
			t.Errorf("%d are free, %d are packed", free, local.packed)
		}
		w.want(b, c)
		last, err := w.Last(ctx)
		if err != nil || last == nil || last.Gone[Disk].Paths != 1 || !last.GraceYielded {
			t.Errorf("%+v, %v", last, err)
		}
		if free := w.Room(ctx, 10*size); free != 100+size { // c is leased
			t.Errorf("%d are free, more cannot be", free)
		}
		w.want(b, c)
		last, err = w.Last(ctx)
		if err != nil || last.Error == "" {
			t.Errorf("%+v, %v", last, err)
		}
		tried := last.Ended
		time.Sleep(time.Second)
		if free := w.Room(ctx, 10*size); free != 100+size {
			t.Errorf("%d are free, more cannot be", free)
		}
		if again, err := w.Last(ctx); err != nil || !again.Ended.Equal(tried) {
			t.Errorf("it was tried again at once: %+v, %v", again, err)
		}
		if free := w.Room(ctx, 90+2*size); free < 90+2*size {
			t.Errorf("%d are free", free)
		}
		w.want(c)
	})
}

// Uploads that come while the disk is full share one collection.
func TestRoomForMany(t *testing.T) {
	inWorld(t, testPolicy, func(t *testing.T, w *world) {
		full := int64(0)
		w.free = func() (int64, error) { return full - w.uploads.Counts().NarBytes, nil }
		w.open()
		for i := range 20 {
			w.mustPut("p" + strings.Repeat("x", i))
		}
		full = w.uploads.Counts().NarBytes
		time.Sleep(2 * day)
		done := make(chan int64)
		for range 8 {
			go func() { done <- w.Room(context.Background(), 200) }()
		}
		for range 8 {
			if free := <-done; free < 200 {
				t.Errorf("%d are free", free)
			}
		}
		if n := len(w.here()); n < 17 {
			t.Errorf("%d of 20 paths are left", n)
		}
	})
}

func TestMinFree(t *testing.T) {
	p := testPolicy
	p.MinFree = 1000
	inWorld(t, p, func(t *testing.T, w *world) {
		free := int64(990)
		w.free = func() (int64, error) { return free, nil }
		w.open()
		a := w.mustPut("a")
		if res := w.collect(Request{}); res.Over != 10 || res.Paths() > 0 {
			t.Errorf("within its lease: %+v", res)
		}
		w.want(a)
		time.Sleep(2 * day)
		if res := w.collect(Request{}); res.Gone[Disk].Paths != 1 || !res.GraceYielded {
			t.Errorf("%+v", res)
		}
		w.want()
	})
}

// A collection that is stopped has done a part, says so, and the next goes on.
func TestStopped(t *testing.T) {
	inWorld(t, testPolicy, func(t *testing.T, w *world) {
		var all []*item
		for i := range 9 {
			all = append(all, w.mustPut("p"+strings.Repeat("x", i)))
		}
		time.Sleep(60 * day)
		ctx, cancel := context.WithCancel(context.Background())
		n := 0
		w.wrapped = func(u Uploads) Uploads {
			return collectFunc{u, func(batch []string, may func(*index.Tx, *index.Record) (bool, error)) ([]upload.Gone, error) {
				if n++; n == 2 {
					cancel()
				}
				return u.Collect(context.Background(), batch, may)
			}}
		}
		w.open()
		w.Collector.batch = 2
		res, err := w.Collect(ctx, Request{All: true})
		if !errors.Is(err, context.Canceled) || res.Paths() != 4 || res.Error == "" || res.Success != nil {
			t.Errorf("%+v, %v", res, err)
		}
		w.agree()
		if res := w.collect(Request{All: true}); res.Paths() != int64(len(all)-4) || res.Success == nil {
			t.Errorf("%+v", res)
		}
		w.want()
	})
}

type collectFunc struct {
	Uploads
	collect func(batch []string, may func(*index.Tx, *index.Record) (bool, error)) ([]upload.Gone, error)
}

func (c collectFunc) Collect(_ context.Context, batch []string, may func(*index.Tx, *index.Record) (bool, error)) ([]upload.Gone, error) {
	return c.collect(batch, may)
}

// One collection at a time, and none before the roots are settled.
func TestTurns(t *testing.T) {
	inWorld(t, testPolicy, func(t *testing.T, w *world) {
		w.settled.Store(false)
		if _, err := w.Collect(context.Background(), Request{}); !errors.Is(err, ErrUnsettled) {
			t.Error(err)
		}
		w.settled.Store(true)
		w.turn <- struct{}{}
		if _, err := w.Collect(context.Background(), Request{}); !errors.Is(err, ErrBusy) {
			t.Error(err)
		}
		w.scheduled(context.Background(), &settler{})
		if last, err := w.Last(context.Background()); last != nil || err != nil {
			t.Errorf("beside another collection: %+v, %v", last, err)
		}
		<-w.turn
	})
}

// settler settles roots, or cannot.
type settler struct{ fails atomic.Bool }

func (s *settler) Settle(context.Context) error {
	if s.fails.Load() {
		return errors.New("no")
	}
	return nil
}

// Run settles at once, collects in its interval, and not where the roots cannot be settled.
func TestRun(t *testing.T) {
	p := testPolicy
	p.MaxAge = 31 * day
	inWorld(t, p, func(t *testing.T, w *world) {
		a := w.mustPut("a")
		time.Sleep(40 * day)
		w.settled.Store(false)
		roots := new(settler)
		roots.fails.Store(true)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			w.Run(ctx, roots)
		}()
		time.Sleep(3*time.Hour + time.Second)
		w.want(a)
		if last, err := w.Last(ctx); err != nil || !strings.Contains(last.Error, "settle the roots: no") {
			t.Errorf("%+v, %v", last, err)
		}
		roots.fails.Store(false)
		time.Sleep(2 * time.Hour)
		w.want()
		last, err := w.Last(ctx)
		if err != nil || last.Error != "" || last.Success == nil {
			t.Errorf("%+v, %v", last, err)
		}
		cancel()
		<-ended
	})
}

// Logs, realisations and debug infos end with what they are about.
func TestSidecars(t *testing.T) {
	inWorld(t, testPolicy, func(t *testing.T, w *world) {
		drv := narinfo.Path("00000000000000000000000000000001-a.drv")
		a := makeItem("a", "a")
		a.info.Deriver = drv
		b := w.mustPut("b")
		if err := w.put(a); err != nil {
			t.Fatal(err)
		}
		realised := func(i *item) string { return `{"id":"x","outPath":"` + string(i.info.Path) + `","signatures":[]}` }
		debug := func(i *item) string { return `{"archive":"../` + i.info.URL + `","member":"x"}` }
		for name, text := range map[string]string{
			"realisations/sha256:1!out.doi":                                 realised(a),
			"realisations/sha256:2!out.doi":                                 realised(b),
			"build-trace-v2/00000000000000000000000000000002-b.drv/out.doi": realised(b),
			"debuginfo/aa.debug":                                            debug(a),
			"debuginfo/bb.debug":                                            debug(b),
			"debuginfo/cc.debug":                                            "not JSON",
			"log/" + string(drv):                                            "text",
			"log/00000000000000000000000000000002-b.drv":                    "text",
			"log/00000000000000000000000000000002-b.drv-that-is-some-other-long-name": "text",
		} {
			if err := blob.WriteFile(w.files, name, []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		w.mustRoot("pin:a", a)
		time.Sleep(40 * day)
		young := "log/00000000000000000000000000000003-c.drv"
		if err := blob.WriteFile(w.files, young, []byte("text")); err != nil {
			t.Fatal(err)
		}
		if res := w.collect(Request{All: true}); res.Sidecars != 5 {
			t.Errorf("%d sidecars ended", res.Sidecars)
		}
		want := []string{"debuginfo/aa.debug", "debuginfo/cc.debug", "log/" + string(drv), young, "realisations/sha256:1!out.doi"}
		got := slices.DeleteFunc(w.files.in(""), func(name string) bool {
			return strings.HasPrefix(name, "nar") || strings.HasSuffix(name, ".narinfo") || name == "nix-cache-info"
		})
		if slices.Sort(want); !slices.Equal(got, want) {
			t.Errorf("left are %q", got)
		}
	})
}

// What the API shows of a result is what other programs read of it.
func TestResultJSON(t *testing.T) {
	inWorld(t, testPolicy, func(t *testing.T, w *world) {
		w.mustPut("a")
		time.Sleep(60 * day)
		w.collect(Request{All: true})
		last, err := w.Last(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(last)
		if err != nil || !strings.Contains(string(text), `"gone":{"asked":{"paths":1,"bytes":`) {
			t.Errorf("%s, %v", text, err)
		}
		if err := root.Each(context.Background(), w.db, func(string, string) error { return errors.New("a root") }); err != nil {
			t.Error(err)
		}
	})
}
