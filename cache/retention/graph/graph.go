package graph

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"slices"
	"time"

	"narwharf/cache/index"
	"narwharf/cache/state/progress"
	"narwharf/narinfo"
)

// What is known of a path.
const (
	named   = 1 << iota // a root names it
	kept                // a root reaches it
	damaged             // its record cannot be read: it stays, for fsck
	inner               // for spread
)

// Graph is who refers to whom, of all uploads. A path is its place in the order of hash
// parts. Those behind them, "away", are no uploads: references that may be in the local
// store, and roots.
type Graph struct {
	keys  []Key
	first []uint32 // by the leading bits of a key: where those begin
	bits  uint

	Size  []int64  // of the NAR file of an upload
	Used  []uint32 // when it was last of use (Seconds); after Spread it or what refers to it
	flags []uint8

	from  []uint32 // the referrers of v are refs[from[v]:from[v+1]], and more[v]
	refs  []uint32
	more  map[uint32][]uint32
	away  map[Key]uint32
	names []Key // of those away

	Part  []uint32 // after Spread: paths of a cycle have the same
	Depth []uint32 // after Spread: how long the longest way is from a path that nothing refers to
	Order []uint32 // after Spread: all, each behind what refers to it
}

// Source is what a graph is read from.
type Source interface {
	Summaries(ctx context.Context, fn func(page []index.Summary) error) error
	EachReference(ctx context.Context, fn func(to, from string) error) error
}

// Local is the machine's own store.
type Local interface {
	// Info returns what the store has under a hash part, fs.ErrNotExist if nothing.
	Info(ctx context.Context, hash string) (*narinfo.Info, error)
}

// Read reads the graph of all uploads.
func Read(ctx context.Context, idx Source, about int64) (*Graph, error) {
	g := &Graph{more: make(map[uint32][]uint32), away: make(map[Key]uint32)}
	err := idx.Summaries(ctx, func(page []index.Summary) error {
		for _, s := range page {
			g.add(s)
		}
		progress.Report(ctx, "paths", int64(len(g.keys)), about)
		return ctx.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("read the index: %w", err)
	}
	g.shelve()
	if err := g.readReferences(ctx, idx); err != nil {
		return nil, fmt.Errorf("read the index: %w", err)
	}
	return g, nil
}

func (g *Graph) add(s index.Summary) {
	k, ok := ParseKey(s.Hash)
	if !ok || len(g.keys) > 0 && bytes.Compare(k[:], g.keys[len(g.keys)-1][:]) <= 0 {
		return // no narwharf makes such a key; fsck's
	}
	flags := uint8(0)
	if s.Damaged {
		flags = damaged | named
	}
	g.keys = append(g.keys, k)
	g.Size = append(g.Size, s.FileSize)
	g.Used = append(g.Used, Seconds(s.Used))
	g.flags = append(g.flags, flags)
}

// Seconds is a time as a number, the future of 2106 and the past of 1970 left out.
func Seconds(t time.Time) uint32 {
	return uint32(min(max(t.Unix(), 0), 1<<32-1))
}

// shelve notes where the keys with the same leading bits begin, two to four each.
func (g *Graph) shelve() {
	g.bits = uint(min(max(bits.Len(uint(len(g.keys)))-2, 0), 28))
	g.first = make([]uint32, 1<<g.bits+1)
	for _, k := range g.keys {
		g.first[k.lead(g.bits)+1]++
	}
	for i := range len(g.first) - 1 {
		g.first[i+1] += g.first[i]
	}
}

// Root notes that a root names a path.
func (g *Graph) Root(k Key) { g.flags[g.number(k)] |= named }

// Kept tells, after Spread, whether a root reaches a path.
func (g *Graph) Kept(v uint32) bool { return g.flags[v]&kept != 0 }

// Find returns the number of a path, if the graph has it.
func (g *Graph) Find(k Key) (uint32, bool) {
	if v, ok := g.find(k); ok {
		return v, true
	}
	v, ok := g.away[k]
	return v, ok
}

// find returns the number of an upload.
func (g *Graph) find(k Key) (uint32, bool) {
	lead := k.lead(g.bits)
	from, to := g.first[lead], g.first[lead+1]
	if to-from <= 16 { // keys that are spread as hashes are
		for i := from; i < to; i++ {
			if g.keys[i] == k {
				return i, true
			}
		}
		return 0, false
	}
	i, ok := slices.BinarySearchFunc(g.keys[from:to], k, func(a, b Key) int { return bytes.Compare(a[:], b[:]) })
	return from + uint32(i), ok
}

// number is that of any path: one that is no upload gets one.
func (g *Graph) number(k Key) uint32 {
	if v, ok := g.find(k); ok {
		return v
	}
	v, ok := g.away[k]
	if !ok {
		v = uint32(len(g.keys) + len(g.names))
		g.away[k] = v
		g.names = append(g.names, k)
		g.flags = append(g.flags, 0)
		g.Used = append(g.Used, 0)
	}
	return v
}

// Key is the hash part of a path.
func (g *Graph) Key(v uint32) Key {
	if n := uint32(len(g.keys)); v >= n {
		return g.names[v-n]
	}
	return g.keys[v]
}

// Here tells whether a path is an upload.
func (g *Graph) Here(v uint32) bool { return v < uint32(len(g.keys)) }

func (g *Graph) readReferences(ctx context.Context, idx Source) error {
	g.from = make([]uint32, len(g.keys)+1)
	at, rows, last, to := uint32(0), int64(0), "", uint32(0) // from[:at+1] is done
	err := idx.EachReference(ctx, func(text, referrer string) error {
		f, ok := ParseKey(referrer)
		if text != last {
			k, good := ParseKey(text)
			if ok = ok && good; good {
				to, last = g.number(k), text
			}
		}
		v, found := uint32(0), false
		if ok {
			v, found = g.find(f)
		}
		rows++
		if rows%100_000 == 0 {
			progress.Report(ctx, "references", rows, 0)
		}
		switch {
		case !found || v == to: // it came after the paths were read, or is a row for fsck
		case !g.Here(to) || to < at:
			g.more[to] = append(g.more[to], v)
		default:
			for ; at < to; at++ {
				g.from[at+1] = uint32(len(g.refs))
			}
			g.refs = append(g.refs, v)
		}
		return nil
	})
	for ; int(at) < len(g.keys); at++ {
		g.from[at+1] = uint32(len(g.refs))
	}
	return err
}

// referrer returns the i-th referrer of a path.
func (g *Graph) referrer(v, i uint32) (uint32, bool) {
	if g.Here(v) {
		n := g.from[v+1] - g.from[v]
		if i < n {
			return g.refs[g.from[v]+i], true
		}
		i -= n
	}
	more := g.more[v]
	if i < uint32(len(more)) {
		return more[i], true
	}
	return 0, false
}

// Pass adds what paths that are away refer to in the local store: what they refer to
// there may have been uploaded.
func (g *Graph) Pass(ctx context.Context, local Local) error {
	if local == nil {
		return nil
	}
	for i := 0; i < len(g.names); i++ { // it grows
		info, err := local.Info(ctx, g.names[i].String())
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("ask the local store what refers to uploads: %w", err)
		}
		v := uint32(len(g.keys) + i)
		for _, ref := range info.References {
			k, ok := ParseKey(ref.Hash())
			if !ok || k == g.names[i] {
				continue
			}
			to := g.number(k)
			g.more[to] = append(g.more[to], v)
		}
		progress.Report(ctx, "local store", int64(i), int64(len(g.names)))
	}
	return nil
}
