package site

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"narwharf/cache/root"
	"narwharf/cache/state"
	"narwharf/cache/state/memory"
	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/signing"
)

var errLine = errors.New("the line is cut")

// world is a centre with one channel, and a site.
type world struct {
	t   *testing.T
	key signing.SecretKey

	mu        sync.Mutex
	cut       bool
	changed   chan struct{} // closed at each promote
	releases  map[string][]*signing.Release
	manifests map[signing.Digest][]byte

	here    map[narinfo.Path]bool
	fetched []narinfo.Path
	takes   time.Duration // a fetch
	alarms  []string
	state   state.Store
}

func newWorld(t *testing.T) *world {
	key, err := signing.GenerateKey("deploy-1")
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, key: key, changed: make(chan struct{}), releases: make(map[string][]*signing.Release), manifests: make(map[signing.Digest][]byte), here: make(map[narinfo.Path]bool), state: memory.New(nil)}
}

func pathNamed(name string) narinfo.Path {
	return narinfo.Path(narinfo.Hash(sha256.Sum256([]byte(name))).Base32()[20:] + "-" + name)
}

// promote makes a release of which the system has these parts, each of which refers to the next.
func (w *world) promote(channel string, parts ...string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	seq := int64(len(w.releases[channel]) + 1)
	names := append([]string{fmt.Sprintf("%s-%d", channel, seq)}, parts...)
	var infos []*narinfo.Info
	for i, name := range names {
		info := &narinfo.Info{StoreDir: "/nix/store", Path: pathNamed(name), NarHash: sha256.Sum256([]byte(name)), NarSize: 112}
		if i+1 < len(names) {
			info.References = []narinfo.Path{pathNamed(names[i+1])}
		}
		infos = append(infos, info)
	}
	m, err := signing.NewManifest(infos)
	if err != nil {
		w.t.Fatal(err)
	}
	w.manifests[m.Digest()] = m.Text()
	entry := signing.Entry{Target: signing.Everyone, StorePath: infos[0].Path.In("/nix/store"), Closure: m.Digest(), System: "x86_64-linux", Action: signing.Auto}
	r, err := signing.NewRelease(signing.Head{Channel: channel, Origin: "cache/" + channel, Seq: seq, Created: time.Now().UTC().Truncate(time.Second)}, []signing.Entry{entry}, w.key)
	if err != nil {
		w.t.Fatal(err)
	}
	w.releases[channel] = append(w.releases[channel], r)
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *world) set(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
}

func (w *world) line() error {
	if w.cut {
		return errLine
	}
	return nil
}

func (w *world) ChannelAfter(ctx context.Context, name, etag string, wait time.Duration) (*api.Channel, string, error) {
	end := time.After(wait)
	for {
		w.mu.Lock()
		all, err, changed := w.releases[name], w.line(), w.changed
		w.mu.Unlock()
		seq := len(all)
		switch now := fmt.Sprintf("%q", fmt.Sprint(seq)); {
		case err != nil:
			return nil, "", err
		case seq == 0:
			return nil, "", api.Errorf(api.NotFound, "there is no channel %s", name)
		case now != etag:
			return &api.Channel{Channel: name, Seq: int64(seq), Release: all[seq-1]}, now, nil
		}
		select {
		case <-changed:
		case <-end:
			return nil, "", api.ErrNotModified
		case <-ctx.Done():
			return nil, "", ctx.Err()
		}
	}
}

func (w *world) History(_ context.Context, name string, limit int) (items []api.HistoryItem, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for seq := len(w.releases[name]); seq > 0 && len(items) < limit; seq-- {
		items = append(items, api.HistoryItem{Seq: int64(seq)})
	}
	return items, w.line()
}

func (w *world) Release(_ context.Context, name string, seq int64) (*signing.Release, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.releases[name][seq-1], w.line()
}

func (w *world) Closure(_ context.Context, d signing.Digest) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := w.manifests[d]
	if text == nil {
		return nil, api.Errorf(api.NotFound, "no manifest")
	}
	return text, w.line()
}

func (w *world) Has(_ context.Context, p narinfo.Path) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.here[p], nil
}

func (w *world) Fetch(ctx context.Context, p narinfo.Path) error {
	select {
	case <-time.After(w.takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.line(); err != nil {
		return err
	}
	w.here[p] = true
	w.fetched = append(w.fetched, p)
	return nil
}

func (w *world) follow(ctx context.Context, channels ...string) *Follower {
	f := New(Options{Centre: w, Name: "http://centre", Channels: channels, Cache: w, State: w.state, Log: slog.New(slog.NewTextHandler(w.t.Output(), nil)),
		Alarm: func(_ context.Context, text string) error { w.alarms = append(w.alarms, text); return nil }})
	go f.Run(ctx)
	return f
}

// owners are the roots there are.
func (w *world) owners() (all []string) {
	w.t.Helper()
	if err := root.EachOwner(context.Background(), w.state, "", func(own string) error { all = append(all, own); return nil }); err != nil {
		w.t.Fatal(err)
	}
	return all
}

// came checks what was fetched since it was asked last.
func (w *world) came(names ...string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	want := make(map[narinfo.Path]bool)
	for _, n := range names {
		want[pathNamed(n)] = true
	}
	got := make(map[narinfo.Path]bool)
	for _, p := range w.fetched {
		if got[p] {
			w.t.Errorf("%s was fetched twice", p)
		}
		got[p] = true
	}
	if !maps.Equal(want, got) {
		w.t.Errorf("%q came, want %q", w.fetched, names)
	}
	w.fetched = nil
}

// pass lets time pass, and whatever it starts come to rest.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// A release is fetched once, references first, and the one before stays until another comes.
func TestReleases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, end := context.WithCancel(t.Context())
		defer end()
		w.promote("web", "a", "b")
		w.follow(ctx, "web", "db")
		pass(time.Second)
		if want := []narinfo.Path{pathNamed("b"), pathNamed("a"), pathNamed("web-1")}; !slices.IsSortedFunc(w.fetched, func(a, b narinfo.Path) int { return slices.Index(want, a) - slices.Index(want, b) }) {
			t.Logf("out of order, which costs nothing but a lookup: %q", w.fetched)
		}
		w.came("web-1", "a", "b")
		w.promote("web", "a", "c")
		w.promote("db", "c", "d") // the first of its channel
		pass(time.Minute)
		w.came("web-2", "c", "db-1", "d")
		w.promote("web", "e")
		pass(time.Second)
		w.came("web-3", "e")
		if got := w.owners(); !slices.Equal(got, []string{"mirror:db:1", "mirror:web:2", "mirror:web:3"}) {
			t.Errorf("roots of %q", got)
		}
		end()
		synctest.Wait()

		// What is not in the configuration any more is let go, and what is here is not fetched again.
		ctx, end = context.WithCancel(t.Context())
		defer end()
		w.follow(ctx, "web")
		pass(time.Second)
		w.came()
		if got := w.owners(); !slices.Equal(got, []string{"mirror:web:2", "mirror:web:3"}) {
			t.Errorf("roots of %q", got)
		}
		end()
		synctest.Wait()
	})
}

// What a cut line breaks off is done when it is back, and people are told when that takes long.
func TestCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.takes = 10 * time.Second
		ctx, end := context.WithCancel(t.Context())
		defer end()
		w.promote("web", "a", "b", "c", "d", "e", "f")
		f := w.follow(ctx, "web")
		pass(15 * time.Second) // the first four are here
		w.set(true)
		pass(20 * time.Minute)
		if f.seen["web"].missing != 3 || len(w.alarms) != 1 || !strings.Contains(w.alarms[0], "http://centre does not answer since more than 10m0s about web") {
			t.Errorf("%d are missing, alarms %q", f.seen["web"].missing, w.alarms)
		}
		w.set(false)
		pass(lastPause + w.takes + time.Second)
		w.came("web-1", "a", "b", "c", "d", "e", "f")
		pass(time.Minute)
		if f.seen["web"].missing != 0 || len(w.alarms) != 2 || w.alarms[1] != "" {
			t.Errorf("%d are missing, alarms %q", f.seen["web"].missing, w.alarms)
		}
		end()
		synctest.Wait()
	})
}

// A release that comes while another is fetched takes its place.
func TestOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.takes = time.Hour
		ctx, end := context.WithCancel(t.Context())
		defer end()
		w.promote("web", "a")
		w.follow(ctx, "web")
		pass(time.Minute)
		w.manifests = make(map[signing.Digest][]byte) // the old one goes at the centre
		w.takes = time.Second
		w.promote("web", "b")
		pass(time.Minute)
		w.came("web-2", "b")
		end()
		synctest.Wait()
	})
}

// A manifest that is another than the release names fetches nothing.
func TestLyingManifest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, end := context.WithCancel(t.Context())
		defer end()
		w.promote("db", "secret")
		w.promote("web", "a")
		d := slices.Collect(maps.Keys(w.manifests))
		w.manifests[d[0]], w.manifests[d[1]] = w.manifests[d[1]], w.manifests[d[0]]
		w.follow(ctx, "web")
		pass(time.Minute)
		w.came()
		end()
		synctest.Wait()
	})
}
