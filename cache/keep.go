package cache

import (
	"context"
	"errors"
	"io/fs"
	"sync"

	"narwharf/cache/index"
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
	wake   chan struct{}
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
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.keeper.wake:
		}
		if err := s.adoptClosure(ctx, s.keeper.take()); err != nil && ctx.Err() == nil {
			s.log.Error("what uploads refer to could not be adopted from the local store; a promote tries again", "error", err)
		}
	}
}

// adoptClosure adopts paths and all that they refer to.
func (s *Server) adoptClosure(ctx context.Context, todo []narinfo.Path) error {
	seen := make(map[narinfo.Path]bool)
	var list []narinfo.Path
	for len(todo) > 0 {
		p := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[p] {
			continue
		}
		seen[p] = true
		if _, err := s.index().Get(p.Hash()); !errors.Is(err, index.ErrNotFound) {
			if err != nil {
				return err
			}
			continue
		}
		l, err := s.local.find(ctx, p.Hash())
		if errors.Is(err, fs.ErrNotExist) {
			continue // allow_incomplete, or deleted meanwhile: fsck tells
		}
		if err != nil {
			return err
		}
		list = append(list, p)
		todo = append(todo, l.info.References...)
	}
	_, err := s.uploads.Adopt(ctx, list, ofReferrers)
	return err
}
