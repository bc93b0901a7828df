package retention

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"narwharf/cache/index"
	"narwharf/cache/refusal"
	"narwharf/cache/root"
	"narwharf/cache/upload"
	"narwharf/narinfo"
)

// Whatever uploads, promotes, host reports, runners with old memories, the clock and
// crashes do, and whenever a collection runs beside them: what a root reaches stays, what
// a runner was told stays for its grace, nothing that is here refers to what is not, and
// all else is gone in the end.
func TestNothingNeededGoes(t *testing.T) {
	const perCheck = 1100 // and rapid makes 100 checks
	var n counts
	rapid.Check(t, func(rt *rapid.T) {
		seed, tight := rapid.Uint64().Draw(rt, "seed"), rapid.Bool().Draw(rt, "tight")
		inBubble(t, func() {
			m := newModel(rt, seed, tight)
			defer m.tell()
			for range perCheck {
				m.step()
			}
			m.end()
			n.add(m.counts)
		})
	})
	t.Logf("%+v", n)
	if least := (counts{100_000, 2000, 100, 1000, 500}); !n.atLeast(least) && !testing.Short() && !t.Failed() {
		t.Errorf("%+v, at least %+v is wanted: with -rapid.checks=100 it is", n, least)
	}
}

// counts are what happened, so that the test does not hold since nothing did.
type counts struct{ steps, gone, stayed, restarts, promotes int }

func (c *counts) add(o counts) {
	c.steps += o.steps
	c.gone += o.gone
	c.stayed += o.stayed
	c.restarts += o.restarts
	c.promotes += o.promotes
}

func (c *counts) atLeast(o counts) bool {
	return c.steps >= o.steps && c.gone >= o.gone && c.stayed >= o.stayed && c.restarts >= o.restarts && c.promotes >= o.promotes
}

// inBubble lets fn have its own time. How fn fails is how it would without.
func inBubble(t *testing.T, fn func()) {
	var failure any
	synctest.Test(t, func(*testing.T) {
		defer func() { failure = recover() }()
		fn()
	})
	if failure != nil {
		panic(failure)
	}
}

const (
	paths     = 24
	owners    = 3
	runners   = 3
	remembers = 30 * day // how long a runner's Nix remembers
)

// model is a world and what must be true of it.
type model struct {
	*world
	counts
	t     *rapid.T
	rnd   *rand.Rand
	items []*item
	at    map[string]int // by hash part
	tight bool           // the disk is full at times: grace yields

	told    [paths]time.Time // when a runner was last told that it is here
	roots   map[string][]int
	turning map[string]*promote
	runners [runners]*runner
	sending int // the path that is being uploaded, -1

	was        map[string]bool // what was here at the last check
	story      []string        // what happened last
	collecting bool
}

// promote is one that has looked at its closure and not yet turned the channel.
type promote struct {
	path int
	at   time.Time
}

// runner uploads closures with a Nix that remembers what it was told.
type runner struct {
	knows map[int]time.Time
	queue []int // of the closure, references first
	nars  []int // 2.35: all NARs go before the narinfos
	all   bool  // it is a 2.35
	began time.Time
}

func newModel(t *rapid.T, seed uint64, tight bool) *model {
	m := &model{
		t: t, rnd: rand.New(rand.NewPCG(seed, 1)), at: make(map[string]int),
		tight: tight, roots: make(map[string][]int), turning: make(map[string]*promote), sending: -1,
	}
	for i := range paths {
		var refs []int
		for range m.rnd.IntN(4) {
			if i > 0 {
				refs = append(refs, m.rnd.IntN(i))
			}
		}
		slices.Sort(refs)
		refs = slices.Compact(refs)
		var names []narinfo.Path
		for _, r := range refs {
			names = append(names, m.items[r].info.Path)
		}
		// some have the same NAR
		one := makeItem(fmt.Sprintf("p%d", i), fmt.Sprintf("content %d", i%(paths*3/4)), names...)
		if one.refs = refs; m.rnd.IntN(4) == 0 {
			one.info.References = append(one.info.References, one.info.Path)
		}
		slices.Sort(one.info.References)
		m.items, m.at[one.hash()] = append(m.items, one), i
	}
	for i := range m.runners {
		m.runners[i] = &runner{knows: make(map[int]time.Time), all: i == 0}
	}
	policy := testPolicy
	policy.MaxSize = 1
	m.world = newWorld(t, policy)
	m.world.wrapped = func(u Uploads) Uploads { return &beside{u, m} }
	m.world.free = func() (int64, error) { return 1 << 40, nil }
	m.open()
	m.Collector.batch = 3
	m.was = m.here()
	return m
}

// beside lets others work between the mark and each batch.
type beside struct {
	Uploads
	m *model
}

func (b *beside) Collect(ctx context.Context, batch []string, may func(*index.Tx, *index.Record) (bool, error)) ([]upload.Gone, error) {
	if !b.m.db.dead {
		for range b.m.rnd.IntN(4) {
			b.m.one()
			if b.m.db.dead {
				return nil, errDead
			}
			b.m.check()
		}
	}
	gone, err := b.Uploads.Collect(ctx, batch, may)
	for _, g := range gone {
		b.m.note("%d is gone", b.m.at[g.Path.Hash()])
	}
	if !b.m.db.dead {
		b.m.check()
	}
	return gone, err
}

// note adds to the story, tell tells it if the test failed.
func (m *model) note(format string, args ...any) {
	m.story = append(m.story, time.Now().Format("01-02 15:04 ")+fmt.Sprintf(format, args...))
	if len(m.story) > 60 {
		m.story = m.story[20:]
	}
}

func (m *model) tell() {
	if m.t.Failed() {
		m.t.Log("what happened last:\n" + strings.Join(m.story, "\n"))
	}
}

// step does one thing, perhaps killing the process in it, and checks.
func (m *model) step() {
	m.steps++
	if m.db.left == 0 && m.rnd.IntN(8) == 0 {
		m.db.left, m.db.after = 1+m.rnd.IntN(20), m.rnd.IntN(2) == 0
		m.note("dies in %d writes, after it %t", m.db.left, m.db.after)
	}
	m.one()
	if m.db.dead {
		m.restart()
	}
	m.check()
}

// restart starts the process again: nothing that was gone is back, but what was being
// uploaded.
func (m *model) restart() {
	m.restarts++
	m.note("restart")
	before := m.here()
	m.open()
	m.Collector.batch = 3
	m.collecting = false
	for hash := range m.here() {
		if !before[hash] && m.at[hash] != m.sending {
			m.t.Fatalf("%s is back after a crash", m.items[m.at[hash]].info.Path)
		}
	}
	m.sending = -1
	m.readRoots()
	m.agree()
	clear(m.turning)
	for _, r := range m.runners {
		r.queue, r.nars = nil, nil
	}
}

// readRoots learns which of the roots that were being set are.
func (m *model) readRoots() {
	is := make(map[string][]int)
	err := root.Each(context.Background(), m.db, func(hash, owner string) error {
		is[owner] = append(is[owner], m.at[hash])
		return nil
	})
	if err != nil {
		m.t.Fatal(err)
	}
	for owner, list := range m.roots {
		for _, p := range list {
			if !slices.Contains(is[owner], p) {
				m.t.Fatalf("%s was a root of %s before a crash", m.items[p].info.Path, owner)
			}
		}
	}
	m.roots = is
}

// one does one thing. Errors of a killed process are nobody's.
func (m *model) one() {
	switch n := m.rnd.IntN(100); {
	case n < 50:
		m.upload(m.runners[m.rnd.IntN(runners)])
	case n < 60:
		m.promote()
	case n < 66:
		m.report()
	case n < 76:
		m.pass()
	case n < 80:
		m.look()
	case !m.collecting:
		m.collectSome()
	}
}

func (m *model) must(what string, err error) {
	if err != nil && !m.db.dead {
		m.t.Fatalf("%s: %v", what, err)
	}
}

// closure is a path with all it refers to, references first.
func (m *model) closure(p int) []int {
	seen := map[int]bool{}
	var walk func(p int)
	walk = func(p int) {
		if !seen[p] {
			seen[p] = true
			for _, r := range m.items[p].refs {
				walk(r)
			}
		}
	}
	walk(p)
	return slices.Sorted(maps.Keys(seen))
}

// upload lets a runner go on with a closure.
func (m *model) upload(r *runner) {
	if len(r.queue) == 0 {
		r.queue, r.began = m.closure(m.rnd.IntN(paths)), time.Now()
		if r.all {
			r.nars = slices.Clone(r.queue)
		}
		return
	}
	if time.Since(r.began) > 20*time.Hour {
		r.queue, r.nars = nil, nil
		return
	}
	if len(r.nars) > 0 {
		p := r.nars[0]
		r.nars = r.nars[1:]
		if !m.asks(r, p) {
			m.must("send a NAR", m.sendNar(p))
		}
		return
	}
	p := r.queue[0]
	r.queue = r.queue[1:]
	if m.asks(r, p) {
		return
	}
	m.sending = p
	err := m.putItem(p, r.all)
	m.note("upload of %d: %v", p, err)
	switch {
	case m.db.dead:
		return // whoever starts it looks whether it came in
	case refusal.In(err) != nil && m.tight:
		r.knows, r.queue, r.nars = make(map[int]time.Time), nil, nil // --refresh
	case err != nil:
		m.t.Fatalf("upload of %s: %v", m.items[p].info.Path, err)
	default:
		r.knows[p], m.told[p] = time.Now(), time.Now()
	}
	m.sending = -1
}

func (m *model) putItem(p int, narWasSent bool) error {
	if !narWasSent {
		return m.put(m.items[p])
	}
	err := m.uploads.PutInfo(m.items[p].hash(), m.items[p].info, "ci")
	if r := refusal.In(err); r != nil && r.Kind == refusal.MissingNar { // it was here, and needed none
		return m.put(m.items[p])
	}
	return err
}

func (m *model) sendNar(p int) error {
	i := m.items[p]
	return m.uploads.PutNar(strings.TrimPrefix(i.info.URL, "nar/"), strings.NewReader(string(i.nar)), int64(len(i.nar)))
}

// asks tells whether a runner believes that a path is here, by what it remembers or by
// asking.
func (m *model) asks(r *runner, p int) bool {
	if at, ok := r.knows[p]; ok && time.Since(at) < remembers {
		return true
	}
	missing, err := m.index.Use(context.Background(), []string{m.items[p].hash()})
	m.note("look up %d: missing %d, %v", p, len(missing), err)
	if m.must("look up", err); err != nil || len(missing) > 0 {
		return err != nil
	}
	r.knows[p], m.told[p] = time.Now(), time.Now()
	return true
}

// look is a look at something by a runner that remembers nothing.
func (m *model) look() { m.asks(&runner{knows: make(map[int]time.Time)}, m.rnd.IntN(paths)) }

// promote begins one or ends one: it notes the use of its closure, checks it, and some
// time later turns the channel.
func (m *model) promote() {
	owner := fmt.Sprintf("release:web:%d", m.rnd.IntN(owners))
	if p := m.turning[owner]; p != nil {
		delete(m.turning, owner)
		if time.Since(p.at) < m.policy.Lease {
			m.root(owner, p.path)
			m.promotes++
		}
		return
	}
	path := m.rnd.IntN(paths)
	var hashes []string
	for _, p := range m.closure(path) {
		hashes = append(hashes, m.items[p].hash())
	}
	missing, err := m.index.Use(context.Background(), hashes)
	if m.must("hold a closure", err); err != nil || len(missing) > 0 {
		return
	}
	for _, p := range m.closure(path) {
		m.told[p] = time.Now()
	}
	m.turning[owner] = &promote{path, time.Now()}
}

// report makes other roots of a host, or ends some. They may name what is not here.
func (m *model) report() {
	var list []int
	for range m.rnd.IntN(3) {
		list = append(list, m.rnd.IntN(paths))
	}
	m.root(fmt.Sprintf("host:%d", m.rnd.IntN(owners)), list...)
	if m.rnd.IntN(2) == 0 {
		m.root(fmt.Sprintf("release:web:%d", m.rnd.IntN(owners)))
	}
}

func (m *model) root(owner string, list ...int) {
	var items []*item
	for _, p := range list {
		items = append(items, m.items[p])
	}
	// Roots that end count no more when it begins, those that come when it is done.
	m.roots[owner] = slices.DeleteFunc(slices.Clone(m.roots[owner]), func(p int) bool { return !slices.Contains(list, p) })
	err := m.setRoots(owner, items...)
	m.note("roots of %s: %v, %v", owner, list, err)
	if m.must("set roots", err); err == nil {
		m.roots[owner] = list
	}
}

// pass lets time pass: days only where nobody is at work, since no upload takes so long.
func (m *model) pass() {
	busy := m.collecting || len(m.turning) > 0 || slices.ContainsFunc(m.runners[:], func(r *runner) bool { return len(r.queue) > 0 })
	if busy && m.rnd.IntN(4) > 0 {
		time.Sleep(time.Duration(m.rnd.Int64N(int64(time.Hour))))
		return
	}
	if m.collecting {
		return
	}
	clear(m.turning)
	for _, r := range m.runners {
		r.queue, r.nars = nil, nil
	}
	time.Sleep(time.Duration(m.rnd.Int64N(int64(25 * day))))
}

// collectSome collects, by what was asked, by size, or since the disk is full.
func (m *model) collectSome() {
	m.collecting = true
	defer func() { m.collecting = false }()
	r := Request{All: m.rnd.IntN(2) == 0}
	if m.tight && m.rnd.IntN(3) == 0 {
		r.need = int64(m.rnd.IntN(3000))
	}
	res, err := m.Collector.collect(context.Background(), r)
	m.gone += int(res.Paths())
	m.stayed += int(res.Stayed)
	m.note("collected %+v: %d, %v", r, res.Paths(), err)
	if more := noRoomError(0); errors.As(err, &more) {
		return
	}
	m.must("collect", err)
}

// floor is how long what somebody was told stays for certain.
func (m *model) floor() time.Duration {
	if m.tight {
		return m.policy.Lease
	}
	return m.policy.Grace
}

// check checks what must be true at every moment.
func (m *model) check() {
	is := m.here()
	for hash := range is {
		for _, r := range m.items[m.at[hash]].refs {
			if !is[m.items[r].hash()] {
				m.t.Fatalf("%s is here and %s, to which it refers, is not", m.items[m.at[hash]].info.Path, m.items[r].info.Path)
			}
		}
	}
	for owner, list := range m.roots {
		for _, p := range list { // what it refers to is there by the loop above
			if hash := m.items[p].hash(); m.was[hash] && !is[hash] {
				m.t.Fatalf("%s is gone, a root of %s", m.items[p].info.Path, owner)
			}
		}
	}
	for p, at := range m.told {
		if !at.IsZero() && time.Since(at) <= m.floor() && !is[m.items[p].hash()] {
			m.t.Fatalf("%s is gone %s after a runner was told of it", m.items[p].info.Path, time.Since(at))
		}
	}
	m.was = is
}

// end lets all grace pass: only what roots reach stays, and without roots nothing.
func (m *model) end() {
	for _, r := range m.runners {
		r.queue, r.nars = nil, nil
	}
	time.Sleep(40 * day)
	m.world.wrapped = nil
	m.open()
	m.collect(Request{All: true})
	m.check()
	need := make(map[int]bool)
	for _, list := range m.roots {
		for _, p := range list {
			for _, q := range m.closure(p) {
				need[q] = true
			}
		}
	}
	for hash := range m.here() {
		if !need[m.at[hash]] {
			m.t.Fatalf("%s is here and nobody needs it", m.items[m.at[hash]].info.Path)
		}
	}
	for owner := range m.roots {
		m.root(owner)
	}
	m.collect(Request{All: true})
	m.want()
	for range 2 { // NARs that no narinfo named have their own time
		time.Sleep(2 * day)
		if _, _, err := m.uploads.Sweep(time.Now()); err != nil {
			m.t.Fatal(err)
		}
	}
	m.agree()
	for _, name := range m.files.in("") {
		if name != "nix-cache-info" {
			m.t.Fatalf("%s is left", name)
		}
	}
}
