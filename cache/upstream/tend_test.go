package upstream

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"narwharf/cache/state"
	"narwharf/cache/state/memory"
	"narwharf/narinfo"
	"narwharf/signing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is an upstream with one path, and what leans on it.
type world struct {
	*Upstreams
	t     *testing.T
	now   time.Time
	path  narinfo.Path
	hash  string
	gone  atomic.Bool
	away  atomic.Bool
	asked atomic.Int64
	kept  int
	held  bool
	lost  []string
	refs  bool
	needs []string
}

func newWorld(t *testing.T, keep bool) *world {
	t.Helper()
	key, err := signing.GenerateKey("up-1")
	if err != nil {
		t.Fatal(err)
	}
	info := &narinfo.Info{StoreDir: "/nix/store", Path: narinfo.Path(strings.Repeat("a", 32) + "-x"), URL: "nar/x", Compression: "none", NarHash: sha256.Sum256(nil), NarSize: 1}
	info.Sigs = signInfo(info, []signing.SecretKey{key})
	w := &world{t: t, now: time.Now(), path: info.Path, hash: info.Path.Hash(), needs: []string{"web"}}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		w.asked.Add(1)
		switch {
		case w.away.Load():
			rw.WriteHeader(500)
		case w.gone.Load():
			rw.WriteHeader(404)
		default:
			_, _ = rw.Write(info.Append(nil))
		}
	}))
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	st := memory.New(func() time.Time { return w.now })
	w.Upstreams, err = New(Options{StoreDir: "/nix/store", State: st, Upstreams: []Config{{URL: u, Keys: []signing.PublicKey{key.Public()}, Keep: keep}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.Close()
		server.Close()
	})
	return w
}

func (w *world) tend() (failed int) {
	w.t.Helper()
	failed, err := w.Upstreams.tend(context.Background(), &Tending{
		Held:     func(string) (bool, error) { return w.held, nil },
		Keep:     func(context.Context, *Path) error { w.kept++; return nil },
		Needs:    func() (map[narinfo.Path][]string, error) { return map[narinfo.Path][]string{w.path: w.needs}, nil },
		Referred: func(string) (bool, error) { return w.refs, nil },
		Grace:    31 * 24 * time.Hour,
		Lost: func(_ context.Context, channel string, paths []narinfo.Path) error {
			w.lost = append(w.lost, fmt.Sprint(channel, paths))
			return nil
		},
	})
	if err != nil {
		w.t.Error(err)
	}
	return failed
}

func (w *world) promote() {
	w.t.Helper()
	if others, err := w.Promote(context.Background(), []narinfo.Path{w.path}); err != nil || len(others) > 0 {
		w.t.Fatal(others, err)
	}
}

// record is what is noted of the path; nil if there is nothing.
func (w *world) record() *Leaning {
	w.t.Helper()
	l, err := w.Leaning(context.Background(), w.hash)
	if err != nil {
		w.t.Error(err)
	}
	return l
}

func TestPromotedPathsAreFetchedOnce(t *testing.T) {
	w := newWorld(t, true)
	w.promote()
	if l := w.record(); l == nil || !l.Promoted {
		t.Error("not noted")
	}
	w.tend()
	w.tend()
	if w.kept != 1 || w.record().Promoted {
		t.Errorf("fetched %d times", w.kept)
	}
	w.promote() // a release needs it again, and it is an upload by now
	w.held = true
	w.tend()
	if w.kept != 1 || w.record().Promoted {
		t.Errorf("fetched %d times", w.kept)
	}
}

// With keep = "never" what a release needs is looked up daily, and a loss is told once.
func TestNeverKeptPathsAreCheckedDaily(t *testing.T) {
	w := newWorld(t, false)
	w.promote()
	w.tend()
	asked := w.asked.Load()
	w.tend()
	if w.asked.Load() != asked || asked != 2 {
		t.Errorf("asked %d times, then %d", asked, w.asked.Load())
	}
	aged := func() {
		t.Helper()
		err := w.change(context.Background(), w.hash, func(r *row, _ time.Time) (*row, error) {
			r.Checked = r.Checked.Add(-checkEvery)
			return r, nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	aged()
	w.away.Store(true)
	if failed := w.tend(); failed != 1 || w.lost != nil {
		t.Errorf("an upstream that is away: %d failed, lost %q", failed, w.lost)
	}
	w.away.Store(false)
	w.gone.Store(true)
	w.tend()
	w.tend()
	if want := fmt.Sprint("web", []narinfo.Path{w.path}); len(w.lost) != 1 || w.lost[0] != want || w.record().Lost.IsZero() || w.kept != 0 {
		t.Errorf("lost %q", w.lost)
	}
	if _, err := w.Lean(context.Background(), w.hash); err == nil {
		t.Error("it is said to be there")
	}
	w.gone.Store(false) // it comes back
	w.absent.Purge()
	w.tend()
	if !w.record().Lost.IsZero() {
		t.Error("still lost")
	}
}

// A path may turn out to be lost before the release that needs it is there: the channel is told then.
func TestALossIsToldWhenTheReleaseIsThere(t *testing.T) {
	w := newWorld(t, false)
	w.promote()
	w.needs = nil
	w.gone.Store(true)
	if failed := w.tend(); failed != 1 || w.lost != nil || w.record().Lost.IsZero() {
		t.Errorf("before: %d are tried again, lost %q", failed, w.lost)
	}
	w.needs = []string{"web"}
	w.tend()
	if failed := w.tend(); failed != 0 || len(w.lost) != 1 {
		t.Errorf("then: %d are tried again, lost %q", failed, w.lost)
	}
}

// What nobody needs any more is not looked up, and forgotten after its grace.
func TestRecordsEnd(t *testing.T) {
	w := newWorld(t, false)
	w.promote()
	w.needs = nil
	age := func(by time.Duration) {
		t.Helper()
		err := w.change(context.Background(), w.hash, func(r *row, _ time.Time) (*row, error) {
			r.Used = r.Used.Add(-by)
			return r, nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	age(25 * time.Hour)
	asked := w.asked.Load()
	w.tend()
	if w.record().Promoted || w.asked.Load() != asked {
		t.Error("looked up")
	}
	age(29 * 24 * time.Hour)
	w.tend()
	if w.record() == nil {
		t.Error("forgotten early")
	}
	age(2 * 24 * time.Hour)
	w.refs = true
	w.tend()
	if w.record() == nil {
		t.Error("forgotten though an upload refers to it")
	}
	w.refs = false
	if gone, err := w.Forget(context.Background(), w.hash, time.Now().Add(-40*24*time.Hour), func(state.Reader) (bool, error) { return false, nil }); gone || err != nil {
		t.Errorf("forgotten too early: %v", err)
	}
	w.tend()
	if w.record() != nil {
		t.Error("not forgotten")
	}
}

// A note of a use is written anew when it is some hours old, and only then.
func TestUseIsNotedNowAndThen(t *testing.T) {
	w := newWorld(t, true)
	lean := func() time.Time {
		t.Helper()
		if _, err := w.Lean(context.Background(), w.hash); err != nil {
			t.Fatal(err)
		}
		return w.record().Used
	}
	first := lean()
	w.now = w.now.Add(time.Hour)
	if !lean().Equal(first) {
		t.Error("written at once")
	}
	err := w.change(context.Background(), w.hash, func(r *row, _ time.Time) (*row, error) { r.Used = r.Used.Add(-useEvery); return r, nil })
	if err != nil {
		t.Fatal(err)
	}
	if !lean().After(first) {
		t.Error("not written")
	}
}

// signInfo is signing.SignInfo by keys that are here.
func signInfo(i *narinfo.Info, keys []signing.SecretKey) []string {
	sigs, err := signing.SignInfo(i, keys)
	if err != nil {
		panic(err)
	}
	return sigs
}
