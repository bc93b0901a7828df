package retention

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"narwharf/cache/retention/graph"
	"narwharf/cache/root"
)

// Usage is who takes how much of the cache.
type Usage struct {
	// Of has who has roots, the largest total first: all channels, and "hosts" and
	// "pins" as one each; or the releases of one channel.
	Of []Share `json:"of"`
	// Loose is what no root reaches, and Uploads all that was uploaded.
	Loose   Sum `json:"loose"`
	Uploads Sum `json:"uploads"`
	// Leaning is what roots reach that is no upload and that an upstream has, with the
	// sizes of its NARs.
	Leaning Sum `json:"leaning"`
	// Size is how many bytes all NAR files of uploads have on the disk.
	Size int64 `json:"size"`
}

// Share is what the roots of one reach.
type Share struct {
	Name   string `json:"name"`   // "channel:<name>", "release:<channel>:<seq>", "hosts", "pins"
	Own    Sum    `json:"own"`    // what no root but its own reaches: it would go with it
	Shared Sum    `json:"shared"` // what others reach, too
	Total  Sum    `json:"total"`
}

// Usage sums up what roots reach. With a channel it tells its releases apart. It reads
// the whole index.
func (c *Collector) Usage(ctx context.Context, channel string) (*Usage, error) {
	g, done, err := c.marked(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	s := &shares{g: g, number: make(map[string]int)}
	err = root.Each(ctx, c.State, func(hash, owner string) error {
		k, ok := graph.ParseKey(hash)
		if !ok {
			return nil
		}
		if v, ok := g.Find(k); ok { // else it is a root since the mark
			s.add(v, shareOf(owner, channel))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the roots: %w", err)
	}
	s.sum()
	u := &Usage{Of: []Share{}, Size: c.Uploads.Counts().NarBytes}
	for _, one := range s.all {
		if channel == "" || strings.HasPrefix(one.Name, "release:") {
			one.Shared = Sum{one.Total.Paths - one.Own.Paths, one.Total.Bytes - one.Own.Bytes}
			u.Of = append(u.Of, *one)
		}
	}
	slices.SortFunc(u.Of, func(a, b Share) int {
		return cmp.Or(cmp.Compare(b.Total.Bytes, a.Total.Bytes), cmp.Compare(a.Name, b.Name))
	})
	for v, size := range g.Size {
		u.Uploads.add(size)
		if !g.Kept(uint32(v)) {
			u.Loose.add(size)
		}
	}
	return u, c.leaning(ctx, g, &u.Leaning)
}

// leaning sums up what an upstream has of what roots reach.
func (c *Collector) leaning(ctx context.Context, g *graph.Graph, sum *Sum) error {
	for v := range uint32(len(g.Part)) {
		if c.Leaning == nil || g.Here(v) || !g.Kept(v) {
			continue
		}
		from, size, err := c.Leaning.Leans(ctx, g.Key(v).String())
		if err != nil {
			return err
		}
		if from != "" {
			sum.Paths++
			sum.Bytes += size
		}
	}
	return nil
}

// shareOf is what an owner's roots count for.
func shareOf(owner, channel string) string {
	kind, rest, _ := strings.Cut(owner, ":")
	if kind != "release" {
		return kind + "s"
	}
	of, _, _ := strings.Cut(rest, ":")
	switch channel {
	case "":
		return "channel:" + of
	case of:
		return owner
	}
	return "others"
}

// shares are the groups of roots, and which of them are where.
type shares struct {
	g      *graph.Graph
	number map[string]int // by name
	all    []*Share
	roots  []rootOf
}

type rootOf struct {
	v     uint32
	share int
}

func (s *shares) add(v uint32, name string) {
	i, ok := s.number[name]
	if !ok {
		i = len(s.all)
		s.number[name] = i
		s.all = append(s.all, &Share{Name: name})
	}
	s.roots = append(s.roots, rootOf{v, i})
}

// alone says that several shares reach a path.
const several = ^uint32(0)

// sum adds up, 64 shares at a time: one bit each.
func (s *shares) sum() {
	g := s.g
	only := make([]uint32, len(g.Part)) // the share that alone reaches it and one, 0 for none
	for _, r := range s.roots {
		only[r.v] = join(only[r.v], uint32(r.share)+1)
	}
	g.SpreadFrom(func(v, r uint32) { only[v] = join(only[v], only[r]) })
	for v, size := range g.Size {
		if o := only[v]; o != 0 && o != several {
			s.all[o-1].Own.add(size)
		}
	}
	reached := make([]uint64, len(g.Part))
	for first := 0; first < len(s.all); first += 64 {
		clear(reached)
		for _, r := range s.roots {
			if bit := r.share - first; bit >= 0 && bit < 64 {
				reached[r.v] |= 1 << bit
			}
		}
		g.SpreadFrom(func(v, r uint32) { reached[v] |= reached[r] })
		for v, size := range g.Size {
			for bit, one := range s.all[first:min(first+64, len(s.all))] {
				if reached[v]>>bit&1 != 0 {
					one.Total.add(size)
				}
			}
		}
	}
}

func join(a, b uint32) uint32 {
	switch {
	case a == b || b == 0:
		return a
	case a == 0:
		return b
	}
	return several
}
