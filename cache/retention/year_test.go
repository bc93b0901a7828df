package retention

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"narwharf/cache/state"
	"narwharf/cache/state/bolt"
)

var wholeYear = flag.Bool("year", false, "TestYearOfCI: 365 days with 200 closures each, not 60 with 12")

// A cache beside CI: each day so many closures that share 95 % of their paths, promotes on
// 12 channels with 300 hosts, and a collection every six hours. The uploads stay below
// max_size, nothing that has to stay goes, and the index does not grow.
func TestYearOfCI(t *testing.T) {
	days, closures := 60, 12
	if *wholeYear {
		days, closures = 365, 200
	}
	synctest.Test(t, func(t *testing.T) {
		y := newYear(t, closures)
		for d := range days {
			y.day(d)
		}
		y.end()
	})
}

const (
	yearChannels = 12
	yearHosts    = 300
	yearKeeps    = 10 // releases of a channel
	yearClosure  = 40 // paths, two of them new: 95 % are shared
	collections  = 4  // a day
)

// year is CI, and what it does to a cache.
type year struct {
	*world
	t        *testing.T
	closures int // a day

	base     *item            // all libraries refer to it
	n        int              // paths that were made
	parts    [][]*item        // by channel: what its next closure has, the oldest first
	tops     [][]*item        // by channel: its closures
	released [][]int          // by channel: the closures that are releases which it keeps
	runs     [yearHosts]*item // what a host runs
	entries  map[int]int      // of the state, by day
	gone     int64
	peak     int64 // largest size before a collection
}

func newYear(t *testing.T, closures int) *year {
	p := testPolicy
	p.Grace = 7 * day
	y := &year{world: newWorld(t, p), t: t, closures: closures, parts: make([][]*item, yearChannels), tops: make([][]*item, yearChannels), released: make([][]int, yearChannels), entries: make(map[int]int)}
	if *wholeYear { // a list in memory is slow at it
		db, err := bolt.Open(filepath.Join(t.TempDir(), "db"), bolt.Options{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		y.db.Store = db
	}
	y.open()
	y.base = y.make("libc")
	for c := range yearChannels {
		for range yearClosure - 1 {
			y.parts[c] = append(y.parts[c], y.make("lib", y.base))
		}
	}
	return y
}

func (y *year) make(name string, refs ...*item) *item {
	y.n++
	return y.mustPut(fmt.Sprintf("%s-%d", name, y.n), refs...)
}

// day uploads, promotes, lets hosts follow, and collects.
func (y *year) day(d int) {
	if d == 14 { // twice what grace and roots keep, and a little: it is reached after a month
		y.MaxSize = y.uploads.Counts().NarBytes * 2
	}
	for i := range y.closures {
		c := i % yearChannels
		y.build(c)
		if i < 2*yearChannels {
			y.promote(c)
		}
		time.Sleep(day / time.Duration(y.closures))
		if (i+1)%(y.closures/collections) == 0 {
			y.sweep()
		}
	}
	y.entries[d] = y.count()
}

// build uploads a closure of a channel. Its runner is new, and asks for all of it.
func (y *year) build(c int) {
	y.parts[c] = append(y.parts[c][1:], y.make("lib", y.base))
	var hashes []string
	for _, p := range y.parts[c] {
		hashes = append(hashes, p.hash())
	}
	missing, err := y.index.Use(context.Background(), hashes)
	if err != nil {
		y.t.Fatal(err)
	}
	if len(missing) > 0 {
		y.t.Fatalf("%d paths that a closure of yesterday had are gone", len(missing))
	}
	y.tops[c] = append(y.tops[c], y.make("system", y.parts[c]...))
}

// promote makes the newest closure of a channel its release: the oldest that it keeps ends, and its hosts run the new one.
func (y *year) promote(c int) {
	seq := len(y.tops[c])
	roots := map[string][]*item{fmt.Sprintf("release:c%d:%d", c, seq): {y.tops[c][seq-1]}}
	y.released[c] = append(y.released[c], seq)
	if old := y.released[c]; len(old) > yearKeeps {
		roots[fmt.Sprintf("release:c%d:%d", c, old[0])] = nil
		y.released[c] = old[1:]
	}
	for h := c; h < yearHosts; h += yearChannels {
		before := y.runs[h]
		y.runs[h] = y.tops[c][seq-1]
		if before == nil {
			before = y.runs[h]
		}
		roots[fmt.Sprintf("host:%d", h)] = []*item{y.runs[h], before}
	}
	y.mustRoots(roots)
}

// sweep collects, and sees that the size is right and that all that runs is here.
func (y *year) sweep() {
	y.peak = max(y.peak, y.uploads.Counts().NarBytes)
	res := y.collect(Request{})
	y.gone += res.Paths()
	if y.MaxSize > 0 && (res.Size > y.MaxSize || res.Over > 0) {
		y.t.Fatalf("%d bytes of %d: %+v", res.Size, y.MaxSize, res)
	}
	is := y.here()
	for _, i := range y.runs {
		if i != nil && !is[i.hash()] {
			y.t.Fatalf("%s runs on a host and is gone", i.info.Path)
		}
	}
}

// count is how many entries the state has.
func (y *year) count() (n int) {
	err := y.db.View(context.Background(), func(tx state.Reader) error {
		n = 0
		for _, bucket := range []string{"index/1/path", "index/1/nar", "index/1/ref", "cache/use", "cache/file", "cache/going", "cache/root", "cache/root-owner"} {
			if err := state.Each(tx, bucket, state.Range{}, func(state.Entry) error { n++; return nil }); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		y.t.Fatal(err)
	}
	return n
}

func (y *year) end() {
	last := len(y.entries) - 1
	early, late := y.entries[last*2/3], y.entries[last]
	totals, err := y.index.Totals()
	if err != nil {
		y.t.Fatal(err)
	}
	y.t.Logf("%d days: %d paths uploaded, %d went, %d are here; %d bytes of at most %d, %d before a collection; entries of the state: %d after two thirds of it, %d at the end",
		last+1, y.n, y.gone, totals.Paths, y.uploads.Counts().NarBytes, y.MaxSize, y.peak, early, late)
	if late > early+early/10 {
		y.t.Errorf("the state has grown from %d to %d entries", early, late)
	}
	y.agree()
}
