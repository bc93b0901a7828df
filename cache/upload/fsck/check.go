package fsck

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"narwharf/cache/blob"
	"narwharf/cache/index"
	"narwharf/cache/nar"
	"narwharf/cache/state/progress"
	"narwharf/cache/upload"
	"narwharf/narinfo"
)

// infos checks every narinfo file and every record of the index.
func (c *fsck) infos(ctx context.Context) error {
	files, err := upload.InfoFiles(c.store.Files)
	if err != nil {
		return err
	}
	err = eachOf(ctx, files, func(hash string) error {
		progress.Report(ctx, "narinfos checked", c.paths.Add(1), int64(len(files)))
		info, err := c.info(hash)
		if err == nil && info != nil {
			err = c.narOf(info)
		}
		return err
	})
	if err != nil {
		return err
	}
	var lost []string
	err = c.store.Index.Each(func(hash string, _ *index.Record, err error) error {
		if _, there := files[hash]; !there && err == nil {
			lost = append(lost, hash)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, hash := range lost {
		c.lostInfo(hash)
	}
	return eachOf(ctx, files, c.references)
}

// readers are how many narinfos are looked at at once: a bucket answers each after some milliseconds.
const readers = 32

// eachOf calls fn for each of the narinfo files, several at a time.
func eachOf(ctx context.Context, files map[string]time.Time, fn func(hash string) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(readers)
	for hash := range files {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return fn(hash)
		})
	}
	return g.Wait()
}

// lostInfo checks a path of the index that had no narinfo file when they were listed.
func (c *fsck) lostInfo(hash string) {
	name := hash + ".narinfo"
	gone := func() bool { _, err := c.store.Files.Stat(name); return errors.Is(err, fs.ErrNotExist) }
	if _, err := c.store.Files.Stat(name); err == nil {
		return // uploaded since
	}
	if _, err := c.store.Index.Get(hash); errors.Is(err, index.ErrNotFound) {
		return // collected since
	}
	c.found(name, "the index has it and the file is gone", func() error {
		if r, err := c.store.Index.Get(hash); err == nil && len(c.opts.Needed(r.Info.Path)) > 0 {
			return c.restoreInfo(hash)
		}
		return c.removeInfo(hash, gone)
	})
}

// info checks one narinfo and returns it, nil if there is none that can be read.
// Findings are made under the path's lock, so that an upload at work is never taken
// for damage.
func (c *fsck) info(hash string) (*narinfo.Info, error) {
	defer c.store.LockPath(hash)()
	name := hash + ".narinfo"
	info, err := c.store.LoadInfo(hash)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		c.found(name, err.Error(), func() error { return c.restoreInfo(hash) })
		return nil, nil
	}
	r, err := c.store.Index.Get(hash)
	if err != nil && !errors.Is(err, index.ErrNotFound) {
		return nil, err
	}
	switch {
	case err != nil:
		if going, err := c.goes(hash); going || err != nil {
			return nil, err
		}
		c.found(name, "is not in the index", func() error {
			return index.Put(c.store.Index, &index.Record{Info: info, Uploaded: time.Now()})
		})
	case string(r.Info.Append(nil)) != string(info.Append(nil)):
		c.found(name, "differs from the index", func() error { return c.reconcile(r, info) })
		if c.opts.Repair {
			if info, err = c.store.LoadInfo(hash); err != nil {
				return nil, nil // what reconcile could not do was reported
			}
		}
	}
	return info, nil
}

// goes tells whether a path without a record was collected: its narinfo file goes next,
// or has gone.
func (c *fsck) goes(hash string) (bool, error) {
	if going, err := c.store.Index.IsGoing(hash); going || err != nil {
		return going, err
	}
	_, err := c.store.LoadInfo(hash)
	return errors.Is(err, fs.ErrNotExist), nil
}

// narOf sees whether the NAR of a path is there.
func (c *fsck) narOf(info *narinfo.Info) error {
	bad := func() (words string, err error) {
		st, err := c.store.Files.Stat(info.URL)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if _, err := c.store.Index.Get(info.Path.Hash()); errors.Is(err, index.ErrNotFound) {
				return "", nil // the path was collected
			}
			return info.URL + " is missing", nil
		case err == nil && info.FileSize != 0 && st.Size != info.FileSize:
			return fmt.Sprintf("%s has %d bytes and should have %d", info.URL, st.Size, info.FileSize), nil
		}
		return "", err
	}
	words, err := bad()
	if words != "" {
		c.foundLost(info.Path, words, func() (bool, error) {
			return c.dropInfo(info.Path, func() bool { words, _ := bad(); return words != "" })
		})
	}
	return err
}

// references looks for what paths refer to and the cache has not. It comes
// after every repair that takes a path out.
func (c *fsck) references(hash string) error {
	if c.store.AllowIncomplete {
		return nil
	}
	defer c.store.LockPath(hash)()
	name := hash + ".narinfo"
	info, err := c.store.LoadInfo(hash)
	if err != nil {
		return nil // gone, or reported before
	}
	for _, ref := range info.References {
		if ref == info.Path {
			continue
		}
		if _, err := c.store.Index.Get(ref.Hash()); errors.Is(err, index.ErrNotFound) {
			err := upload.Has(c.store.Local, ref) // it will be adopted
			if err == nil {
				continue
			}
			if !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if _, err := c.store.Index.Get(hash); errors.Is(err, index.ErrNotFound) {
				return nil // it was collected, and then what it refers to
			}
			c.found(name, fmt.Sprintf("%s refers to %s, which is missing: upload that again with nix copy --refresh", info.Path, ref), nil)
		} else if err != nil {
			return err
		}
	}
	return nil
}

// orphans looks for NARs that no narinfo names.
func (c *fsck) orphans(ctx context.Context) error {
	return c.store.Files.List("nar", func(st blob.Info) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		users, err := c.store.Index.Users(st.Name)
		if err != nil || len(users) > 0 {
			return err
		}
		// Twice the grace: the sweeper had its turn and left it. One without a row came
		// just now, or gets one with the next start.
		row, err := c.store.Index.File(st.Name)
		if err != nil {
			return err
		}
		if row == nil || row.Age <= 2*c.store.NarGrace {
			c.pending.Add(1)
			return nil
		}
		c.found(st.Name, "no narinfo names it", func() error {
			_, err := c.store.RemoveUnnamed(st.Name, time.Now())
			return err
		})
		return nil
	})
}

// listings checks that a listing belongs to a path and is well formed.
func (c *fsck) listings(ctx context.Context) error {
	return c.store.Files.List("", func(st blob.Info) error {
		hash, ok := strings.CutSuffix(st.Name, ".ls")
		if !ok || ctx.Err() != nil {
			return ctx.Err()
		}
		remove := func() error { return c.store.Files.Remove(st.Name) }
		if _, err := c.store.Index.Get(hash); errors.Is(err, index.ErrNotFound) {
			if going, err := c.store.Index.IsGoing(hash); going || err != nil {
				return err
			}
			if _, err := c.store.Files.Stat(st.Name); err == nil {
				c.found(st.Name, "is a listing of no path", remove)
			}
			return nil
		} else if err != nil {
			return err
		}
		text, err := blob.ReadFile(c.store.Files, st.Name, st.Size)
		if err == nil {
			_, err = nar.ParseListing(text)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			c.found(st.Name, err.Error(), remove)
		}
		return nil
	})
}
