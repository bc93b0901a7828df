package graph

import (
	"context"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"narwharf/cache/index"
)

// many is an index of n paths of which each refers to four that came before it.
type many struct{ hashes, refs []string }

func newMany(n int) *many {
	m := &many{}
	r := rand.New(rand.NewPCG(1, 2))
	for range n {
		var k Key
		for i := range k {
			k[i] = byte(r.Uint32())
		}
		m.hashes = append(m.hashes, k.String())
	}
	name := func(i int) string { return m.hashes[i] }
	for i := range n {
		for _, back := range []int{1, 10, 100, 1000} {
			if i >= back {
				m.refs = append(m.refs, name(i-back)+name(i))
			}
		}
	}
	slices.Sort(m.refs)
	slices.Sort(m.hashes)
	return m
}

func (m *many) Summaries(_ context.Context, fn func([]index.Summary) error) error {
	page := make([]index.Summary, 0, 4000)
	for hashes := range slices.Chunk(m.hashes, 4000) {
		page = page[:0]
		for _, h := range hashes {
			page = append(page, index.Summary{Hash: h, FileSize: 1000, Used: time.Unix(1_700_000_000, 0)})
		}
		if err := fn(page); err != nil {
			return err
		}
	}
	return nil
}

func (m *many) EachReference(_ context.Context, fn func(to, from string) error) error {
	for _, r := range m.refs {
		if err := fn(r[:32], r[32:]); err != nil {
			return err
		}
	}
	return nil
}

// BenchmarkMark is a mark of a million paths without what the state costs to read.
func BenchmarkMark(b *testing.B) {
	m := newMany(1_000_000)
	var before, after runtime.MemStats
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		g, err := Read(context.Background(), m, 0)
		if err != nil {
			b.Fatal(err)
		}
		g.Spread()
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(len(m.hashes)), "B/path")
		runtime.KeepAlive(g)
	}
}
