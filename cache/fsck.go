package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	"narwharf/cache/nar"
	"narwharf/cache/narfile"
	"narwharf/cache/refusal"
	"narwharf/narinfo"
)

// FsckOptions say what Fsck may do.
type FsckOptions struct {
	// Repair moves damaged files to the folder "quarantine", so that the
	// next `nix copy` uploads them anew, and puts the index right. Nothing
	// is deleted but NARs that Sweep would delete too.
	Repair bool
	// Report gets a line for each finding, and a summary. Calls do not overlap.
	Report func(line string)
}

// FsckResult counts what was found.
type FsckResult struct {
	Paths, Nars int64 // narinfos and NAR files looked at
	Damage      int64 // findings that were not repaired
	Repaired    int64
	Pending     int64 // NARs waiting for their narinfo, which is no damage
}

// quarantineDir is where repair moves files; a NAR keeps its own name there.
const quarantineDir = "quarantine"

// Fsck reads everything and checks it: each NAR's own hash and form, each
// narinfo against its NAR and its references, the index against the files,
// nothing without an owner. It runs beside reads and uploads. It returns an
// error only if it could not look.
func (u *Uploads) Fsck(ctx context.Context, opts FsckOptions) (FsckResult, error) {
	c := &fsck{u: u, opts: opts}
	var one sync.Mutex
	c.opts.Report = func(line string) {
		one.Lock()
		defer one.Unlock()
		opts.Report(line)
	}
	// NARs first: a narinfo whose NAR turned out bad is found right after.
	if err := c.nars(ctx); err != nil {
		return c.result(), err
	}
	if err := c.infos(ctx); err != nil {
		return c.result(), err
	}
	if err := c.orphans(ctx); err != nil {
		return c.result(), err
	}
	if err := c.named(ctx); err != nil {
		return c.result(), err
	}
	r := c.result()
	line := fmt.Sprintf("%d paths, %d NAR files: ", r.Paths, r.Nars)
	if r.Damage == 0 {
		line += "clean"
	} else {
		line += fmt.Sprintf("%d damaged", r.Damage)
	}
	if r.Repaired > 0 {
		line += fmt.Sprintf(", %d repaired (files moved to %s)", r.Repaired, quarantineDir)
	}
	if r.Pending > 0 {
		line += fmt.Sprintf("; %d NARs wait for their narinfo", r.Pending)
	}
	opts.Report(line)
	return r, nil
}

type fsck struct {
	u    *Uploads
	opts FsckOptions

	paths, narFiles, damage, repaired, pending atomic.Int64
}

func (c *fsck) result() FsckResult {
	return FsckResult{c.paths.Load(), c.narFiles.Load(), c.damage.Load(), c.repaired.Load(), c.pending.Load()}
}

// found reports a finding. With Repair, fix is run; it is nil where nothing
// can be done here, and the text says what a person can do.
func (c *fsck) found(what, text string, fix func() error) {
	if !c.opts.Repair || fix == nil {
		c.damage.Add(1)
		c.opts.Report("damaged: " + what + ": " + text)
		return
	}
	if err := fix(); err != nil {
		c.damage.Add(1)
		c.opts.Report("damaged: " + what + ": " + text + "; repair failed: " + err.Error())
		return
	}
	c.repaired.Add(1)
	c.opts.Report("repaired: " + what + ": " + text)
}

// nars reads every NAR file.
func (c *fsck) nars(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	err := c.u.blobs.List("nar", func(st blob.Info) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		g.Go(func() error { return c.nar(st) })
		return nil
	})
	return errors.Join(g.Wait(), err)
}

func (c *fsck) nar(st blob.Info) error {
	c.narFiles.Add(1)
	file := strings.TrimPrefix(st.Name, "nar/")
	if !narfile.Grammar.MatchString(file) {
		c.found(st.Name, "is not named like a NAR", func() error {
			defer c.u.locks.Lock(st.Name)()
			return c.u.quarantine(st.Name)
		})
		return nil
	}
	f, err := c.u.inspect(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // swept meanwhile
	}
	if refusal.In(err) != nil {
		c.found(st.Name, strings.TrimPrefix(err.Error(), st.Name+": "), func() error { return c.quarantineDamaged(file) })
		return nil
	}
	if err != nil {
		// Not a word about the bytes: too many open files, or a dying disk.
		// Moving the file would at best not help.
		c.found(st.Name, "cannot be read: "+err.Error(), nil)
		return nil
	}
	users, err := c.u.index.Users(st.Name)
	if err != nil {
		return err
	}
	for _, hash := range users {
		r, err := c.u.index.Get(hash)
		if errors.Is(err, index.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if r.Info.URL == st.Name {
			if err := agree(r.Info, f); err != nil {
				c.found(hash+".narinfo", err.Error(), func() error { return c.dropInfo(hash) })
			}
		} else if f.NarHash != r.Info.NarHash || f.NarSize != r.Info.NarSize {
			c.found(hash+".narinfo", "the index has "+st.Name+" as another file of its NAR, and it holds another", func() error {
				return c.dropAlternate(hash, st.Name)
			})
		}
	}
	return nil
}

// infos checks every narinfo file and every record of the index.
func (c *fsck) infos(ctx context.Context) error {
	files, err := c.u.infoFiles()
	if err != nil {
		return err
	}
	for hash := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		c.paths.Add(1)
		if err := c.info(hash); err != nil {
			return err
		}
	}
	var lost []string
	err = c.u.index.Each(func(r *index.Record) error {
		if _, there := files[r.Info.Path.Hash()]; !there {
			lost = append(lost, r.Info.Path.Hash())
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, hash := range lost {
		name := hash + ".narinfo"
		if _, err := c.u.blobs.Stat(name); err == nil {
			continue // uploaded since we listed
		}
		c.found(name, "the index has it and the file is gone", func() error {
			defer c.lock(hash)()
			if _, err := c.u.blobs.Stat(name); err == nil {
				return nil
			}
			return c.removeInfo(hash)
		})
	}
	for hash := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.references(hash); err != nil {
			return err
		}
	}
	return nil
}

// info checks one narinfo. Findings are made under the path's lock, so that an
// upload at work is never taken for damage.
func (c *fsck) info(hash string) error {
	defer c.lock(hash)()
	name := hash + ".narinfo"
	info, err := c.u.loadInfo(hash)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		c.found(name, err.Error(), func() error { return c.restoreInfo(hash) })
		return nil
	}
	r, err := c.u.index.Get(hash)
	if err != nil && !errors.Is(err, index.ErrNotFound) {
		return err
	}
	switch {
	case err != nil:
		c.found(name, "is not in the index", func() error {
			return c.u.index.Put(&index.Record{Info: info, Uploaded: time.Now()})
		})
	case string(r.Info.Append(nil)) != string(info.Append(nil)):
		c.found(name, "differs from the index", func() error { return c.settle(r, info) })
		if c.opts.Repair {
			if info, err = c.u.loadInfo(hash); err != nil {
				return nil // what settle could not do was reported
			}
		}
	}
	st, err := c.u.blobs.Stat(info.URL)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.found(name, info.URL+" is missing", func() error { return c.dropInfoLocked(hash) })
		return nil
	case err != nil:
		return err
	case info.FileSize != 0 && st.Size != info.FileSize:
		c.found(name, fmt.Sprintf("%s has %d bytes and should have %d", info.URL, st.Size, info.FileSize), func() error { return c.dropInfoLocked(hash) })
		return nil
	}
	return nil
}

// references looks for what paths refer to and the cache has not. It comes
// after every repair that takes a path out.
func (c *fsck) references(hash string) error {
	if c.u.opts.AllowIncomplete {
		return nil
	}
	defer c.lock(hash)()
	name := hash + ".narinfo"
	info, err := c.u.loadInfo(hash)
	if err != nil {
		return nil // gone, or reported before
	}
	for _, ref := range info.References {
		if ref == info.Path {
			continue
		}
		if _, err := c.u.index.Get(ref.Hash()); errors.Is(err, index.ErrNotFound) {
			err := c.u.hasLocal(ref) // KeepWhole will adopt it
			if err == nil {
				continue
			}
			if !errors.Is(err, fs.ErrNotExist) {
				return err
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
	return c.u.blobs.List("nar", func(st blob.Info) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		users, err := c.u.index.Users(st.Name)
		if err != nil || len(users) > 0 {
			return err
		}
		// Twice the grace: the sweeper had its turn and left it.
		if time.Since(st.ModTime) <= 2*c.u.opts.NarGrace {
			c.pending.Add(1)
			return nil
		}
		c.found(st.Name, "no narinfo names it", func() error {
			_, err := c.u.sweepOne(st.Name, time.Now())
			return err
		})
		return nil
	})
}

// lock takes what a change of a path needs: Rebuild must not be at work.
func (c *fsck) lock(hash string) (unlock func()) {
	c.u.gate.RLock()
	free := c.u.locks.Lock(hash)
	return func() {
		free()
		c.u.gate.RUnlock()
	}
}

// named checks the small files: a listing belongs to a path and is well formed.
func (c *fsck) named(ctx context.Context) error {
	return c.u.blobs.List("", func(st blob.Info) error {
		hash, ok := strings.CutSuffix(st.Name, ".ls")
		if !ok || ctx.Err() != nil {
			return ctx.Err()
		}
		remove := func() error { return c.u.blobs.Remove(st.Name) }
		if _, err := c.u.index.Get(hash); errors.Is(err, index.ErrNotFound) {
			c.found(st.Name, "is a listing of no path", remove)
			return nil
		} else if err != nil {
			return err
		}
		text, err := blob.ReadFile(c.u.blobs, st.Name, st.Size)
		if err == nil {
			_, err = nar.ParseListing(text)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			c.found(st.Name, err.Error(), remove)
		}
		return nil
	})
}

// quarantine moves a file out of the way. The caller holds its lock.
func (u *Uploads) quarantine(name string) error {
	st, err := u.keep(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if strings.HasPrefix(name, "nar/") {
		return u.removeNar(st)
	}
	return u.blobs.Remove(name)
}

// keep copies a file to where repair puts them, for a person to look at.
func (u *Uploads) keep(name string) (blob.Info, error) {
	in, err := u.blobs.Open(name)
	if err != nil {
		return blob.Info{}, err
	}
	defer in.Close()
	out, err := u.blobs.Create(quarantineDir+"/"+name, in.Size)
	if err != nil {
		return blob.Info{}, err
	}
	defer out.Abort()
	if _, err := io.Copy(out, in.Content); err != nil {
		return blob.Info{}, err
	}
	return in.Info, out.Commit()
}

// quarantineDamaged moves a NAR file away, unless an upload has mended it since
// it was looked at.
func (c *fsck) quarantineDamaged(file string) error {
	defer c.u.locks.Lock("nar/" + file)()
	if _, err := c.u.inspect(file); err == nil {
		return nil
	}
	return c.u.quarantine("nar/" + file)
}

// restoreInfo puts what the index knows in the place of a narinfo file that
// cannot be read: the path stays, and so do those that refer to it.
func (c *fsck) restoreInfo(hash string) error {
	r, err := c.u.index.Get(hash)
	if err != nil {
		return c.dropInfoLocked(hash)
	}
	// Never without a file in between: that would mean the path is gone.
	if _, err := c.u.keep(hash + ".narinfo"); err != nil {
		return err
	}
	return blob.WriteFile(c.u.blobs, hash+".narinfo", r.Info.Append(nil))
}

// settle decides between a narinfo file and the index where they differ. The
// file is the truth, if its NAR says so too; else the index stays, whose
// record was checked against the NAR when it was made.
func (c *fsck) settle(r *index.Record, info *narinfo.Info) error {
	hash := r.Info.Path.Hash()
	f, err := c.u.inspect(strings.TrimPrefix(info.URL, "nar/"))
	if err != nil || agree(info, f) != nil {
		return c.restoreInfo(hash)
	}
	next := *r
	next.Info, next.Alternates = info, without(r.Alternates, info.URL)
	defer c.u.changed(hash)
	return c.u.index.Put(&next)
}

func (c *fsck) dropInfo(hash string) error {
	defer c.lock(hash)()
	return c.dropInfoLocked(hash)
}

// dropInfoLocked takes a path out of the cache: whoever has it uploads it
// again, since its narinfo is now missing. Another encoding of its NAR takes
// the place of a lost one.
func (c *fsck) dropInfoLocked(hash string) error {
	if r, err := c.u.index.Get(hash); err == nil {
		if healed, err := c.fromAlternate(r); healed || err != nil {
			return err
		}
	}
	return c.removeInfo(hash)
}

// removeInfo takes a path out of the cache.
func (c *fsck) removeInfo(hash string) error {
	if err := c.u.quarantine(hash + ".narinfo"); err != nil {
		return err
	}
	defer c.u.changed(hash)
	if err := c.u.index.Delete(hash); err != nil {
		return err
	}
	return c.u.blobs.Remove(hash + ".ls") // last: see makeListing
}

// fromAlternate makes a record whose NAR is lost use another file of it.
func (c *fsck) fromAlternate(r *index.Record) (bool, error) {
	for _, name := range r.Alternates {
		f, err := c.u.inspect(strings.TrimPrefix(name, "nar/"))
		if err != nil || f.NarHash != r.Info.NarHash || f.NarSize != r.Info.NarSize {
			continue
		}
		next := *r
		next.Info = r.Info.Clone()
		next.Info.URL, next.Info.Compression = name, f.Compression
		next.Info.FileHash, next.Info.FileSize = f.FileHash, f.FileSize
		next.Alternates = without(r.Alternates, name)
		return true, c.u.store(&next, r)
	}
	return false, nil
}

// dropAlternate takes a file off the list of those with the NAR of a path.
func (c *fsck) dropAlternate(hash, name string) error {
	defer c.lock(hash)()
	r, err := c.u.index.Get(hash)
	if err != nil {
		return err
	}
	next := *r
	next.Alternates = without(r.Alternates, name)
	return c.u.index.Put(&next)
}

// without copies list less one name.
func without(list []string, name string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == name })
}
