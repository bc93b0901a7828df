// Package adopt makes uploads of paths of the machine's own Nix store: the
// compressed NAR becomes a file of the cache, and the narinfo is stored with the
// signatures of Nix's database and ours. From then on nix-collect-garbage is no
// concern of the cache. See docs/design/009-local-store.md.
//
// A promote asks for its whole closure, by Adopt. What uploads refer to is adopted
// in the background, by Run: clients do not upload what they see here already, and
// the cache's files have to be whole closures all the same. Until then a GC root holds
// it, and so it holds what uploaders have seen here and nothing refers to yet.
package adopt

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"narwharf/cache/blob"
	"narwharf/cache/index"
	"narwharf/cache/refusal"
	"narwharf/cache/upload"
	"narwharf/narinfo"
)

// LocalStore is what adoption needs of the machine's own Nix store.
type LocalStore interface {
	// Info returns what the store has under a hash part, fs.ErrNotExist if
	// nothing, a refusal.LocalStore if that cannot be said now.
	Info(ctx context.Context, hash string) (*narinfo.Info, error)
	// Release lets go of what was held (upload.LocalStore) and not for an age.
	Release(age time.Duration) (left int, err error)
	// Compress returns the NAR of a path, compressed with zstd, as a whole file
	// with its SHA-256 and size. dump.ErrChanged or fs.ErrNotExist if the path is
	// not what Nix knows it as; blob.ErrFull if there is no room for the file.
	Compress(ctx context.Context, i *narinfo.Info) (f *os.File, hash narinfo.Hash, size int64, err error)
	// Discard removes such a file, which turned out to be damaged.
	Discard(i *narinfo.Info, damage error)
}

// Options say what is adopted and how.
type Options struct {
	Uploads *upload.Store
	// Local is the machine's own store, nil if it is not served.
	Local LocalStore
	// Sign returns the signatures that a path is stored with.
	Sign func(*narinfo.Info) ([]string, error)
	// Pause is how long Run waits before it tries again what could not be adopted;
	// 0 is a minute. It doubles up to an hour.
	Pause time.Duration
	// Grace is how long a path is held in the local store after it was seen here last;
	// 0 is 31 days: Nix remembers for 30 what it saw.
	Grace time.Duration
	Log   *slog.Logger
}

// Adopter adopts. It is safe for concurrent use.
type Adopter struct {
	Options
	wake chan struct{} // tells Run that there is something to do

	mu      sync.Mutex
	wanted  map[narinfo.Path]bool // references of uploads, for Run
	refused map[narinfo.Path]bool // those that cannot be adopted as they are
}

// New makes an Adopter.
func New(opts Options) *Adopter {
	opts.Pause, opts.Grace = cmp.Or(opts.Pause, time.Minute), cmp.Or(opts.Grace, 31*24*time.Hour)
	return &Adopter{
		Options: opts, wake: make(chan struct{}, 1),
		wanted: make(map[narinfo.Path]bool), refused: make(map[narinfo.Path]bool),
	}
}

// Adopt makes uploads of those paths that come from the local store alone, and
// returns how many. by is kept as the uploader. When it returns nil all of them
// are durable. What was adopted before an error stays, so that another call
// goes on from there; closures are whole at every moment if paths has whole
// ones, since references come first.
//
// An error of a path that is not what Nix knows it as, is in neither source, or
// was uploaded meanwhile with another content is a refusal.Error.
func (a *Adopter) Adopt(ctx context.Context, paths []narinfo.Path, by string) (int, error) {
	hashes := make([]string, len(paths))
	for i, p := range paths {
		hashes[i] = p.Hash()
	}
	if _, err := a.Uploads.Index.Use(ctx, hashes); err != nil { // what is here stays
		return 0, err
	}
	todo := make(batch)
	for _, p := range paths {
		r, err := a.Uploads.Index.Get(p.Hash())
		if err == nil && r.Info.Path == p {
			continue
		}
		if err != nil && !errors.Is(err, index.ErrNotFound) {
			return 0, err
		}
		info, err := a.find(ctx, p)
		if errors.Is(err, fs.ErrNotExist) {
			return 0, refusal.New(refusal.Gone, "%s is not in this cache any more; upload it, or build it there again", p)
		}
		if err != nil {
			return 0, err
		}
		todo.add(info)
	}
	if len(todo) == 0 {
		return 0, nil
	}
	g, ctx := errgroup.WithContext(ctx)
	a.adoptAll(ctx, g, todo, by, true)
	err := g.Wait()
	if errors.Is(err, blob.ErrFull) {
		a.Log.Error("no room to adopt local paths", "error", err)
		return 0, refusal.New(refusal.Full, "the cache has no room to keep the %d paths that are in its own Nix store alone: make room there, and promote again", len(todo))
	}
	return len(todo), err
}

// find returns what the local store knows of a path, fs.ErrNotExist if nothing.
func (a *Adopter) find(ctx context.Context, p narinfo.Path) (*narinfo.Info, error) {
	if a.Local == nil {
		return nil, fs.ErrNotExist
	}
	info, err := a.Local.Info(ctx, p.Hash())
	if err == nil && info.Path != p {
		return nil, fs.ErrNotExist
	}
	return info, err
}

// batch is paths that become uploads together.
type batch map[narinfo.Path]*adoption

// adoption is one of them.
type adoption struct {
	info  *narinfo.Info // as the local store has it
	done  chan struct{} // closed when it is an upload, or cannot be
	err   error         // why it cannot, once done is closed
	order int
}

func (b batch) add(info *narinfo.Info) {
	b[info.Path] = &adoption{info: info, done: make(chan struct{})}
}

// inOrder sorts references before what refers to them.
func (b batch) inOrder() []*adoption {
	var list []*adoption
	var visit func(one *adoption)
	visit = func(one *adoption) {
		if one.order != 0 {
			return
		}
		one.order = -1 // a path may refer to itself
		for _, ref := range one.info.References {
			if next := b[ref]; next != nil {
				visit(next)
			}
		}
		list = append(list, one)
		one.order = len(list)
	}
	for _, p := range slices.Sorted(maps.Keys(b)) {
		visit(b[p])
	}
	return list
}

// adoptAll starts all adoptions in g. Whoever waits for a reference waits for what
// began before, so one of them always moves. With whole, a path is not adopted if
// one that it refers to cannot be.
func (a *Adopter) adoptAll(ctx context.Context, g *errgroup.Group, todo batch, by string, whole bool) {
	g.SetLimit(2 * runtime.GOMAXPROCS(0))
	for _, one := range todo.inOrder() {
		g.Go(func() error {
			defer close(one.done)
			one.err = a.adopt(ctx, one, todo, by, whole)
			return one.err
		})
	}
}
