package retention

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"narwharf/cache/index"
	"narwharf/cache/retention/graph"
	"narwharf/cache/root"
	"narwharf/narinfo"
)

// Sum is a number of paths and the bytes of their NAR files. A file that two paths
// share counts for each.
type Sum struct {
	Paths int64 `json:"paths"`
	Bytes int64 `json:"bytes"`
}

func (s *Sum) add(bytes int64) {
	s.Paths++
	s.Bytes += bytes
}

// Reason says why a path goes now, of those that may go.
type Reason string

// The reasons. Of several, the first.
const (
	Asked Reason = "asked" // somebody wants all to go that may (Request.All)
	Age   Reason = "age"   // it was of no use for longer than max_age
	Size  Reason = "size"  // the uploads have more than max_size
	Disk  Reason = "disk"  // the disk has less than min_free, or an upload found it full
)

// Request is what a collection shall do.
type Request struct {
	// All lets all go that no root reaches and that is past its grace: what a person
	// means by a collection. Else only what the limits of the Policy call for goes.
	All bool `json:"all,omitempty"`
	// Early is a person's word that paths may go although this server does not know
	// yet what was of use before (Plan.Waits).
	Early bool `json:"early,omitempty"`
	// List is how many paths a Plan names; 0: none.
	List int `json:"-"`

	need, more int64 // bytes that an upload lacks, and some for those after it
}

// Plan is what a collection would do now.
type Plan struct {
	At time.Time `json:"at"`
	// Waits is until when no path may go, since a database that was lost or is of an
	// older narwharf does not tell what was of use; absent if paths may go now, or
	// the request was for an early collection.
	Waits *time.Time `json:"waits,omitempty"`
	// Uploads is all that was uploaded: what a root reaches (Kept), what it does not
	// and grace keeps (Young), what may go (Loose).
	Uploads Sum `json:"uploads"`
	Kept    Sum `json:"kept"`
	Young   Sum `json:"young"`
	Loose   Sum `json:"loose"`
	// Going is the part of Loose that goes, by reason. Where grace yields, it has
	// some of Young.
	Going map[Reason]Sum `json:"going"`
	// GraceYields is set where paths go that grace would keep, since the disk is full.
	GraceYields bool `json:"grace_yields,omitempty"`
	// Over is how many bytes stay above max_size, or are lacking to min_free, since
	// nothing more may go.
	Over int64 `json:"over,omitempty"`
	// Paths are those that go, in the order in which they do; More is how many are
	// not listed.
	Paths []Going `json:"paths,omitempty"`
	More  int64   `json:"more,omitempty"`

	Size    int64 `json:"size"`               // bytes of all NAR files of uploads
	MaxSize int64 `json:"max_size,omitempty"` // as in Policy
	Free    int64 `json:"free,omitempty"`     // bytes that uploads find free on the disk
	MinFree int64 `json:"min_free,omitempty"` // as in Policy

	parts []part
	bytes int64 // of all that goes
}

// Going is a path that goes.
type Going struct {
	Path   narinfo.Path `json:"path"`
	Bytes  int64        `json:"bytes"`
	Used   time.Time    `json:"used"` // when it, or what refers to it, was last of use
	Reason Reason       `json:"reason"`
}

// part is what goes for one reason.
type part struct {
	reason Reason
	hashes []graph.Key // referrers first
	ends   []int       // hashes[:end] may be deleted without what follows: cycles are whole
	cutoff time.Time
	bytes  int64 // to be free when it ends; < 0: all shall go
}

// Plan marks, and says what a collection would do now. It changes nothing. The roots
// should be settled before.
func (c *Collector) Plan(ctx context.Context, r Request) (*Plan, error) {
	g, done, err := c.marked(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	p, list, err := c.plan(ctx, g, r)
	if err != nil {
		return nil, err
	}
	for _, one := range list {
		record, err := c.Index.Get(g.Key(one.v).String())
		if errors.Is(err, index.ErrNotFound) {
			continue // it went meanwhile
		}
		if err != nil {
			return nil, err
		}
		p.Paths = append(p.Paths, Going{record.Info.Path, g.Size[one.v], time.Unix(int64(g.Used[one.v]), 0).UTC(), one.reason})
	}
	return p, nil
}

// marked is mark, of which there is one at a time: the graph is large. done ends its use.
func (c *Collector) marked(ctx context.Context) (g *graph.Graph, done func(), err error) {
	if done, err = take(ctx, c.graph); err != nil {
		return nil, nil, err
	}
	if g, err = c.mark(ctx); err != nil {
		done()
		return nil, nil, err
	}
	return g, done, nil
}

// mark reads the graph and finds what roots reach.
func (c *Collector) mark(ctx context.Context) (*graph.Graph, error) {
	totals, err := c.Index.Totals()
	if err != nil {
		return nil, err
	}
	g, err := graph.Read(ctx, c.Index, totals.Paths)
	if err != nil {
		return nil, err
	}
	err = root.Each(ctx, c.State, func(hash, _ string) error {
		if k, ok := graph.ParseKey(hash); ok {
			g.Root(k)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the roots: %w", err)
	}
	if err := g.Pass(ctx, c.Local); err != nil {
		return nil, err
	}
	g.Spread()
	return g, nil
}

// listed is a path that a Plan names.
type listed struct {
	v      uint32
	reason Reason
}

// plan decides what goes.
func (c *Collector) plan(ctx context.Context, g *graph.Graph, r Request) (*Plan, []listed, error) {
	now := c.Now()
	p := &Plan{At: now.UTC(), Going: make(map[Reason]Sum), Size: c.Uploads.Counts().NarBytes, MaxSize: c.MaxSize, MinFree: c.MinFree}
	if c.Free != nil {
		free, err := c.Free()
		if err != nil {
			return nil, nil, err
		}
		p.Free = free
	}
	waits, err := c.waits(ctx, now, r)
	if err != nil {
		return nil, nil, err
	}
	o := inOrder(g, p, now, c.grace(), c.lease())
	if waits != nil {
		p.Waits = waits
		return p, nil, nil
	}
	if r.All {
		o.take(Asked, o.old, -1)
	}
	if c.MaxAge > 0 {
		o.take(Age, until(g, o.loose[:o.old], now.Add(-max(c.MaxAge, c.grace()))), -1)
	}
	if over := p.Size - c.MaxSize; c.MaxSize > 0 && over > 0 {
		o.take(Size, o.old, over+c.MaxSize/20)
		p.Over = max(over-o.taken, 0)
	}
	if lack := c.lack(p, r); lack > 0 {
		o.take(Disk, len(o.loose), lack)
		p.Over = max(p.Over, lack-o.taken)
	}
	p.GraceYields, p.bytes = o.next > o.old, o.taken
	return p, o.list(r.List), nil
}

// lack is how many bytes the disk lacks.
func (c *Collector) lack(p *Plan, r Request) int64 {
	if c.Free == nil {
		return 0
	}
	return max(c.MinFree-p.Free, r.need+r.more, 0)
}

// grace and lease are longer than what is promised by the quarter of a lease that a use
// may be noted late (index.Table.Use).
func (c *Collector) grace() time.Duration { return max(c.Grace, c.Lease) + c.Lease/4 }
func (c *Collector) lease() time.Duration { return c.Lease + c.Lease/4 }

// waits is until when no path may go, nil if they may.
func (c *Collector) waits(ctx context.Context, now time.Time, r Request) (*time.Time, error) {
	if r.Early {
		return nil, nil
	}
	since, err := c.Index.Since(ctx)
	if err != nil {
		return nil, err
	}
	if until := since.Add(c.grace()); !since.IsZero() && now.Before(until) {
		until = until.UTC()
		return &until, nil
	}
	return nil, nil
}

// order is what may go, in the order in which it does.
type order struct {
	g     *graph.Graph
	p     *Plan
	now   time.Time
	grace time.Time // what was of use before may go
	lease time.Time // and this is what grace yields down to
	loose []uint32
	old   int // how many of loose are past grace
	next  int // loose[:next] goes
	taken int64
}

// place is where a path comes: by use and depth, and then by its place in Graph.Order, so
// that cycles stay whole.
type place struct {
	key uint64
	at  uint32
}

// inOrder sums up the uploads and puts what may go in order: rising use, and referrers
// first, which are never of later use than what they refer to. Of paths of the same use
// the ones go together that are as deep: their files can go at once.
func inOrder(g *graph.Graph, p *Plan, now time.Time, grace, lease time.Duration) *order {
	o := &order{g: g, p: p, now: now, grace: now.Add(-grace), lease: now.Add(-lease)}
	early, late := graph.Seconds(o.grace), graph.Seconds(o.lease)
	var list []place
	for at, v := range g.Order {
		if !g.Here(v) {
			continue
		}
		size := g.Size[v]
		p.Uploads.add(size)
		switch used := g.Used[v]; {
		case g.Kept(v):
			p.Kept.add(size)
		case used < early:
			p.Loose.add(size)
			list = append(list, place{uint64(used)<<32 | uint64(g.Depth[v]), uint32(at)})
		default:
			p.Young.add(size)
			if used < late {
				list = append(list, place{uint64(used)<<32 | uint64(g.Depth[v]), uint32(at)})
			}
		}
	}
	slices.SortFunc(list, func(a, b place) int { return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.at, b.at)) })
	o.loose = make([]uint32, len(list))
	for i, one := range list {
		o.loose[i] = g.Order[one.at]
	}
	o.old = until(g, o.loose, o.grace)
	return o
}

// until is how many of paths in rising use were of use before a time.
func until(g *graph.Graph, paths []uint32, before time.Time) int {
	n, _ := slices.BinarySearchFunc(paths, graph.Seconds(before), func(v, t uint32) int {
		if g.Used[v] < t {
			return -1
		}
		return 1
	})
	return n
}

// take lets paths up to a place go for a reason, until so many bytes of all that was
// taken are free, -1: all of them.
func (o *order) take(reason Reason, to int, bytes int64) {
	cutoff := o.grace
	if reason == Disk {
		cutoff = o.lease
	}
	one, sum := part{reason: reason, cutoff: cutoff, bytes: bytes}, o.p.Going[reason]
	for o.next < to && (bytes < 0 || o.taken < bytes) {
		for first := o.next; o.next < len(o.loose) && o.g.Part[o.loose[o.next]] == o.g.Part[o.loose[first]]; o.next++ {
			v := o.loose[o.next]
			one.hashes = append(one.hashes, o.g.Key(v))
			sum.add(o.g.Size[v])
			o.taken += o.g.Size[v]
		}
		one.ends = append(one.ends, len(one.hashes))
	}
	if len(one.hashes) > 0 {
		o.p.Going[reason] = sum
		o.p.parts = append(o.p.parts, one)
	}
}

// list is the first of what goes.
func (o *order) list(most int) []listed {
	var all []listed
	at := 0
	for _, one := range o.p.parts {
		for range one.hashes {
			if len(all) < most {
				all = append(all, listed{o.loose[at], one.reason})
			}
			at++
		}
	}
	o.p.More = int64(at - len(all))
	return all
}
