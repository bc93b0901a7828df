// Package release keeps releases in memory that roll-outs are about: what the engine asks
// of them at each step, and what hosts are sent of those that are not current any more.
package release

import (
	"context"
	"errors"
	"fmt"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"

	"narwharf/cache/state/namelock"
	"narwharf/hooks/api"
	"narwharf/hooks/channel"
	"narwharf/hooks/rollout"
	"narwharf/signing"
)

// Channels are where releases are read.
type Channels interface {
	Get(name string) *channel.Snapshot
	// Past reads a release; an *api.Error of kind not_found says that it is not there.
	Past(ctx context.Context, name string, seq int64) (*signing.Release, error)
}

// Releases is those of all channels.
type Releases struct {
	channels Channels
	known    *lru.Cache[key, *Release]
	reading  namelock.Set
}

type key struct {
	channel string
	seq     int64
}

// New makes them of channels. 64 are in memory.
func New(channels Channels) *Releases {
	known, err := lru.New[key, *Release](64)
	if err != nil {
		panic(err) // of a size that is not positive
	}
	return &Releases{channels: channels, known: known}
}

// Release is a signed release with what the engine asks of it.
type Release struct {
	*signing.Release
	Head    *signing.Head
	Entries []signing.Entry
	Of      *rollout.Release

	mu       sync.Mutex
	pointers map[int]*signing.Pointer
}

// Make is a release that was checked.
func Make(r *signing.Release, head *signing.Head, entries []signing.Entry) *Release {
	return &Release{Release: r, Head: head, Entries: entries, Of: Of(head, entries), pointers: make(map[int]*signing.Pointer)}
}

// Of is what the engine needs of a release.
func Of(head *signing.Head, entries []signing.Entry) *rollout.Release {
	r := &rollout.Release{Seq: head.Seq, Rev: head.Meta["rev"], Entries: make(map[string]*rollout.Entry, len(entries))}
	for _, e := range entries {
		r.Entries[e.Target] = &rollout.Entry{Path: e.StorePath, Closure: e.Closure.String(), Action: string(e.Action)}
	}
	return r
}

// Entry is that of a target, nil if there is none.
func (r *Release) Entry(target string) *signing.Entry {
	if i, ok := signing.Find(r.Entries, target); ok {
		return &r.Entries[i]
	}
	return nil
}

// Pointer is what a host with a target is sent, nil if nothing.
func (r *Release) Pointer(target string) (*signing.Pointer, error) {
	i, ok := signing.Find(r.Entries, target)
	if !ok {
		return nil, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.pointers[i]; p != nil {
		return p, nil
	}
	p, err := r.Release.Pointer(i)
	if err == nil {
		r.pointers[i] = p
	}
	return p, err
}

// At is a release of a channel, nil if it is not there any more.
func (r *Releases) At(name string, seq int64) (*Release, error) {
	k, now := key{name, seq}, r.channels.Get(name)
	current := now.Release != nil && now.Head.Seq == seq
	known := func() (*Release, bool) {
		is, ok := r.known.Get(k)
		return is, ok && (!current || is != nil && is.Release == now.Release.Release) // it may have more signatures now
	}
	if is, ok := known(); ok {
		return is, nil
	}
	defer r.reading.Lock(fmt.Sprint(k))() // each host asks, and one reads
	if is, ok := known(); ok {
		return is, nil
	}
	is, err := r.read(now, seq)
	if err == nil {
		r.known.Add(k, is)
	}
	return is, err
}

func (r *Releases) read(now *channel.Snapshot, seq int64) (*Release, error) {
	if now.Release != nil && now.Head.Seq == seq {
		return Make(now.Release.Release, now.Head, now.Entries), nil
	}
	past, err := r.channels.Past(context.Background(), now.Name, seq)
	if gone := (*api.Error)(nil); errors.As(err, &gone) && gone.Kind == api.NotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	head, entries, err := past.Check()
	if err != nil {
		return nil, err
	}
	return Make(past, head, entries), nil
}

// Add puts one there that was promoted.
func (r *Releases) Add(name string, is *Release) { r.known.Add(key{name, is.Head.Seq}, is) }
