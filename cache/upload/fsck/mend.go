package fsck

import (
	"context"
	"errors"
	"io/fs"
	"slices"

	"narwharf/cache/upload"
	"narwharf/narinfo"
)

// Mend gets a NAR file anew that is damaged or gone, for the path that names it: from
// another file with its NAR, or from the local store by fetch. The damaged file goes to
// quarantine. Nothing is taken away unless there is another; then the path stays as it
// is, and mended is false.
func Mend(ctx context.Context, store *upload.Store, fetch func(ctx context.Context, p narinfo.Path) error, hash, name string) (mended bool, err error) {
	c := &fsck{store: store, ctx: ctx}
	r, err := store.Index.Get(hash)
	if err != nil {
		return false, err
	}
	if slices.Contains(r.Alternates, name) {
		if err := c.dropAlternate(hash, name); err != nil {
			return false, err
		}
		return true, c.putAway(name)
	}
	if r.Info.URL != name {
		return true, nil // somebody was faster
	}
	if mended, err = c.fromAlternate(r); mended || err != nil {
		return mended, errors.Join(err, c.putAway(name))
	}
	info, err := store.Local.Info(ctx, hash)
	if err != nil || info.Path != r.Info.Path || info.NarHash != r.Info.NarHash {
		return false, nil //nolint:nilerr // it is nowhere else, or that cannot be said now
	}
	if err := c.putAway(name); err != nil {
		return false, err
	}
	if err := fetch(ctx, r.Info.Path); err != nil {
		return false, err
	}
	now, err := store.Index.Get(hash)
	if err != nil {
		return false, err
	}
	_, err = store.Files.Stat(now.Info.URL)
	return err == nil, err
}

// putAway moves a NAR file to quarantine, if it is there.
func (c *fsck) putAway(name string) error {
	st, err := c.store.Files.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return c.store.Quarantine(st)
}
