package fsck

import (
	"context"
	"errors"
	"io/fs"
	"slices"

	"narwharf/cache/upload"
	"narwharf/narinfo"
)

// Elsewhere is where a NAR may be had beside the cache's files.
type Elsewhere interface {
	// Has tells whether the NAR of a path is there, by its hash.
	Has(ctx context.Context, info *narinfo.Info) bool
	// Fetch gets it from there.
	Fetch(ctx context.Context, p narinfo.Path) error
}

// Mend gets a NAR file anew that is damaged or gone, for the path that names it: from
// another file with its NAR, or from elsewhere. The damaged file goes to quarantine.
// Nothing is taken away unless there is another; else the path stays as it is, and mended
// is false.
func Mend(ctx context.Context, store *upload.Store, elsewhere Elsewhere, hash, name string) (mended bool, err error) {
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
	if !elsewhere.Has(ctx, r.Info) {
		return false, nil
	}
	if err := c.putAway(name); err != nil {
		return false, err
	}
	if err := elsewhere.Fetch(ctx, r.Info.Path); err != nil {
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
