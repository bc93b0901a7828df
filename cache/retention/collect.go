package retention

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"time"

	"narwharf/cache/index"
	"narwharf/cache/retention/graph"
	"narwharf/cache/state"
	"narwharf/cache/state/lease"
	"narwharf/cache/state/progress"
)

// defaultBatch is how many paths one transaction deletes at most, but for a cycle of more.
const defaultBatch = 256

// Result is what a collection did.
type Result struct {
	Began time.Time `json:"began"`
	Ended time.Time `json:"ended"`
	// Success is when a collection last ended without an error, this one or an
	// earlier; absent if none did yet.
	Success *time.Time `json:"success,omitempty"`
	// Error is why this one ended early; what it did until then stays done.
	Error string `json:"error,omitempty"`

	// Waits, Uploads, Kept and Young are as in the Plan that it made.
	Waits   *time.Time `json:"waits,omitempty"`
	Uploads Sum        `json:"uploads"`
	Kept    Sum        `json:"kept"`
	Young   Sum        `json:"young"`

	// Gone are the paths that went, by reason, and Bytes what their files had; Stayed
	// is how many of the plan were of use again, or were kept, by the time they would
	// have gone.
	Gone   map[Reason]Sum `json:"gone"`
	Bytes  int64          `json:"bytes"`
	Stayed int64          `json:"stayed"`
	// Packed is how many bytes of packed copies of local paths made way.
	Packed int64 `json:"packed,omitempty"`
	// Sidecars are logs, realisations and debug infos that ended.
	Sidecars int64 `json:"sidecars,omitempty"`
	// GraceYielded is set if paths went that grace would have kept, had the disk had
	// room: runners whose Nix remembers them need --refresh.
	GraceYielded bool `json:"grace_yielded,omitempty"`
	// Over is how many bytes the uploads have above max_size, or the disk lacks to
	// min_free, since nothing more may go.
	Over int64 `json:"over,omitempty"`

	Size    int64 `json:"size"` // as in Plan, after the collection
	MaxSize int64 `json:"max_size,omitempty"`
	Free    int64 `json:"free,omitempty"`
	MinFree int64 `json:"min_free,omitempty"`
}

// Paths is how many paths went.
func (r *Result) Paths() (n int64) {
	for _, s := range r.Gone {
		n += s.Paths
	}
	return n
}

// Topic is what the state's watchers are told when a collection has ended (Last).
const Topic = "retention"

// Buckets and keys of the state.
const (
	stateBucket = "cache/retention"
	keyLast     = "last"     // Result
	keySidecars = "sidecars" // when sidecars were last looked at, state.Uint64
)

// Last returns the result of the last collection, nil if there was none.
func (c *Collector) Last(ctx context.Context) (last *Result, err error) {
	err = c.State.View(ctx, func(tx state.Reader) error {
		last, err = state.GetJSON[Result](tx, stateBucket, keyLast)
		return err
	})
	return last, err
}

// noRoomError says that nothing was deleted for an upload, which would not fit all the
// same: it is how many bytes may go.
type noRoomError int64

func (e noRoomError) Error() string {
	return fmt.Sprintf("no more than %d bytes may go for an upload", int64(e))
}

// Collect marks and deletes. It is ErrBusy while another one runs, ErrUnsettled before Run
// has settled the roots. A context that ends
// stops it between two batches; the result says what was done until then, with the error.
// The roots should be settled before. Its progress is reported (package progress) as the
// steps "paths", "references", "local store" and "delete".
func (c *Collector) Collect(ctx context.Context, r Request) (*Result, error) {
	if !c.settled.Load() {
		return nil, ErrUnsettled
	}
	select {
	case c.turn <- struct{}{}:
	default:
		return nil, ErrBusy
	}
	defer func() { <-c.turn }()
	return c.collect(ctx, r)
}

// collect is for who has the turn. It is ErrBusy while another server collects.
func (c *Collector) collect(ctx context.Context, r Request) (res *Result, err error) {
	ran, err := c.Alone.Once(ctx, func(ctx context.Context, _ lease.Held) (err error) {
		res, err = c.collectAlone(ctx, r)
		return err
	})
	if res == nil {
		res = &Result{Gone: make(map[Reason]Sum)}
	}
	if !ran && err == nil {
		err = ErrBusy
	}
	return res, err
}

// collectAlone is for who has the lease, too. A server that has lost it does no harm: each of its transactions
// reads again what it decides on.
func (c *Collector) collectAlone(ctx context.Context, r Request) (*Result, error) {
	res := &Result{Began: c.Now().UTC(), Gone: make(map[Reason]Sum)}
	var err error
	if c.Recount != nil {
		err = c.Recount(ctx)
	}
	if err == nil {
		err = c.markAndSweep(ctx, r, res)
	}
	if err == nil && r.need == 0 {
		err = c.endSidecars(ctx, r, res)
	}
	if err != nil {
		res.Error = err.Error()
	}
	res.Ended = c.Now().UTC()
	return res, errors.Join(err, c.note(res))
}

// note writes down what a collection did.
func (c *Collector) note(res *Result) error {
	return c.State.Update(context.Background(), []string{stateBucket}, func(tx state.Tx) error {
		last, err := state.GetJSON[Result](tx, stateBucket, keyLast)
		if err != nil {
			return err
		}
		res.Success = nil
		if res.Error == "" {
			res.Success = &res.Ended
		} else if last != nil {
			res.Success = last.Success
		}
		tx.Notify(Topic)
		return state.PutJSON(tx, stateBucket, keyLast, res)
	})
}

func (c *Collector) markAndSweep(ctx context.Context, r Request, res *Result) error {
	p, err := c.propose(ctx, r)
	if err != nil {
		return err
	}
	res.Waits, res.Uploads, res.Kept, res.Young = p.Waits, p.Uploads, p.Kept, p.Young
	if lack := c.lack(p, r); c.Local != nil && lack > 0 {
		res.Packed = c.Local.MakeRoom(lack) // they can be made again
	}
	if r.need > p.bytes+res.Packed {
		return noRoomError(p.bytes)
	}
	err = c.sweep(ctx, p, res)
	res.Size, res.MaxSize, res.Free, res.MinFree = c.Uploads.Counts().NarBytes, p.MaxSize, p.Free, p.MinFree
	if c.MaxSize > 0 {
		res.Over = max(res.Size-c.MaxSize, 0)
	}
	if c.Free != nil {
		free, err2 := c.Free()
		if err2 != nil {
			return errors.Join(err, err2)
		}
		res.Free = free
		res.Over = max(res.Over, c.MinFree-free)
	}
	return err
}

// propose is Plan for a collection, without names. The graph is gone when it returns.
func (c *Collector) propose(ctx context.Context, r Request) (*Plan, error) {
	r.List = 0
	return c.Plan(ctx, r)
}

// sweep deletes what a plan says.
func (c *Collector) sweep(ctx context.Context, p *Plan, res *Result) error {
	total, done := int64(0), int64(0)
	for _, one := range p.parts {
		total += int64(len(one.hashes))
	}
	for _, one := range p.parts {
		young := graph.Seconds(p.At.Add(-c.grace()))
		for from := 0; from < len(one.hashes) && ctx.Err() == nil; {
			enough := res.Bytes
			if one.reason == Disk {
				enough += res.Packed
			}
			if one.bytes >= 0 && enough >= one.bytes {
				break
			}
			// ends grows; the last that is within a batch, or the first behind from
			next := sort.SearchInts(one.ends, from+c.batch+1) - 1
			if next < 0 || one.ends[next] <= from {
				next++
			}
			to := one.ends[next]
			if err := c.delete(ctx, one, from, to, young, res); err != nil {
				return err
			}
			done += int64(to - from)
			progress.Report(ctx, "delete", done, total)
			from = to
		}
	}
	return ctx.Err()
}

// delete deletes a batch.
func (c *Collector) delete(ctx context.Context, one part, from, to int, young uint32, res *Result) error {
	hashes := make([]string, 0, to-from)
	for _, k := range one.hashes[from:to] {
		hashes = append(hashes, k.String())
	}
	yields := make(map[string]bool)
	gone, err := c.Uploads.Collect(ctx, hashes, func(tx *index.Tx, r *index.Record) (bool, error) {
		used, err := tx.Used(r.Info.Path.Hash())
		yields[r.Info.Path.Hash()] = graph.Seconds(used) >= young
		return used.Before(one.cutoff), err
	})
	sum := res.Gone[one.reason]
	for _, g := range gone {
		sum.add(g.Freed)
		res.Bytes += g.Freed
		res.GraceYielded = res.GraceYielded || yields[g.Path.Hash()]
	}
	if len(gone) > 0 {
		res.Gone[one.reason] = sum
	}
	res.Stayed += int64(len(hashes) - len(gone))
	return err
}
