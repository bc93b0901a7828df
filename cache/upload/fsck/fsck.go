// Package fsck checks every byte of a cache while it is in use, and repairs what it
// can: each NAR's own hash and form, each narinfo against its NAR and its references,
// the index against the files, and that nothing lies about without an owner.
package fsck

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"narwharf/cache/blob"
	"narwharf/cache/upload"
	"narwharf/narinfo"
	"narwharf/narinfo/clip"
)

// Options say what Run may do.
type Options struct {
	// Repair moves damaged files to the folder "quarantine", so that the
	// next `nix copy` uploads them anew, and puts the index right. Nothing
	// is deleted but NARs that Sweep would delete too.
	Repair bool
	// Needed returns the channels that need a path, nil if none does. What they need
	// and is lost is damage, whatever is repaired.
	Needed func(p narinfo.Path) []string
	// Fetch gets the NAR of a path anew from where it still is; fs.ErrNotExist if nowhere.
	Fetch func(ctx context.Context, p narinfo.Path) error
	// Report gets a line for each finding, and a summary. Calls do not overlap.
	Report func(line string)
	// Found gets each finding, if it is not nil. Calls do not overlap.
	Found func(Finding)
	// From is where an earlier run was stopped, nil to read everything.
	From *Position
	// Save keeps how far this run has come, now and then, and nil when it has ended.
	Save func(*Position) error
}

// Finding is something that is not as it should be.
type Finding struct {
	Kind string `json:"kind"` // "damaged" or "repaired"
	What string `json:"what"` // a file of the cache
	Text string `json:"text"`
}

// Result counts what was found.
type Result struct {
	Paths    int64 `json:"paths"`  // narinfos looked at
	Nars     int64 `json:"nars"`   // NAR files looked at, by the run that this one went on from, too
	Damage   int64 `json:"damage"` // findings that were not repaired
	Repaired int64 `json:"repaired"`
	Pending  int64 `json:"pending"` // NARs waiting for their narinfo, which is no damage
	// Lost are the paths, by channel, that a channel needs and that are not here whole.
	Lost map[string][]narinfo.Path `json:"lost,omitempty"`
}

// Run reads everything and checks it. It runs beside reads and uploads, and returns
// an error only if it could not look.
func Run(ctx context.Context, store *upload.Store, opts Options) (Result, error) {
	c := &fsck{store: store, opts: opts, ctx: ctx, lost: make(map[string][]narinfo.Path)}
	if opts.Needed == nil {
		c.opts.Needed = func(narinfo.Path) []string { return nil }
	}
	if opts.Fetch == nil {
		c.opts.Fetch = func(context.Context, narinfo.Path) error { return fs.ErrNotExist }
	}
	if opts.Save == nil {
		c.opts.Save = func(*Position) error { return nil }
	}
	var one sync.Mutex
	c.opts.Report = func(line string) {
		one.Lock()
		defer one.Unlock()
		opts.Report(line)
	}
	c.opts.Found = func(f Finding) {
		c.opts.Report(f.Kind + ": " + f.What + ": " + f.Text)
		if opts.Found != nil {
			one.Lock()
			defer one.Unlock()
			opts.Found(f)
		}
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
	if err := c.listings(ctx); err != nil {
		return c.result(), err
	}
	r := c.result()
	line := clip.Count(r.Paths, "path") + ", " + clip.Count(r.Nars, "NAR file") + ": "
	if r.Damage == 0 {
		line += "clean"
	} else {
		line += fmt.Sprintf("%d damaged", r.Damage)
	}
	if r.Repaired > 0 {
		line += fmt.Sprintf(", %d repaired (files moved to %s)", r.Repaired, blob.QuarantineDir)
	}
	if r.Pending > 0 {
		line += fmt.Sprintf("; %d NARs wait for their narinfo", r.Pending)
	}
	opts.Report(line)
	return r, c.opts.Save(nil)
}

type fsck struct {
	store *upload.Store
	opts  Options
	ctx   context.Context // of the run

	mu   sync.Mutex
	lost map[string][]narinfo.Path

	paths, narFiles, damage, repaired, pending atomic.Int64
}

func (c *fsck) result() Result {
	return Result{c.paths.Load(), c.narFiles.Load(), c.damage.Load(), c.repaired.Load(), c.pending.Load(), c.lost}
}

// found reports a finding. With Repair, fix is run; it is nil where nothing
// can be done here, and the text says what a person can do.
func (c *fsck) found(what, text string, fix func() error) {
	var err error
	if c.opts.Repair && fix != nil {
		if err = fix(); err == nil {
			c.repaired.Add(1)
			c.opts.Found(Finding{"repaired", what, text})
			return
		}
		text += "; repair failed: " + err.Error()
	}
	c.damage.Add(1)
	c.opts.Found(Finding{"damaged", what, text})
}

// foundLost is found for a path whose NAR is not as its narinfo says. What a channel
// needs and is not mended is damage.
func (c *fsck) foundLost(p narinfo.Path, text string, fix func() (mended bool, err error)) {
	mended := false
	channels := c.opts.Needed(p)
	if len(channels) > 0 {
		text += "; " + string(p) + " is needed by " + strings.Join(channels, ", ")
	}
	c.found(p.Hash()+".narinfo", text, func() (err error) {
		if mended, err = fix(); err == nil && !mended && len(channels) > 0 {
			err = errors.New("the path is taken out, upload it again with nix copy --refresh")
		}
		return err
	})
	if !mended {
		c.noteLost(p, channels)
	}
}

func (c *fsck) noteLost(p narinfo.Path, channels []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range channels {
		if !slices.Contains(c.lost[name], p) {
			c.lost[name] = append(c.lost[name], p)
		}
	}
}

// usersOf says which paths a damaged NAR is of, and which channels need them. That they
// are lost shows when it is taken away.
func (c *fsck) usersOf(name string) (text string) {
	hashes, err := c.store.Index.Users(name)
	if err != nil {
		return ""
	}
	for _, hash := range hashes {
		r, err := c.store.Index.Get(hash)
		if err != nil || r.Info.URL != name {
			continue
		}
		text += "; the NAR of " + string(r.Info.Path)
		if channels := c.opts.Needed(r.Info.Path); len(channels) > 0 {
			text += ", needed by " + strings.Join(channels, ", ")
			if !c.opts.Repair {
				c.noteLost(r.Info.Path, channels)
			}
		}
	}
	return text
}
