package copies

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"narwharf/cache/state/progress"
	"narwharf/narinfo"
	"narwharf/signing"
)

// Closure reads the narinfos of paths, by their hash parts, and of all that they refer
// to. Those of which has says so are there with all that they refer to, and are passed
// over. A path that the source lacks is a failure; who refers to it may be refused by
// the target then.
func Closure(ctx context.Context, from Source, roots []string, has func(ctx context.Context, hash string) (bool, error), jobs int) (infos []*narinfo.Info, there int, failed []Failure, err error) {
	w := &walk{from: from, has: has, seen: make(map[string]string)}
	for _, hash := range roots {
		w.seen[hash] = hash
	}
	for wave := slices.Sorted(maps.Keys(w.seen)); len(wave) > 0; {
		w.next = nil
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(4 * cmp.Or(jobs, 8))
		for _, hash := range wave {
			g.Go(func() error { return w.step(gctx, hash) })
		}
		if err := g.Wait(); err != nil {
			return nil, 0, nil, err
		}
		wave = w.next
	}
	return w.infos, w.there, w.failed, nil
}

// walk is a Closure at work.
type walk struct {
	from Source
	has  func(ctx context.Context, hash string) (bool, error)

	mu     sync.Mutex
	seen   map[string]string // hash parts, and what is known of the path
	next   []string          // hash parts of the next wave
	infos  []*narinfo.Info
	there  int
	failed []Failure
}

// step reads one narinfo, unless has says that it need not.
func (w *walk) step(ctx context.Context, hash string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	have, err := w.has(ctx, hash)
	if err != nil {
		return err
	}
	var info *narinfo.Info
	if !have {
		info, err = w.from.Info(ctx, hash)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case have:
		w.there++
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, fs.ErrNotExist):
		w.failed = append(w.failed, Failure{w.seen[hash], "the source has no such path"})
	case err != nil:
		w.failed = append(w.failed, Failure{w.seen[hash], err.Error()})
	default:
		w.add(info)
	}
	progress.Report(ctx, "narinfos read", int64(len(w.infos)+w.there+len(w.failed)), 0)
	return nil
}

// add takes a narinfo in; what it refers to comes next.
func (w *walk) add(info *narinfo.Info) {
	w.infos = append(w.infos, info)
	for _, ref := range info.References {
		if _, known := w.seen[ref.Hash()]; !known {
			w.seen[ref.Hash()] = ref.In(info.StoreDir)
			w.next = append(w.next, ref.Hash())
		}
	}
}

// Chain is several sources: what one lacks is taken from the next.
type Chain []Source

// Info implements Source.
func (c Chain) Info(ctx context.Context, hash string) (*narinfo.Info, error) {
	for _, s := range c {
		if info, err := s.Info(ctx, hash); !errors.Is(err, fs.ErrNotExist) {
			return info, err
		}
	}
	return nil, fmt.Errorf("%s.narinfo: %w", hash, fs.ErrNotExist)
}

// NAR implements Source: it is in the first that has the path.
func (c Chain) NAR(ctx context.Context, info *narinfo.Info) (io.ReadCloser, error) {
	for _, s := range c {
		if _, err := s.Info(ctx, info.Path.Hash()); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return s.NAR(ctx, info)
	}
	return nil, fmt.Errorf("%s: %w", info.URL, fs.ErrNotExist)
}

// Trusted is a source of which only what one of Keys has signed is taken.
type Trusted struct {
	Source
	Keys []signing.PublicKey
}

// Info implements Source.
func (t Trusted) Info(ctx context.Context, hash string) (*narinfo.Info, error) {
	info, err := t.Source.Info(ctx, hash)
	if err != nil {
		return nil, err
	}
	if _, ok := signing.VerifyAny(info.AppendFingerprint(nil), info.Sigs, t.Keys); !ok {
		return nil, errors.New("none of the trusted keys has signed it")
	}
	return info, nil
}
