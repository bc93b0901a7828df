package backup

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"narwharf/narinfo"
)

// paths copies narinfos with their NARs, beside uploads and deletions.
//
// An upload writes what a path refers to before it, and a deletion removes it after it.
// So of what was there when the list was made, a path that is still there has all that
// it refers to; what was gone for a moment is tried again.
type paths struct {
	*mirror
	report func(line string)
	lost   atomic.Int64

	mu   sync.Mutex
	refs map[string][]string // of paths that are copied, by hash part
}

// copy copies all paths.
func (p *paths) copy(ctx context.Context) error {
	if err := p.folder(cacheDir); errors.Is(err, fs.ErrNotExist) {
		return nil // nothing was ever uploaded
	} else if err != nil {
		return err
	}
	entries, err := os.ReadDir(filepath.Join(p.from, cacheDir))
	if err != nil {
		return err
	}
	listed := make(map[string]bool)
	for _, e := range entries {
		if hash, ok := strings.CutSuffix(e.Name(), ".narinfo"); ok && narinfo.ValidHash(hash) {
			listed[hash] = true
		}
	}
	p.refs = make(map[string][]string, len(listed))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for hash := range listed {
		g.Go(func() error {
			if err := gctx.Err(); err != nil {
				return err
			}
			_, err := p.path(gctx, hash)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return p.settle(ctx, listed)
}

// settle takes out paths that refer to one that went while they were copied.
func (p *paths) settle(ctx context.Context, listed map[string]bool) error {
	for gone := true; gone; {
		gone = false
		for hash, refs := range p.refs {
			for _, ref := range refs {
				if _, there := p.refs[ref]; there || !listed[ref] {
					continue
				}
				ok, err := p.path(ctx, ref)
				if err != nil {
					return err
				}
				if !ok {
					p.drop(hash)
					gone = true
					break
				}
			}
		}
	}
	return nil
}

func (p *paths) drop(hash string) {
	delete(p.refs, hash)
	p.mirror.mu.Lock()
	defer p.mirror.mu.Unlock()
	delete(p.seen, infoName(hash)) // prune removes it
}

func infoName(hash string) string { return filepath.Join(cacheDir, hash+".narinfo") }

// path copies one path, and tells whether it is there. One that changes meanwhile is
// begun anew.
func (p *paths) path(ctx context.Context, hash string) (ok bool, err error) {
	for again := true; again && err == nil; {
		again, err = p.pathOnce(ctx, hash)
	}
	if errors.Is(err, errNoPath) {
		return false, nil
	}
	return err == nil, err
}

// errNoPath is that there is no narinfo.
var errNoPath = errors.New("the path is not there")

// pathOnce copies one path; again is that it has changed meanwhile.
func (p *paths) pathOnce(ctx context.Context, hash string) (again bool, err error) {
	text, err := os.ReadFile(filepath.Join(p.from, infoName(hash)))
	if errors.Is(err, fs.ErrNotExist) {
		return false, errNoPath
	}
	if err != nil {
		return false, err
	}
	info, err := narinfo.Parse(text)
	if err != nil || !fs.ValidPath(info.URL) {
		p.report("left as it is: " + hash + ".narinfo cannot be read")
		info = &narinfo.Info{}
	}
	lost := false
	if info.URL != "" {
		err := p.file(ctx, filepath.Join(cacheDir, filepath.FromSlash(info.URL)))
		if lost = errors.Is(err, fs.ErrNotExist); err != nil && !lost {
			return false, err
		}
	}
	if err = p.file(ctx, infoName(hash)); errors.Is(err, fs.ErrNotExist) {
		return false, errNoPath
	}
	if err != nil {
		return false, err
	}
	is, err := os.ReadFile(filepath.Join(p.to, infoName(hash)))
	if err != nil || string(is) != string(text) {
		return err == nil, err
	}
	if lost {
		p.lost.Add(1)
		p.report("data_dir has lost " + info.URL + ", the NAR of " + string(info.Path))
	}
	p.refer(hash, info)
	return false, nil
}

// refer notes what a path refers to.
func (p *paths) refer(hash string, info *narinfo.Info) {
	refs := make([]string, 0, len(info.References))
	for _, ref := range info.References {
		refs = append(refs, strings.Clone(ref.Hash()))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refs[strings.Clone(hash)] = refs
}
