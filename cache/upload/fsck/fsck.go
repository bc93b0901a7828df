// Package fsck checks every byte of a cache while it is in use, and repairs what it
// can: each NAR's own hash and form, each narinfo against its NAR and its references,
// the index against the files, and that nothing lies about without an owner.
package fsck

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"narwharf/cache/upload"
)

// Options say what Run may do.
type Options struct {
	// Repair moves damaged files to the folder "quarantine", so that the
	// next `nix copy` uploads them anew, and puts the index right. Nothing
	// is deleted but NARs that Sweep would delete too.
	Repair bool
	// Report gets a line for each finding, and a summary. Calls do not overlap.
	Report func(line string)
}

// Result counts what was found.
type Result struct {
	Paths, Nars int64 // narinfos and NAR files looked at
	Damage      int64 // findings that were not repaired
	Repaired    int64
	Pending     int64 // NARs waiting for their narinfo, which is no damage
}

// Run reads everything and checks it. It runs beside reads and uploads, and returns
// an error only if it could not look.
func Run(ctx context.Context, store *upload.Store, opts Options) (Result, error) {
	c := &fsck{store: store, opts: opts}
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
	if err := c.listings(ctx); err != nil {
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
		line += fmt.Sprintf(", %d repaired (files moved to %s)", r.Repaired, upload.QuarantineDir)
	}
	if r.Pending > 0 {
		line += fmt.Sprintf("; %d NARs wait for their narinfo", r.Pending)
	}
	opts.Report(line)
	return r, nil
}

type fsck struct {
	store *upload.Store
	opts  Options

	paths, narFiles, damage, repaired, pending atomic.Int64
}

func (c *fsck) result() Result {
	return Result{c.paths.Load(), c.narFiles.Load(), c.damage.Load(), c.repaired.Load(), c.pending.Load()}
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
