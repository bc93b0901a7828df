package fsck

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"narwharf/cache/blob"
	"narwharf/cache/index"
	"narwharf/cache/narfile"
	"narwharf/cache/refusal"
	"narwharf/cache/state/progress"
	"narwharf/cache/upload"
)

// Position is how far a run has come that was stopped. What takes long is reading the
// NARs, in the order of their names: another run goes on from there, and does the rest
// anew.
type Position struct {
	Begun time.Time `json:"begun"`
	After string    `json:"after"` // NAR files up to this one were read
	Nars  int64     `json:"nars"`  // how many those were
	// Bad are those of them that are not as they should be, to be looked at again.
	Bad []string `json:"bad,omitempty"`
}

const (
	together = 256              // NARs are read between two looks at how far it is
	pause    = 10 * time.Second // between two times that it is kept
	maxBad   = 10_000           // of a Position
	maxAge   = 7 * 24 * time.Hour
)

// nars reads every NAR file.
func (c *fsck) nars(ctx context.Context) error {
	var names []string
	var total int64
	err := c.store.Files.List("nar", func(st blob.Info) error {
		names = append(names, st.Name)
		total += st.Size
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	slices.Sort(names)
	at := Position{Begun: time.Now().UTC()}
	todo, done := names, new(atomic.Int64)
	if from := c.opts.From; from != nil && time.Since(from.Begun) < maxAge && len(from.Bad) < maxBad {
		at = *from
		i, _ := slices.BinarySearch(names, at.After+"\x00")
		c.opts.Report(fmt.Sprintf("going on from where the fsck of %s was stopped: %d of %d NAR files were read then", at.Begun.Format(time.RFC3339), at.Nars, len(names)))
		c.narFiles.Add(at.Nars - int64(len(at.Bad)))
		todo = append(slices.Clone(at.Bad), names[i:]...)
		at.Bad = nil
		for _, name := range names[:i] {
			if st, err := c.store.Files.Stat(name); err == nil {
				done.Add(st.Size)
			}
		}
	}
	kept := time.Now()
	for part := range slices.Chunk(todo, together) {
		bad, err := c.someNars(ctx, part, done, total)
		if err != nil {
			return errors.Join(err, c.opts.Save(&at))
		}
		at.Bad = append(at.Bad, bad...)
		at.After, at.Nars = max(at.After, part[len(part)-1]), c.narFiles.Load()
		if time.Since(kept) > pause {
			if err := c.opts.Save(&at); err != nil {
				return err
			}
			kept = time.Now()
		}
	}
	return c.opts.Save(&at)
}

// someNars reads NAR files, and returns those that are not as they should be.
func (c *fsck) someNars(ctx context.Context, names []string, done *atomic.Int64, total int64) (bad []string, err error) {
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, name := range names {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			st, err := c.store.Files.Stat(name)
			if errors.Is(err, fs.ErrNotExist) {
				return nil // swept meanwhile
			}
			if err != nil {
				return err
			}
			defer func() { progress.Report(ctx, "MiB of NARs checked", done.Add(st.Size)>>20, total>>20) }()
			whole, err := c.nar(st)
			if !whole {
				mu.Lock()
				defer mu.Unlock()
				bad = append(bad, name)
			}
			return err
		})
	}
	return bad, g.Wait()
}

// nar reads a NAR file and tells whether it is as it should be.
func (c *fsck) nar(st blob.Info) (whole bool, err error) {
	c.narFiles.Add(1)
	file := strings.TrimPrefix(st.Name, "nar/")
	if !narfile.Grammar.MatchString(file) {
		c.found(st.Name, "is not named like a NAR", func() error { return c.store.Quarantine(st) })
		return false, nil
	}
	f, err := upload.Inspect(c.store.Files, file)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil // swept meanwhile
	}
	if refusal.In(err) != nil {
		c.found(st.Name, strings.TrimPrefix(err.Error(), st.Name+": ")+c.usersOf(st.Name), func() error { return c.store.Quarantine(st) })
		return false, nil
	}
	if err != nil {
		// Not a word about the bytes: too many open files, or a dying disk.
		// Moving the file would at best not help.
		c.found(st.Name, "cannot be read: "+err.Error(), nil)
		return false, nil
	}
	users, err := c.store.Index.Users(st.Name)
	if err != nil {
		return false, err
	}
	whole = true
	for _, hash := range users {
		r, err := c.store.Index.Get(hash)
		if errors.Is(err, index.ErrNotFound) {
			continue
		}
		if err != nil {
			return false, err
		}
		if r.Info.URL == st.Name {
			if err := upload.Agree(r.Info, f); err != nil {
				whole = false
				c.foundLost(r.Info.Path, err.Error(), func() (bool, error) {
					return c.dropInfo(r.Info.Path, func() bool { i, err := c.store.LoadInfo(hash); return err == nil && upload.Agree(i, f) != nil })
				})
			}
		} else if f.NarHash != r.Info.NarHash || f.NarSize != r.Info.NarSize {
			whole = false
			c.found(hash+".narinfo", "the index has "+st.Name+" as another file of its NAR, and it holds another", func() error {
				return c.dropAlternate(hash, st.Name)
			})
		}
	}
	return whole, nil
}
