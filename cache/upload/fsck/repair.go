package fsck

import (
	"errors"
	"io/fs"
	"slices"
	"strings"

	"narwharf/cache/blob"
	"narwharf/cache/index"
	"narwharf/cache/upload"
	"narwharf/narinfo"
)

// restoreInfo puts what the index knows in the place of a narinfo file that
// cannot be read: the path stays, and so do those that refer to it.
func (c *fsck) restoreInfo(hash string) error {
	r, err := c.store.Index.Get(hash)
	if err != nil {
		return c.removeLocked(hash, func() bool { _, err := c.store.LoadInfo(hash); return err != nil })
	}
	// Never without a file in between: that would mean the path is gone.
	if _, err := blob.Quarantine(c.store.Files, hash+".narinfo"); err != nil {
		return err
	}
	return blob.WriteFile(c.store.Files, hash+".narinfo", r.Info.Append(nil))
}

// reconcile decides between a narinfo file and the index where they differ. The
// file is the truth, if its NAR says so too; else the index stays, whose
// record was checked against the NAR when it was made.
func (c *fsck) reconcile(r *index.Record, info *narinfo.Info) error {
	hash := r.Info.Path.Hash()
	f, err := upload.Inspect(c.store.Files, strings.TrimPrefix(info.URL, "nar/"))
	if err != nil || upload.Agree(info, f) != nil {
		return c.restoreInfo(hash)
	}
	defer c.store.Changed(hash)
	return index.Put(c.store.Index, r.With(info))
}

// dropInfo mends a path whose NAR is not as the narinfo says: by another encoding of it,
// or from where it still is. Else it takes the path out of the cache: whoever has it
// uploads it again, since its narinfo is now missing.
func (c *fsck) dropInfo(p narinfo.Path, still func() bool) (mended bool, err error) {
	hash := p.Hash()
	r, err := c.store.Index.Get(hash)
	if err == nil {
		if mended, err = c.fromAlternate(r); mended || err != nil {
			return mended, err
		}
		if err := c.opts.Fetch(c.ctx, p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			c.opts.Report("cannot be fetched anew: " + string(p) + ": " + err.Error())
		}
		if now, err := c.store.Index.Get(hash); err == nil && (!still() || now.Info.URL != r.Info.URL) {
			return true, nil
		}
	}
	return false, c.removeInfo(hash, still)
}

// removeInfo takes a path out of the cache, if still says so in the index's
// transaction.
func (c *fsck) removeInfo(hash string, still func() bool) error {
	defer c.store.LockPath(hash)()
	return c.removeLocked(hash, still)
}

func (c *fsck) removeLocked(hash string, still func() bool) error {
	if _, err := blob.Quarantine(c.store.Files, hash+".narinfo"); err != nil {
		return err
	}
	defer c.store.Changed(hash)
	err := c.store.Index.Change([]string{index.PathLock(hash)}, func(tx *index.Tx) error {
		if !still() {
			return nil
		}
		if err := tx.Delete(hash); err != nil {
			return err
		}
		return c.store.Files.Remove(hash + ".narinfo")
	})
	if err != nil {
		return err
	}
	if _, err := c.store.Index.Get(hash); err == nil {
		return nil
	}
	return c.store.Files.Remove(hash + ".ls") // last: see makeListing
}

// fromAlternate makes a record whose NAR is lost use another file of it.
func (c *fsck) fromAlternate(r *index.Record) (bool, error) {
	defer c.store.LockPath(r.Info.Path.Hash())()
	for _, name := range r.Alternates {
		f, err := upload.Inspect(c.store.Files, strings.TrimPrefix(name, "nar/"))
		if err != nil || f.NarHash != r.Info.NarHash || f.NarSize != r.Info.NarSize {
			continue
		}
		info := r.Info.Clone()
		info.URL, info.Compression, info.FileHash, info.FileSize = name, f.Compression, f.FileHash, f.FileSize
		return true, c.store.Write(r.With(info), r)
	}
	return false, nil
}

// dropAlternate takes a file off the list of those with the NAR of a path.
func (c *fsck) dropAlternate(hash, name string) error {
	return c.store.Index.Change([]string{index.PathLock(hash)}, func(tx *index.Tx) error {
		r, err := tx.Record(hash)
		if err != nil {
			return err
		}
		r.Alternates = slices.DeleteFunc(r.Alternates, func(s string) bool { return s == name })
		return tx.Put(r)
	})
}
