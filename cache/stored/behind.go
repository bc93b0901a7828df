package stored

import (
	"context"
	"errors"
	"io/fs"

	"narwharf/cache/local"
	"narwharf/cache/local/compress"
	"narwharf/cache/retention"
	"narwharf/cache/upstream"
	"narwharf/narinfo"
)

// behind is what stands behind the uploads: the machine's own store, then the upstreams. It
// is an upload.LocalStore.
type behind struct {
	own *local.Store // nil if it is not served
	ups *upstream.Upstreams
}

// Behind is what uploads ask of a store and of upstreams. Both may be nil.
func Behind(own *local.Store, ups *upstream.Upstreams) behind {
	return behind{own, ups}
}

// Info returns what is known of a path.
func (b behind) Info(ctx context.Context, hash string) (*narinfo.Info, error) {
	if b.own != nil {
		info, err := b.own.Info(ctx, hash)
		if !errors.Is(err, fs.ErrNotExist) {
			return info, err
		}
	}
	p, err := b.ups.Find(ctx, hash)
	if err != nil {
		return nil, err
	}
	return p.Info, nil
}

// marked is what a collection asks of both: of upstreams, only what we lean on.
type marked struct{ behind }

// Info returns what the store has, or what we lean on.
func (m marked) Info(ctx context.Context, hash string) (*narinfo.Info, error) {
	if m.own != nil {
		info, err := m.own.Info(ctx, hash)
		if !errors.Is(err, fs.ErrNotExist) {
			return info, err
		}
	}
	l, err := m.ups.Leaning(ctx, hash)
	switch {
	case err != nil:
		return nil, err
	case l == nil || !l.Lost.IsZero():
		return nil, fs.ErrNotExist
	}
	return l.Info, nil
}

// Leaning is what a collection can tell of upstreams.
func Leaning(ups *upstream.Upstreams) retention.Leaning { return marked{behind{ups: ups}} }

// Leans is what we lean on for a path.
func (m marked) Leans(ctx context.Context, hash string) (from string, narSize int64, err error) {
	l, err := m.ups.Leaning(ctx, hash)
	if err != nil || l == nil || !l.Lost.IsZero() {
		return "", 0, err
	}
	return l.From, l.Info.NarSize, nil
}

// Hold keeps a path in the store, or notes that we lean on an upstream for it.
func (b behind) Hold(ctx context.Context, p narinfo.Path) (held bool, err error) {
	if b.own != nil {
		held, err = b.own.Hold(ctx, p)
		if !errors.Is(err, fs.ErrNotExist) {
			return held, err
		}
	}
	leans, err := b.ups.Lean(ctx, p.Hash())
	if err == nil && leans.Info.Path != p {
		err = fs.ErrNotExist
	}
	return err == nil, err
}

// MakeRoom deletes packed copies.
func (b behind) MakeRoom(n int64) (freed int64) {
	if packed := b.packed(); packed != nil {
		return packed.MakeRoom(n)
	}
	return 0
}

// packed keeps the packed copies of both, which is one store; nil if there is none.
func (b behind) packed() *compress.Store {
	switch {
	case b.own != nil:
		return b.own.Compressed
	case b.ups != nil:
		return b.ups.Packed
	}
	return nil
}
