package graph

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"narwharf/cache/index"
	"narwharf/narinfo"
)

func TestKeysSortAsTexts(t *testing.T) {
	var texts []string
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var b [hashLen]byte
		for i := range b {
			b[i] = alphabet[r.IntN(32)]
		}
		texts = append(texts, string(b[:]))
	}
	texts = append(texts, "00000000000000000000000000000000", "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz")
	slices.Sort(texts)
	last := Key{}
	for i, text := range texts {
		k, ok := ParseKey(text)
		if !ok || k.String() != text {
			t.Fatalf("%s became %s, %t", text, k, ok)
		}
		if i > 0 && slices.Compare(last[:], k[:]) >= 0 {
			t.Fatalf("%s does not sort behind %s", k, last)
		}
		last = k
	}
	for _, bad := range []string{"", "short", "e0000000000000000000000000000000", "000000000000000000000000000000000"} {
		if _, ok := ParseKey(bad); ok {
			t.Errorf("%q is a hash part", bad)
		}
	}
}

// drawn is an index of n paths that refer to each other as drawn.
type drawn struct {
	n    int
	refs map[int][]int // to whom a path refers; names from n on are no uploads
}

func nameOf(n int) string { return fmt.Sprintf("%032d", n*7919%10_000_019) }

func (d *drawn) sorted() []int {
	order := make([]int, 0, d.n)
	for i := range d.n {
		order = append(order, i)
	}
	slices.SortFunc(order, func(a, b int) int { return slices.Compare([]byte(nameOf(a)), []byte(nameOf(b))) })
	return order
}

func (d *drawn) Summaries(_ context.Context, fn func([]index.Summary) error) error {
	for _, i := range d.sorted() {
		if err := fn([]index.Summary{{Hash: nameOf(i), FileSize: int64(i), Used: time.Unix(int64(1000+i), 0)}}); err != nil {
			return err
		}
	}
	return nil
}

func (d *drawn) EachReference(_ context.Context, fn func(to, from string) error) error {
	var rows []string
	for from, list := range d.refs {
		for _, to := range list {
			rows = append(rows, nameOf(to)+nameOf(from))
		}
	}
	slices.Sort(rows)
	for _, row := range rows {
		if err := fn(row[:32], row[32:]); err != nil {
			return err
		}
	}
	return nil
}

// Info implements Local: a path that is no upload refers to others as drawn.
func (d *drawn) Info(_ context.Context, hash string) (*narinfo.Info, error) {
	for from, list := range d.refs {
		if from >= d.n && nameOf(from) == hash {
			i := &narinfo.Info{Path: narinfo.Path(hash + "-local")}
			for _, to := range list {
				i.References = append(i.References, narinfo.Path(nameOf(to)+"-x"))
			}
			return i, nil
		}
	}
	return nil, fs.ErrNotExist
}

func (d *drawn) MakeRoom(int64) int64 { return 0 }

// What spread finds is what a walk from every path finds, with cycles, paths that refer to
// themselves, and ways through the local store.
func TestSpread(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for round := range 400 {
		away := r.IntN(4)
		d := &drawn{n: 1 + r.IntN(40), refs: make(map[int][]int)}
		for range r.IntN(3 * d.n) {
			from := r.IntN(d.n + away)
			if to := r.IntN(d.n + away); !slices.Contains(d.refs[from], to) {
				d.refs[from] = append(d.refs[from], to)
			}
		}
		local := &drawn{n: d.n, refs: d.refs}
		uploads := &drawn{n: d.n, refs: make(map[int][]int)}
		for from, list := range d.refs {
			if from < d.n {
				uploads.refs[from] = list
			}
		}
		g, err := Read(context.Background(), uploads, 0)
		if err != nil {
			t.Fatal(err)
		}
		roots := make(map[int]bool)
		for range r.IntN(3) {
			root := r.IntN(d.n + away)
			k, _ := ParseKey(nameOf(root))
			g.flags[g.number(k)] |= named
			roots[root] = true
		}
		if err := g.Pass(context.Background(), local); err != nil {
			t.Fatal(err)
		}
		g.Spread()
		d.compare(t, round, g, roots)
	}
}

func (d *drawn) compare(t *testing.T, round int, g *Graph, roots map[int]bool) {
	t.Helper()
	reach := make(map[int]map[int]bool) // from whom to whom, itself among them
	for i := range d.n + 4 {
		reach[i] = map[int]bool{}
		for todo := []int{i}; len(todo) > 0; todo = todo[1:] {
			if !reach[i][todo[0]] {
				reach[i][todo[0]] = true
				todo = append(todo, d.refs[todo[0]]...)
			}
		}
	}
	place := make(map[uint32]int)
	for at, v := range g.Order {
		place[v] = at
	}
	number := func(i int) uint32 {
		k, _ := ParseKey(nameOf(i))
		return g.number(k)
	}
	for i := range d.n {
		keep, used := false, uint32(0)
		for from := range d.n + 4 {
			if reach[from][i] {
				keep = keep || roots[from]
				if from < d.n {
					used = max(used, uint32(1000+from))
				}
			}
			same := reach[from][i] && reach[i][from]
			if from >= d.n {
				continue
			}
			if same != (g.Part[number(i)] == g.Part[number(from)]) {
				t.Fatalf("round %d: %d and %d in a cycle: %t", round, i, from, same)
			}
			if reach[from][i] && !same && place[number(from)] >= place[number(i)] {
				t.Fatalf("round %d: %d refers to %d and comes later", round, from, i)
			}
		}
		if v := number(i); keep != (g.flags[v]&kept != 0) || used != g.Used[v] {
			t.Fatalf("round %d: path %d is kept %t, used %d; want %t, %d", round, i, g.flags[v]&kept != 0, g.Used[v], keep, used)
		}
	}
}

// A path of the index that nobody can number is left alone.
func TestStrangeRows(t *testing.T) {
	d := &drawn{n: 3, refs: map[int][]int{0: {1}, 77: {2}, 1: {99}}}
	g, err := Read(context.Background(), d, 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(g.keys) != 3 || len(g.refs) != 1 || len(g.names) != 1 {
		t.Errorf("%d paths, %d references, %d away", len(g.keys), len(g.refs), len(g.names))
	}
}
