package cache

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"narwharf/cache/index"
	"narwharf/cache/refusal"
	"narwharf/narinfo"
)

// ofReferrers is the uploader of what was adopted for an upload.
const ofReferrers = "adopted for uploads that refer to it"

// keeper collects local paths that uploads refer to. Clients do not upload what
// they see here already; so that the cache's files are whole closures, and stay
// so when Nix collects its garbage, such paths are adopted in the background.
type keeper struct {
	mu     sync.Mutex
	wanted map[narinfo.Path]bool
	refuse map[narinfo.Path]bool // those that cannot be adopted as they are
	wake   chan struct{}
}

// How long what could not be adopted now waits, and at most in the end.
const (
	keepPause   = time.Minute
	keepPatient = time.Hour
)

// pending is how many are not adopted yet.
func (k *keeper) pending() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.wanted) + len(k.refuse)
}

// want notes those of refs that are no uploads.
func (k *keeper) want(s *Server, refs []narinfo.Path) {
	if s.local == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, ref := range refs {
		if _, err := s.index().Get(ref.Hash()); errors.Is(err, index.ErrNotFound) {
			if k.wanted == nil {
				k.wanted = make(map[narinfo.Path]bool)
			}
			k.wanted[ref] = true
		}
	}
	if len(k.wanted) > 0 {
		select {
		case k.wake <- struct{}{}:
		default:
		}
	}
}

func (k *keeper) take() []narinfo.Path {
	k.mu.Lock()
	defer k.mu.Unlock()
	var list []narinfo.Path
	for p := range k.wanted {
		list = append(list, p)
	}
	k.wanted = nil
	return list
}

// put takes paths back for another time.
func (k *keeper) put(list []narinfo.Path) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range list {
		if k.wanted == nil {
			k.wanted = make(map[narinfo.Path]bool)
		}
		k.wanted[p] = true
	}
}

// settle notes what became of a path.
func (k *keeper) settle(p narinfo.Path, refused bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.refuse, p)
	if refused {
		if k.refuse == nil {
			k.refuse = make(map[narinfo.Path]bool)
		}
		k.refuse[p] = true
	}
}

// KeepWhole adopts what uploads refer to in the local store, until ctx ends. It
// begins with what an earlier process left undone.
func (s *Server) KeepWhole(ctx context.Context) {
	if s.local == nil {
		return
	}
	refs := make(map[narinfo.Path]bool)
	err := s.index().Each(func(r *index.Record) error {
		for _, ref := range r.Info.References {
			refs[ref] = true
		}
		return ctx.Err()
	})
	if err != nil && ctx.Err() == nil {
		s.log.Error("look for references that are not uploaded", "error", err)
	}
	for ref := range refs {
		s.keeper.want(s, []narinfo.Path{ref})
	}
	var retry <-chan time.Time
	pause := s.keepPause
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.keeper.wake:
		case <-retry:
		}
		list := s.keeper.take()
		left, err := s.adoptClosure(ctx, list)
		if ctx.Err() != nil {
			return
		}
		retry = nil
		if err != nil {
			s.log.Error("what uploads refer to in the local store could not be adopted now", "paths", len(left), "again_in", pause, "error", err)
			s.keeper.put(left)
			retry, pause = time.After(pause), min(2*pause, keepPatient)
		} else {
			pause = s.keepPause
		}
	}
}

// adoptClosure adopts paths and all that they refer to. A path that is not what
// Nix knows it as is named in the log and left out. left is what may be adopted
// another time, with the first of the reasons.
func (s *Server) adoptClosure(ctx context.Context, todo []narinfo.Path) (left []narinfo.Path, first error) {
	fail := func(p narinfo.Path, err error) {
		left = append(left, p)
		first = cmp.Or(first, err)
	}
	seen := make(map[narinfo.Path]bool)
	set := make(map[narinfo.Path]*adoption)
	for len(todo) > 0 {
		p := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[p] {
			continue
		}
		seen[p] = true
		_, err := s.index().Get(p.Hash())
		if err == nil {
			s.keeper.settle(p, false)
			continue
		}
		var l *narinfo.Info
		if errors.Is(err, index.ErrNotFound) {
			l, err = s.local.Info(ctx, p.Hash())
		}
		switch {
		case errors.Is(err, fs.ErrNotExist): // allow_incomplete, or deleted meanwhile: fsck tells
			s.keeper.settle(p, false)
		case err != nil:
			fail(p, err)
		case l.Path == p:
			set[p] = &adoption{info: l, done: make(chan struct{})}
			todo = append(todo, l.References...)
		}
	}
	var g errgroup.Group // which ends none for another's error
	s.uploads.adoptAll(ctx, &g, set, ofReferrers, false)
	_ = g.Wait() // each has its own error
	for p, a := range set {
		switch refused := refusal.In(a.err); {
		case a.err == nil:
			s.keeper.settle(p, false)
		case refused != nil && !refused.Unavailable():
			s.keeper.settle(p, true)
			s.log.Error("a local path that uploads refer to cannot be kept", "path", p, "error", a.err)
		default:
			fail(p, a.err)
		}
	}
	return left, first
}
