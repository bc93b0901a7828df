// Package collector answers the API about what a cache keeps: it is the retain.Collector of
// a server, made of its cache and its roots.
package collector

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"narwharf/cache/retention"
	"narwharf/cache/state/progress"
	"narwharf/cache/stored"
	"narwharf/hooks/api"
	wire "narwharf/hooks/api/retention"
	"narwharf/hooks/serverconfig"
	"narwharf/narinfo"
)

// maxListed is how many paths a plan names.
const maxListed = 1000

// Policy is what the configuration says of what is kept.
func Policy(r *serverconfig.Retention) retention.Policy {
	return retention.Policy{
		Grace: time.Duration(r.Grace), Lease: time.Duration(r.Lease), MaxAge: time.Duration(r.MaxAge),
		MaxSize: int64(r.MaxSize), MinFree: int64(r.MinFree), Interval: time.Duration(r.Interval),
	}
}

// Roots says what has to stay.
type Roots interface {
	// Settle makes it true now.
	Settle(ctx context.Context) error
	// Note writes a line into the audit log.
	Note(ctx context.Context, e api.Event) error
}

// Collector is a retain.Collector. Roots are settled before they are looked at.
type Collector struct {
	cache *stored.Cache
	roots func() Roots
	ctx   context.Context // ends collections
	stop  context.CancelFunc

	mu      sync.Mutex
	running *wire.Running // what somebody asked for, nil if nothing
	failed  *wire.Result  // what could not even begin, nil if the last could
	work    sync.WaitGroup
}

// New makes a Collector of a cache. roots are asked for when they are needed, since they ask
// the Collector, too.
func New(cache *stored.Cache, roots func() Roots) *Collector {
	c := &Collector{cache: cache, roots: roots}
	c.ctx, c.stop = context.WithCancel(context.Background())
	return c
}

// Run collects once in an interval, until ctx ends, and then ends what somebody asked for. The
// log says at its beginning how much room there is, and at each collection.
func (c *Collector) Run(ctx context.Context) {
	if free, known, err := c.Free(); known && err == nil {
		c.cache.Collector.Log.Info("room for uploads", "bytes", max(free, 0))
	}
	c.cache.Collector.Run(ctx, c.roots())
	<-ctx.Done()
	c.stop()
	c.work.Wait()
}

// Plan implements retain.Collector.
func (c *Collector) Plan(ctx context.Context, early bool) (*wire.Plan, error) {
	if err := c.roots().Settle(ctx); err != nil {
		return nil, err
	}
	p, err := c.cache.Collector.Plan(ctx, retention.Request{All: true, Early: early, List: maxListed})
	if err != nil {
		return nil, err
	}
	plan := &wire.Plan{
		At: p.At, Waits: p.Waits, Uploads: wire.Sum(p.Uploads), Kept: wire.Sum(p.Kept), Young: wire.Sum(p.Young), Loose: wire.Sum(p.Loose),
		Going: sums(p.Going), GraceYields: p.GraceYields, Over: p.Over, Paths: make([]wire.Going, len(p.Paths)), More: p.More,
		Size: p.Size, MaxSize: p.MaxSize, Free: p.Free, MinFree: p.MinFree,
	}
	for i, g := range p.Paths {
		plan.Paths[i] = wire.Going{Path: c.full(g.Path), Bytes: g.Bytes, Used: g.Used, Reason: string(g.Reason)}
	}
	return plan, nil
}

func sums(of map[retention.Reason]retention.Sum) map[string]wire.Sum {
	all := make(map[string]wire.Sum)
	for reason, sum := range of {
		all[string(reason)] = wire.Sum(sum)
	}
	return all
}

// full is a path with the store directory.
func (c *Collector) full(p narinfo.Path) string { return p.In(c.cache.Uploads.StoreDir) }

// Collect implements retain.Collector.
func (c *Collector) Collect(ctx context.Context, early bool, by string) (*wire.Status, error) {
	words := ""
	if early {
		words = ", though it is not known yet what was of use"
	}
	if err := c.roots().Note(ctx, api.Event{Kind: "gc.asked", By: by, Text: "asked for a collection" + words}); err != nil {
		return nil, err
	}
	c.mu.Lock()
	if c.running == nil {
		c.running = &wire.Running{Began: time.Now().UTC(), By: by, Step: "waiting for another collection"}
		c.work.Go(func() { c.collect(early) })
	}
	c.mu.Unlock()
	return c.Status(ctx)
}

// collect is a collection that somebody asked for. It waits for one that runs.
func (c *Collector) collect(early bool) {
	ctx := progress.With(c.ctx, func(s progress.Step) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.running.Step, c.running.Done, c.running.Total = s.Name, s.Done, s.Total
	})
	began := time.Now().UTC()
	err := c.roots().Settle(ctx)
	for err == nil {
		if _, err = c.cache.Collector.Collect(ctx, retention.Request{All: true, Early: early}); !errors.Is(err, retention.ErrBusy) {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
			err = nil
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running, c.failed = nil, nil
	if err != nil {
		c.failed = &wire.Result{Began: began, Ended: time.Now().UTC(), Error: err.Error(), Gone: map[string]wire.Sum{}}
	}
}

// Status implements retain.Collector.
func (c *Collector) Status(ctx context.Context) (*wire.Status, error) {
	st := new(wire.Status)
	c.mu.Lock()
	if c.running != nil {
		running := *c.running
		st.Running = &running
	}
	failed := c.failed
	c.mu.Unlock()
	r, err := c.cache.Collector.Last(ctx)
	if err != nil {
		return nil, err
	}
	if r != nil {
		st.Last = &wire.Result{
			Began: r.Began, Ended: r.Ended, Success: r.Success, Error: r.Error, Waits: r.Waits, Uploads: wire.Sum(r.Uploads), Kept: wire.Sum(r.Kept), Young: wire.Sum(r.Young),
			Gone: sums(r.Gone), Bytes: r.Bytes, Stayed: r.Stayed, Packed: r.Packed, GraceYielded: r.GraceYielded, Over: r.Over,
			Size: r.Size, MaxSize: r.MaxSize, Free: r.Free, MinFree: r.MinFree,
		}
	}
	if failed != nil && (st.Last == nil || failed.Ended.After(st.Last.Ended)) {
		if st.Last != nil {
			failed.Success = st.Last.Success
		}
		st.Last = failed
	}
	return st, nil
}

// Why implements retain.Collector.
func (c *Collector) Why(ctx context.Context, path narinfo.Path) (*wire.Why, error) {
	if err := c.roots().Settle(ctx); err != nil {
		return nil, err
	}
	w, err := c.cache.Collector.Why(ctx, path)
	if err != nil {
		return nil, err
	}
	why := &wire.Why{Path: c.full(path), Bytes: w.Bytes, Used: w.Used, GraceUntil: w.GraceUntil, Roots: make([]wire.Chain, len(w.Roots)), More: w.More}
	for i, chain := range w.Roots {
		why.Roots[i] = wire.Chain{Owner: chain.Owner}
		for _, p := range chain.Paths {
			why.Roots[i].Paths = append(why.Roots[i].Paths, c.full(p))
		}
	}
	info, at, by, err := c.cache.Info(path.Hash())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return why, nil
	case err != nil:
		return nil, err
	}
	why.Path, why.Here, why.Uploaded, why.By = c.full(info.Path), wire.LocalStore, &at, by
	switch {
	case w.Uploaded:
		why.Here = wire.Upload
	case !c.local(ctx, path.Hash()):
		why.Here, why.Uploaded = wire.Upstream, nil
	}
	return why, nil
}

// local tells whether the store of this machine has a path.
func (c *Collector) local(ctx context.Context, hash string) bool {
	if c.cache.Local == nil {
		return false
	}
	_, err := c.cache.Local.Info(ctx, hash)
	return err == nil
}

// Usage implements retain.Collector.
func (c *Collector) Usage(ctx context.Context, channel string) (*wire.Usage, error) {
	if err := c.roots().Settle(ctx); err != nil {
		return nil, err
	}
	u, err := c.cache.Collector.Usage(ctx, channel)
	if err != nil {
		return nil, err
	}
	usage := &wire.Usage{Of: make([]wire.Share, len(u.Of)), Loose: wire.Sum(u.Loose), Uploads: wire.Sum(u.Uploads), Leaning: wire.Sum(u.Leaning), Size: u.Size}
	if packed := c.cache.Packed(); packed != nil {
		usage.Packed.Paths, usage.Packed.Bytes = packed.Kept()
	}
	for i, s := range u.Of {
		usage.Of[i] = wire.Share{Name: s.Name, Own: wire.Sum(s.Own), Shared: wire.Sum(s.Shared), Total: wire.Sum(s.Total)}
	}
	return usage, nil
}

// Delete implements retain.Collector.
func (c *Collector) Delete(ctx context.Context, hash, by string) (*wire.Deleted, error) {
	if err := c.roots().Settle(ctx); err != nil {
		return nil, err
	}
	if _, err := c.cache.Uploads.Index.Get(hash); err != nil {
		if c.local(ctx, hash) {
			return nil, api.Errorf(api.NotFound, "%s is no upload: the store of the server's machine has it, and what is there is for nix-collect-garbage", hash)
		}
		return nil, api.Errorf(api.NotFound, "%s is not here", hash)
	}
	gone, err := c.cache.Uploads.Collect(ctx, []string{hash}, nil)
	if err != nil {
		return nil, err
	}
	if len(gone) == 0 {
		return nil, c.kept(ctx, hash)
	}
	d := &wire.Deleted{Path: c.full(gone[0].Path), Freed: gone[0].Freed, Local: c.local(ctx, hash)}
	return d, c.roots().Note(context.WithoutCancel(ctx), api.Event{Kind: "path.deleted", By: by, Text: "deleted " + d.Path})
}

// kept says what keeps a path that was to be deleted.
func (c *Collector) kept(ctx context.Context, hash string) error {
	info, _, _, err := c.cache.Info(hash)
	if err != nil {
		return err
	}
	w, err := c.cache.Collector.Why(ctx, info.Path)
	if err != nil {
		return err
	}
	path := c.full(info.Path)
	if n := len(w.Roots); n > 0 {
		more := ""
		if n+w.More > 1 {
			more = fmt.Sprintf(" and %d more", n+w.More-1)
		}
		return api.Errorf(api.InUse, "%s is kept by %s%s: narwharf why %[1]s shows how", path, w.Roots[0].Owner, more)
	}
	referrers, err := c.cache.Uploads.Index.Referrers(hash)
	if err != nil {
		return err
	}
	for _, r := range referrers {
		if other, _, _, err := c.cache.Info(r); err == nil && r != hash {
			return api.Errorf(api.InUse, "%s refers to %s: delete that first, or leave both to narwharf gc", c.full(other.Path), path)
		}
	}
	used := ""
	if w.Used != nil {
		used = ", at " + w.Used.Format(time.RFC3339)
	}
	return api.Errorf(api.InUse, "somebody who may upload was just told that %s is here%s, and may go by that: try again when retention.lease is over", path, used)
}
