package retention

import (
	"context"
	"errors"
	"time"

	"narwharf/cache/index"
	"narwharf/cache/state"
	"narwharf/narinfo"
)

// Roots are kept by others: releases, hosts, pins.
type Roots interface {
	// Settle ends the roots of what fell out of its time or number, and makes those
	// that are lacking.
	Settle(ctx context.Context) error
}

// startPause is how long a server serves before it collects, and how long it waits
// before it settles the roots again.
const startPause = time.Minute

// Run settles the roots at once, and then collects once in Interval, until ctx ends. The
// roots are settled before each collection.
func (c *Collector) Run(ctx context.Context, roots Roots) {
	for !c.settle(ctx, roots) {
		if !sleep(ctx, startPause) {
			return
		}
	}
	pause := min(startPause, c.Interval)
	if last, err := c.Last(ctx); err == nil && last != nil {
		pause = max(pause, c.Interval-c.Now().Sub(last.Ended))
	}
	for pause = min(pause, c.Interval); sleep(ctx, pause); pause = c.Interval {
		c.scheduled(ctx, roots)
	}
}

// sleep returns false if ctx ends.
func sleep(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// settle settles the roots, and notes it if that fails.
func (c *Collector) settle(ctx context.Context, roots Roots) bool {
	err := roots.Settle(ctx)
	if err == nil {
		c.settled.Store(true)
		return true
	}
	if ctx.Err() != nil {
		return false
	}
	now := c.Now().UTC()
	noted := c.note(&Result{Began: now, Ended: now, Error: "settle the roots: " + err.Error(), Gone: map[Reason]Sum{}})
	c.Log.Error("no collection: the roots could not be settled", "error", errors.Join(err, noted))
	return false
}

// scheduled is a collection of Run. While another runs there is none: it does the same, and
// whoever waits for it finds its result and not one that comes right after it.
func (c *Collector) scheduled(ctx context.Context, roots Roots) {
	select {
	case c.turn <- struct{}{}:
	default:
		return
	}
	defer func() { <-c.turn }()
	if c.byAnother(ctx) || !c.settle(ctx, roots) {
		return
	}
	res, err := c.collect(ctx, Request{})
	switch {
	case ctx.Err() != nil, errors.Is(err, ErrBusy):
	case err != nil:
		c.Log.Error("a collection ended early", "paths", res.Paths(), "bytes", res.Bytes, "error", err)
	case res.Over > 0:
		c.Log.Error("the cache is over its limits, and nothing more may go: see narwharf gc --dry-run", "over", res.Over, "size", res.Size, "max_size", res.MaxSize, "free", res.Free, "min_free", res.MinFree)
	case res.Paths() > 0 || res.Packed > 0 || res.Sidecars > 0:
		c.Log.Info("collected", "paths", res.Paths(), "bytes", res.Bytes, "packed", res.Packed, "sidecars", res.Sidecars, "size", res.Size, "free", res.Free, "took", res.Ended.Sub(res.Began).Round(time.Millisecond))
	}
}

// byAnother tells whether another server has collected a short while ago.
func (c *Collector) byAnother(ctx context.Context) bool {
	if c.Alone == nil {
		return false
	}
	last, err := c.Last(ctx)
	return err == nil && last != nil && last.Error == "" && c.Now().Sub(last.Ended) < c.Interval/2
}

// sidecarPause is how often sidecars are looked at: each is opened.
const sidecarPause = 24 * time.Hour

// endSidecars removes the sidecars of what is gone, once a day or if somebody asked for
// all.
func (c *Collector) endSidecars(ctx context.Context, r Request, res *Result) error {
	if c.Sidecars == nil {
		return nil
	}
	var last time.Time
	err := c.State.View(ctx, func(tx state.Reader) error {
		v, err := tx.Get(stateBucket, keySidecars)
		last = time.Unix(int64(state.Uint64(v)), 0)
		return err
	})
	now := c.Now()
	if since := now.Sub(last); err != nil || !r.All && since >= 0 && since < sidecarPause {
		return err
	}
	if res.Sidecars, err = c.Sidecars.Sweep(ctx, present{c}, now.Add(-c.lease()), now.Add(-c.grace())); err != nil {
		return err
	}
	return c.State.Update(ctx, []string{stateBucket}, func(tx state.Tx) error {
		return tx.Put(stateBucket, keySidecars, []byte(state.Uint64Key(uint64(now.Unix()))))
	})
}

// present answers what sidecars ask.
type present struct{ c *Collector }

// Has tells whether a path is here, or in the local store.
func (p present) Has(ctx context.Context, path narinfo.Path) (bool, error) {
	r, err := p.c.Index.Get(path.Hash())
	if there, err := thereIs(r != nil, err); there || err != nil || p.c.Local == nil {
		return there, err
	}
	info, err := p.c.Local.Info(ctx, path.Hash())
	return thereIs(info != nil, err)
}

// Derivers calls fn with the deriver of each upload.
func (p present) Derivers(ctx context.Context, fn func(drv []byte)) error {
	return p.c.Index.Summaries(ctx, func(page []index.Summary) error {
		for _, s := range page {
			fn(s.Deriver)
		}
		return ctx.Err()
	})
}
