package adopt

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"narwharf/cache/index"
	"narwharf/cache/refusal"
	"narwharf/narinfo"
)

// ofReferrers is the uploader of what was adopted for an upload.
const ofReferrers = "adopted for uploads that refer to it"

// longestPause is how long Run waits at most before it tries again.
const longestPause = time.Hour

// Pending is how many paths uploads refer to that are not adopted yet, or cannot
// be.
func (a *Adopter) Pending() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.wanted) + len(a.refused)
}

// Want notes those of refs that are no uploads, for Run to adopt.
func (a *Adopter) Want(refs []narinfo.Path) {
	if a.Local == nil {
		return
	}
	refs = slices.DeleteFunc(slices.Clone(refs), func(ref narinfo.Path) bool {
		_, err := a.Uploads.Index.Get(ref.Hash())
		return !errors.Is(err, index.ErrNotFound)
	})
	if len(refs) == 0 {
		return
	}
	a.again(refs)
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// again notes paths for the next turn.
func (a *Adopter) again(list []narinfo.Path) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range list {
		a.wanted[p] = true
	}
}

func (a *Adopter) takeWanted() []narinfo.Path {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := slices.Collect(maps.Keys(a.wanted))
	clear(a.wanted)
	return list
}

// setRefused notes whether a path cannot be adopted as it is.
func (a *Adopter) setRefused(p narinfo.Path, refused bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if refused {
		a.refused[p] = true
	} else {
		delete(a.refused, p)
	}
}

// Run adopts what uploads refer to in the local store, until ctx ends. It begins
// with what an earlier process left undone.
func (a *Adopter) Run(ctx context.Context) {
	if a.Local == nil {
		return
	}
	refs := make(map[narinfo.Path]bool)
	err := a.Uploads.Index.Each(func(_ string, r *index.Record, err error) error {
		if err != nil {
			return err
		}
		for _, ref := range r.Info.References {
			refs[ref] = true
		}
		return ctx.Err()
	})
	if err != nil && ctx.Err() == nil {
		a.Log.Error("look for references that are not uploaded", "error", err)
	}
	a.Want(slices.Collect(maps.Keys(refs)))
	var retry <-chan time.Time
	pause := a.Pause
	release := time.NewTicker(6 * time.Hour)
	defer release.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-release.C:
			if _, err := a.Local.Release(a.Grace + 24*time.Hour); err != nil {
				a.Log.Error("let go of old GC roots of the local store", "error", err)
			}
			continue
		case <-a.wake:
		case <-retry:
		}
		failed, err := a.adoptClosure(ctx, a.takeWanted())
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			retry, pause = nil, a.Pause
			continue
		}
		a.Log.Error("what uploads refer to in the local store could not be adopted now", "paths", len(failed), "again_in", pause, "error", err)
		a.again(failed)
		retry, pause = time.After(pause), min(2*pause, longestPause)
	}
}

// AdoptNow adopts what an upload refers to, and waits for it.
func (a *Adopter) AdoptNow(ctx context.Context, paths []narinfo.Path) error {
	if _, err := a.adoptClosure(ctx, paths); err != nil {
		return err
	}
	for _, p := range paths {
		if _, err := a.Uploads.Index.Get(p.Hash()); err != nil {
			return refusal.New(refusal.LocalDiffers, "%s is in this cache's own store, cannot be kept there, and is not what Nix knows it as: run nix store verify --repair there, and again here", p)
		}
	}
	return nil
}

// Fetch gets the NAR of an uploaded path anew from the local store; fs.ErrNotExist if it
// is not there. Another content is a refusal.
func (a *Adopter) Fetch(ctx context.Context, p narinfo.Path) error {
	info, err := a.find(ctx, p)
	if err != nil {
		return err
	}
	return a.adopt(ctx, &adoption{info: info}, nil, ofReferrers, false)
}

// adoptClosure adopts paths and all that they refer to. A path that is not what
// Nix knows it as is named in the log and left out. failed is what may be adopted
// another time, with the first of the reasons.
func (a *Adopter) adoptClosure(ctx context.Context, paths []narinfo.Path) (failed []narinfo.Path, first error) {
	fail := func(p narinfo.Path, err error) {
		failed = append(failed, p)
		first = cmp.Or(first, err)
	}
	todo := a.closure(ctx, paths, fail)
	var g errgroup.Group // which ends none for another's error
	a.adoptAll(ctx, &g, todo, ofReferrers, false)
	_ = g.Wait() // each has its own error
	for p, one := range todo {
		switch refused := refusal.In(one.err); {
		case one.err == nil:
			a.setRefused(p, false)
		case refused != nil && !refused.Unavailable():
			a.setRefused(p, true)
			a.Log.Error("a local path that uploads refer to cannot be kept", "path", p, "error", one.err)
		default:
			fail(p, one.err)
		}
	}
	return failed, first
}

// closure is those of paths, and of all that they refer to, that are no uploads.
func (a *Adopter) closure(ctx context.Context, paths []narinfo.Path, fail func(narinfo.Path, error)) batch {
	seen := make(map[narinfo.Path]bool)
	todo := make(batch)
	for len(paths) > 0 {
		p := paths[len(paths)-1]
		paths = paths[:len(paths)-1]
		if seen[p] {
			continue
		}
		seen[p] = true
		_, err := a.Uploads.Index.Get(p.Hash())
		if err == nil {
			a.setRefused(p, false)
			continue
		}
		var info *narinfo.Info
		if errors.Is(err, index.ErrNotFound) {
			info, err = a.find(ctx, p)
		}
		switch {
		case errors.Is(err, fs.ErrNotExist): // allow_incomplete, or deleted meanwhile: fsck tells
			a.setRefused(p, false)
		case err != nil:
			fail(p, err)
		default:
			todo.add(info)
			paths = append(paths, info.References...)
		}
	}
	return todo
}
