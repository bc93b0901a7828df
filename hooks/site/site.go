// Package site keeps at a site what the releases of a centre's channels need: a server whose upstream is
// another Narwharf waits there for releases, and fetches what it lacks of them before hosts ask for it.
//
// # What it promises
//
//   - What the current release of a channel and the one before it need is kept, whatever the collector
//     has to make room for: their systems are roots ("mirror:CHANNEL:SEQ"), set before anything is fetched.
//   - A path is fetched once, however many channels need it and hosts ask for it meanwhile. A path that is
//     here is not fetched again.
//   - A line that is cut costs nothing but time: everything is tried again, soon after it is back.
//   - Nothing of a release is verified but that manifests are those which it names. Whose paths count
//     says upstream.public_keys, and what hosts run their promoters' keys say.
//
// # In the state
//
// Roots alone (package root). What was seen of a channel is asked for anew at each start.
package site

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"narwharf/cache/root"
	"narwharf/cache/state"
	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/signing"
)

// Centre is where channels are. *api.Client is one.
type Centre interface {
	// ChannelAfter waits for a release behind the one with an ETag; see api.Client.
	ChannelAfter(ctx context.Context, name, etag string, wait time.Duration) (*api.Channel, string, error)
	History(ctx context.Context, name string, limit int) ([]api.HistoryItem, error)
	Release(ctx context.Context, name string, seq int64) (*signing.Release, error)
	Closure(ctx context.Context, d signing.Digest) ([]byte, error)
}

// Cache is what keeps paths here.
type Cache interface {
	// Has tells whether a path is here by itself.
	Has(ctx context.Context, p narinfo.Path) (bool, error)
	// Fetch gets a path from the centre, and keeps it.
	Fetch(ctx context.Context, p narinfo.Path) error
}

// Options of New.
type Options struct {
	Centre   Centre
	Name     string // of the centre, for people
	Channels []string
	Cache    Cache
	State    state.Store
	// Alarm says what is wrong, "" where nothing is.
	Alarm func(ctx context.Context, text string) error
	Log   *slog.Logger
}

const (
	pollTime   = 50 * time.Second
	firstPause = time.Second
	lastPause  = 30 * time.Second
	// silent is when people are told that the centre does not answer.
	silent = 10 * time.Minute
	// Releases that are kept of a channel: the current one and the one before.
	kept = 2
	// fetches are how many paths come at once.
	fetches = 4

	owner = "mirror:"
)

// Follower follows the channels of a centre. A nil one follows none.
type Follower struct {
	Options
	turns chan struct{} // holds one for each fetch under way

	mu   sync.Mutex
	seen map[string]*seen
	told string // the alarm, as it was said last
}

// seen is what is known of a channel.
type seen struct {
	heard   time.Time // when the centre last answered; at first the start
	seq     int64     // of the current release; 0: none yet
	missing int       // paths of it, and of the one before, that are not here
}

// New makes a Follower.
func New(o Options) *Follower {
	f := &Follower{Options: o, turns: make(chan struct{}, fetches), seen: make(map[string]*seen)}
	for _, name := range o.Channels {
		f.seen[name] = &seen{heard: time.Now()}
	}
	return f
}

// Run follows the channels until ctx ends.
func (f *Follower) Run(ctx context.Context) {
	if f == nil {
		return
	}
	if err := f.drop(ctx, func(channel string, _ string) bool { return f.seen[channel] == nil }); err != nil && ctx.Err() == nil {
		f.Log.Error("let go of channels that are not in mirror.channels any more", "error", err)
	}
	var all sync.WaitGroup
	for _, name := range f.Channels {
		all.Go(func() { f.follow(ctx, name) })
	}
	tick := time.NewTicker(silent / 10)
	defer tick.Stop()
	for ctx.Err() == nil {
		f.tell(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	all.Wait()
}

// follow waits for releases of a channel. What was begun for one ends when the next comes.
func (f *Follower) follow(ctx context.Context, name string) {
	etag, pause, end := "", time.Duration(0), func() {} // a pause is for a centre that does not answer
	defer func() { end() }()
	for ctx.Err() == nil {
		park := pollTime
		if pause > 0 {
			park = 0 // to hear of it as soon as it answers
		}
		c, next, err := f.Centre.ChannelAfter(ctx, name, etag, park)
		if err == nil || errors.Is(err, api.ErrNotModified) {
			f.heard(name)
		}
		var paths []narinfo.Path
		if err == nil {
			paths, err = f.take(ctx, name, c)
		}
		switch {
		case err == nil:
			etag, pause = next, 0
			end()
			end = f.begin(ctx, name, paths)
			continue
		case errors.Is(err, api.ErrNotModified):
			pause = 0
			continue
		case ctx.Err() != nil:
			return
		}
		level := slog.LevelDebug
		if pause == 0 {
			pause, level = firstPause, slog.LevelWarn
		}
		f.Log.Log(ctx, level, "a channel of the centre cannot be followed now", "centre", f.Name, "channel", name, "error", err)
		wait(ctx, pause/2+rand.N(pause/2))
		pause = min(2*pause, lastPause)
	}
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func (f *Follower) heard(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen[name].heard = time.Now()
}

// take makes the releases of a channel that are kept roots, and returns what they need, the current one's first.
func (f *Follower) take(ctx context.Context, name string, c *api.Channel) (paths []narinfo.Path, err error) {
	if c.Release == nil {
		return nil, nil
	}
	releases := map[int64]*signing.Release{c.Seq: c.Release}
	order := []int64{c.Seq}
	items, err := f.Centre.History(ctx, name, kept)
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	for _, item := range items {
		if item.Seq < c.Seq && !item.Collected && len(order) < kept {
			if releases[item.Seq], err = f.Centre.Release(ctx, name, item.Seq); err != nil {
				return nil, fmt.Errorf("release %d: %w", item.Seq, err)
			}
			order = append(order, item.Seq)
		}
	}
	known := make(map[narinfo.Path]bool)
	for _, seq := range order {
		_, entries, err := releases[seq].Check()
		if err != nil {
			return nil, fmt.Errorf("release %d: %w", seq, err)
		}
		systems, needs, err := f.closures(ctx, entries)
		if err != nil && seq != c.Seq { // an old one may go while we look
			f.Log.Info("the release before is not kept", "channel", name, "seq", seq, "error", err)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("release %d: %w", seq, err)
		}
		if err := f.root(ctx, rootOf(name, seq), systems); err != nil {
			return nil, err
		}
		for _, p := range needs {
			if !known[p] {
				known[p] = true
				paths = append(paths, p)
			}
		}
	}
	f.mu.Lock()
	f.seen[name].seq = c.Seq
	f.mu.Unlock()
	return paths, f.drop(ctx, func(channel, own string) bool {
		return channel == name && !slices.ContainsFunc(order, func(seq int64) bool { return rootOf(name, seq) == own })
	})
}

// closures are the systems of entries, and what they need.
func (f *Follower) closures(ctx context.Context, entries []signing.Entry) (systems, needs []narinfo.Path, err error) {
	read := make(map[signing.Digest]bool)
	for _, e := range entries {
		if read[e.Closure] {
			continue
		}
		read[e.Closure] = true
		base, err := narinfo.ParseBase(e.StorePath[strings.LastIndexByte(e.StorePath, '/')+1:])
		if err != nil {
			return nil, nil, err
		}
		text, err := f.Centre.Closure(ctx, e.Closure)
		if err != nil {
			return nil, nil, fmt.Errorf("manifest of %s: %w", e.StorePath, err)
		}
		m, err := signing.ParseManifest(text, e.Closure, base)
		if err != nil {
			return nil, nil, fmt.Errorf("manifest of %s: %w", e.StorePath, err)
		}
		systems = append(systems, base)
		needs = append(needs, ordered(m)...)
	}
	return systems, needs, nil
}

// ordered are the paths of a closure, each behind what it refers to.
func ordered(m *signing.Manifest) []narinfo.Path {
	paths, seen := make([]narinfo.Path, 0, len(m.Lines)), make(map[narinfo.Path]bool, len(m.Lines))
	var visit func(p narinfo.Path)
	visit = func(p narinfo.Path) {
		l, has := m.Find(p)
		if !has || seen[p] {
			return
		}
		seen[p] = true
		for _, ref := range l.References {
			visit(ref)
		}
		paths = append(paths, p)
	}
	for i := range m.Lines {
		visit(m.Lines[i].Path)
	}
	return paths
}

func rootOf(channel string, seq int64) string { return fmt.Sprintf("%s%s:%d", owner, channel, seq) }

func (f *Follower) root(ctx context.Context, own string, paths []narinfo.Path) error {
	return f.State.Update(ctx, append(root.Locks(paths), own), func(tx state.Tx) error { return root.Set(tx, own, paths) })
}

// drop ends the roots for which gone is true.
func (f *Follower) drop(ctx context.Context, gone func(channel, own string) bool) error {
	var old []string
	err := root.EachOwner(ctx, f.State, owner, func(own string) error {
		channel := strings.TrimPrefix(own[:strings.LastIndexByte(own, ':')], owner)
		if gone(channel, own) {
			old = append(old, own)
		}
		return nil
	})
	for _, own := range old {
		if err == nil {
			err = f.root(ctx, own, nil)
		}
	}
	return err
}

// tell raises the alarm, or ends it.
func (f *Follower) tell(ctx context.Context) {
	f.mu.Lock()
	var away []string
	for _, name := range f.Channels {
		if d := time.Since(f.seen[name].heard); d > silent {
			away = append(away, name)
		}
	}
	text := ""
	if len(away) > 0 {
		text = fmt.Sprintf("%s does not answer since more than %v about %s: hosts here get what is here, and no new release", f.Name, silent, strings.Join(away, ", "))
	}
	same := text == f.told
	f.mu.Unlock()
	if same {
		return
	}
	if err := f.Alarm(ctx, text); err != nil {
		f.Log.Error("an alarm was not noted", "kind", "server.mirror", "error", err)
		return
	}
	f.mu.Lock()
	f.told = text
	f.mu.Unlock()
}
