package statetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"narwharf/cache/state"
)

func number(tx state.Reader, bucket, key string) (int, error) {
	v, err := tx.Get(bucket, key)
	if err != nil || v == nil {
		return 0, err
	}
	return strconv.Atoi(string(v))
}

// add changes a number by what it reads.
func add(tx state.Tx, bucket, key string, n int) error {
	old, err := number(tx, bucket, key)
	if err != nil {
		return err
	}
	return tx.Put(bucket, key, []byte(strconv.Itoa(old+n)))
}

func testCounter(t *testing.T, s *tester) {
	var wg sync.WaitGroup
	const writers, each = 16, 25
	for w := range writers {
		wg.Go(func() {
			for range each {
				name := fmt.Sprintf("c%d", w%2)
				s.update(func(tx state.Tx) error { return add(tx, "n", name, 1) }, "x", name)
				s.update(func(tx state.Tx) error { return add(tx, "n", name+"-own", 1) }, name)
			}
		})
	}
	wg.Wait()
	s.view(func(tx state.Reader) error {
		for _, name := range []string{"c0", "c1", "c0-own", "c1-own"} {
			if n, err := number(tx, "n", name); n != writers/2*each || err != nil {
				t.Errorf("%s is %d, want %d, %v", name, n, writers/2*each, err)
			}
		}
		return nil
	})
}

// Money goes round between accounts, whose locks are named in any order.
func testTransfers(t *testing.T, s *tester) {
	const accounts = 5
	s.update(func(tx state.Tx) error {
		var errs []error
		for a := range accounts {
			errs = append(errs, add(tx, "account", fmt.Sprint(a), 100))
		}
		return errors.Join(errs...)
	})
	var wg sync.WaitGroup
	for w := range 12 {
		wg.Go(func() {
			for i := range 25 {
				from, to := fmt.Sprint((w+i)%accounts), fmt.Sprint((w*3+i*7+1)%accounts)
				s.update(func(tx state.Tx) error {
					return errors.Join(add(tx, "account", from, -3), add(tx, "account", to, 3))
				}, from, to, from)
				if i%10 == 0 {
					s.wantSum(accounts)
				}
			}
		})
	}
	wg.Wait()
	s.wantSum(accounts)
}

func (s *tester) wantSum(accounts int) {
	s.t.Helper()
	total := 0
	s.view(func(tx state.Reader) error {
		total = 0
		for a := range accounts {
			n, err := number(tx, "account", fmt.Sprint(a))
			if err != nil {
				return err
			}
			total += n
		}
		return nil
	})
	if total != 100*accounts {
		s.t.Errorf("the sum is %d", total)
	}
}

// Who refers to a path locks it shared, who deletes it locks it alone: nothing refers
// to what is not there.
func testShared(t *testing.T, s *tester) {
	var wg sync.WaitGroup
	var inside, together atomic.Int64
	for w := range 12 {
		wg.Go(func() {
			for i := range 20 {
				path := fmt.Sprint(i % 3)
				if w == 0 {
					s.update(func(tx state.Tx) error { return makeOrDelete(tx, path, i%2 == 1) }, path)
					continue
				}
				key := fmt.Sprintf("%s-%d", path, w)
				err := s.Update(context.Background(), []string{state.Shared(path), key}, func(tx state.Tx) error {
					if inside.Add(1) > 1 {
						together.Add(1)
					}
					defer inside.Add(-1)
					return refer(tx, key, path, i%4 < 3)
				})
				if err != nil && !errors.Is(err, errGone) {
					t.Error(err)
				}
				s.view(func(tx state.Reader) error { return dangling(tx) })
			}
		})
	}
	wg.Wait()
	t.Logf("%d updates ran beside another", together.Load())
}

var errGone = errors.New("gone")

// makeOrDelete makes a path, or deletes it if nothing refers to it.
func makeOrDelete(tx state.Tx, path string, create bool) error {
	refs, err := tx.List("ref", state.Prefix(path+"-"))
	switch {
	case err != nil || len(refs) > 0:
		return err
	case create:
		return tx.Put("path", path, nil)
	}
	return tx.Delete("path", path)
}

// refer makes a reference to a path that is there, or takes it away.
func refer(tx state.Tx, key, path string, create bool) error {
	if !create {
		return tx.Delete("ref", key)
	}
	v, err := tx.Get("path", path)
	if err == nil && v == nil {
		err = errGone
	}
	if err != nil {
		return err
	}
	return tx.Put("ref", key, nil)
}

// dangling fails if something refers to what is not there.
func dangling(tx state.Reader) error {
	refs, err := tx.List("ref", state.Range{})
	for _, e := range refs {
		v, err := tx.Get("path", e.Key[:1])
		if err != nil {
			return err
		}
		if v == nil {
			return fmt.Errorf("%s refers to what is not there", e.Key)
		}
	}
	return err
}

func testAbsence(t *testing.T, s *tester) {
	taken := errors.New("taken")
	create := func(name string) error {
		return s.Update(context.Background(), []string{name}, func(tx state.Tx) error {
			list, err := tx.List("names", state.Prefix(name+"/"))
			if err == nil && len(list) > 0 {
				err = taken
			}
			if err != nil {
				return err
			}
			return tx.Put("names", name+"/x", nil)
		})
	}
	for round := range 10 {
		var won atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				err := create(fmt.Sprint(round))
				if err == nil {
					won.Add(1)
				} else if !errors.Is(err, taken) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Errorf("%d won", won.Load())
		}
	}
}

func testMoment(t *testing.T, s *tester) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 1; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			s.update(func(tx state.Tx) error {
				return errors.Join(add(tx, "a", "n", 1), add(tx, "b", "n", 1), tx.Put("c", fmt.Sprintf("%05d", i), nil), tx.Delete("c", fmt.Sprintf("%05d", i-5)))
			}, "x")
		}
	})
	for range 50 {
		s.view(func(tx state.Reader) error {
			a, err := number(tx, "a", "n")
			time.Sleep(time.Millisecond)
			b, err2 := number(tx, "b", "n")
			list, err3 := tx.List("c", state.Range{})
			again, err4 := number(tx, "a", "n")
			if a != b || again != a || len(list) != min(a, 5) {
				t.Errorf("%d, %d, %d with %d entries", a, b, again, len(list))
			}
			return errors.Join(err, err2, err3, err4)
		})
	}
	close(stop)
	wg.Wait()
}

// log reads all of a log from a position on.
func (s *tester) log(name string, from uint64) (all []state.Record) {
	s.t.Helper()
	s.view(func(tx state.Reader) (err error) {
		all, err = tx.ReadLog(name, from, 0)
		return err
	})
	return all
}

func (s *tester) append(name string, values ...string) (positions []uint64) {
	s.t.Helper()
	s.update(func(tx state.Tx) error {
		positions = nil
		for _, v := range values {
			err := tx.Append(name, func(p uint64) ([]byte, error) {
				positions = append(positions, p)
				return []byte(fmt.Sprintf("%d %s", p, v)), nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	return positions
}

func testLog(t *testing.T, s *tester) {
	if got := s.log("log", 0); len(got) > 0 {
		t.Errorf("of a log that is not there: %v", got)
	}
	p := s.append("log", "a", "b", "c")
	s.append("log/other", "x")
	p = append(p, s.append("log", "d")...)
	if !slices.IsSorted(p) || len(slices.Compact(slices.Clone(p))) != 4 || p[0] == 0 || p[3] >= 1<<53 {
		t.Fatalf("positions %v", p)
	}
	s.eventually("the records", func() bool { return len(s.log("log", 0)) == 4 })
	want := func(got []state.Record, values ...string) {
		t.Helper()
		for i, r := range got {
			if i >= len(values) || string(r.Value) != fmt.Sprintf("%d %s", r.Position, values[i]) {
				t.Errorf("record %d is %d %q, want %q", i, r.Position, r.Value, values)
			}
		}
		if len(got) != len(values) {
			t.Errorf("%d records, want %q", len(got), values)
		}
	}
	want(s.log("log", 0), "a", "b", "c", "d")
	want(s.log("log", p[1]), "b", "c", "d")
	want(s.log("log", p[1]+1), "c", "d")
	want(s.log("log", p[3]+1))
	s.view(func(tx state.Reader) error {
		got, err := tx.ReadLog("log", p[1], 2)
		want(got, "b", "c")
		return err
	})
	stop := errors.New("stop")
	err := s.Update(t.Context(), nil, func(tx state.Tx) error {
		return errors.Join(tx.Append("log", func(uint64) ([]byte, error) { return nil, nil }), stop)
	})
	if !errors.Is(err, stop) {
		t.Fatal(err)
	}
	s.update(func(tx state.Tx) error { return errors.Join(tx.Trim("log", p[2]), tx.Trim("none", 5)) })
	want(s.log("log", 0), "c", "d")
	s.update(func(tx state.Tx) error { return tx.Trim("log", p[3]+1) })
	want(s.log("log", 0))
	q := s.append("log", "e")
	if q[0] <= p[3] {
		t.Errorf("position %d after %v", q[0], p)
	}
	s.eventually("the record after a trim", func() bool { return len(s.log("log", 0)) == 1 })
	want(s.log("log", p[3]), "e")
}

// Many write and some fail; whoever follows the log misses nothing.
func testLogOrder(t *testing.T, s *tester) {
	const writers, each = 12, 25
	want := 0
	for i := range each {
		if i%5 != 4 {
			want += writers * (1 + i%3)
		}
	}
	var wg, followers sync.WaitGroup
	done := make(chan struct{})
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if err := s.appendSome(w, i); err != nil && !errors.Is(err, errNot) {
					t.Error(err)
				}
			}
		})
	}
	for limit := range 3 {
		followers.Go(func() {
			if got := s.follow(1+limit*20, want, done); got != want || len(s.log("log", 0)) != want {
				t.Errorf("a follower saw %d records and there are %d, of %d", got, len(s.log("log", 0)), want)
			}
		})
	}
	wg.Wait()
	close(done)
	followers.Wait()
}

var errNot = errors.New("not this one")

// appendSome appends one to three records, and fails after each fifth time.
func (s *tester) appendSome(w, i int) error {
	return s.Update(context.Background(), []string{fmt.Sprint(w)}, func(tx state.Tx) error {
		for range 1 + i%3 {
			if err := tx.Append("log", func(p uint64) ([]byte, error) { return []byte(state.Uint64Key(p)), nil }); err != nil {
				return err
			}
		}
		if w%3 == 0 {
			time.Sleep(time.Duration(i%4) * time.Millisecond) // after it has its position
		}
		if i%5 == 4 {
			return errNot
		}
		return nil
	})
}

// follow reads a log from its beginning until done is closed and want records came,
// and then for a while no more.
func (s *tester) follow(limit, want int, done <-chan struct{}) (got int) {
	next := uint64(0)
	read := func() {
		var page []state.Record
		s.view(func(tx state.Reader) (err error) {
			page, err = tx.ReadLog("log", next, limit)
			return err
		})
		for _, r := range page {
			if r.Position < next || state.Uint64(r.Value) != r.Position {
				s.t.Errorf("record %d says it is %d, after %d", r.Position, state.Uint64(r.Value), next)
			}
			next = r.Position + 1
		}
		got += len(page)
	}
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
			read()
		}
	}
	for end := time.Now().Add(10 * time.Second); got < want && time.Now().Before(end); {
		read()
	}
	read()
	return got
}

// ear is a watcher that remembers.
type ear struct {
	s     *tester
	mu    sync.Mutex
	busy  bool
	heard map[string]int
	looks sync.WaitGroup
}

func (e *ear) hear(topics []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.busy {
		e.s.t.Error("called by two at once")
	}
	e.busy = true
	defer func() { e.busy = false }()
	for _, topic := range topics {
		if e.heard[topic]++; strings.HasPrefix(topic, "k:") {
			e.looks.Go(func() { e.s.wantNoticed(topic) })
		}
	}
}

// wantNoticed holds that a change is there when its notice is.
func (s *tester) wantNoticed(key string) {
	s.view(func(tx state.Reader) error {
		v, err := tx.Get("b", key)
		if v == nil {
			s.t.Errorf("notice of %s, which is not there", key)
		}
		return err
	})
}

func (e *ear) has(topic string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.heard[topic] > 0 || topic != "failed" && e.heard[state.All] > 0
}

func testNotices(t *testing.T, s *tester) {
	one, other := &ear{s: s, heard: map[string]int{}}, &ear{s: s, heard: map[string]int{}}
	stop, stopOther := s.Watch(one.hear), s.Watch(other.hear)
	boom := errors.New("boom")
	err := s.Update(t.Context(), nil, func(tx state.Tx) error { tx.Notify("failed"); return boom })
	if !errors.Is(err, boom) {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			key := fmt.Sprintf("k:%d", i)
			s.update(func(tx state.Tx) error {
				tx.Notify(key, "every")
				tx.Notify()
				return tx.Put("b", key, nil)
			})
		})
	}
	wg.Wait()
	for i := range 20 {
		s.eventually("a notice", func() bool { return one.has(fmt.Sprintf("k:%d", i)) })
	}
	s.eventually("a notice of all", func() bool { return one.has("every") })
	stop()
	if one.has("failed") {
		t.Error("a notice of an update that failed")
	}
	before := len(one.heard) // nobody changes it any more
	s.update(func(tx state.Tx) error { tx.Notify("late"); return nil })
	s.eventually("a notice for the other watcher", func() bool { return other.has("late") })
	if len(one.heard) != before {
		t.Error("a notice after stop")
	}
	stop()
	stopOther()
	one.looks.Wait()
	other.looks.Wait()
}

func testContext(t *testing.T, s *tester) {
	over, cancel := context.WithCancel(t.Context())
	cancel()
	ran := false
	for op, err := range map[string]error{
		"View":    s.View(over, func(state.Reader) error { ran = true; return nil }),
		"Update":  s.Update(over, []string{"x"}, func(state.Tx) error { ran = true; return nil }),
		"Scan":    s.Scan(over, "b", state.Range{}, func([]state.Entry) error { return nil }),
		"Merge":   s.Merge(over, "b", map[string]uint64{"k": 1}),
		"Replace": s.Replace(over, nil, "b", func(put state.PutFunc) error { return put("b", "k", nil) }, func(state.Tx) error { return nil }),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", op, err)
		}
	}
	if ran {
		t.Error("a function ran")
	}
	within, cancel := context.WithCancel(t.Context())
	err := s.Update(within, []string{"x"}, func(tx state.Tx) error {
		err := tx.Put("b", "k", nil)
		cancel()
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("ended within: %v", err)
	}
	s.want("b")
	s.update(func(tx state.Tx) error { return tx.Put("b", "l", nil) }, "x")
	s.want("b", "l", "")
}

func testClosed(t *testing.T, s *tester) {
	began, end := make(chan struct{}), make(chan struct{})
	var once sync.Once
	updated := make(chan error)
	go func() {
		updated <- s.Update(context.Background(), nil, func(tx state.Tx) error {
			once.Do(func() { close(began) })
			<-end
			return tx.Put("b", "k", []byte("v"))
		})
	}()
	<-began
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	select {
	case <-closed:
		t.Error("Close did not wait for a transaction")
	case <-time.After(30 * time.Millisecond):
	}
	close(end)
	err := <-updated
	if err != nil && !errors.Is(err, state.ErrClosed) { // the double begins anew
		t.Error(err)
	}
	acknowledged := err == nil
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close again: %v", err)
	}
	for op, err := range map[string]error{
		"View":    s.View(t.Context(), func(state.Reader) error { return nil }),
		"Update":  s.Update(t.Context(), nil, func(state.Tx) error { return nil }),
		"Scan":    s.Scan(t.Context(), "b", state.Range{}, func([]state.Entry) error { return nil }),
		"Merge":   s.Merge(t.Context(), "b", map[string]uint64{"k": 1}),
		"Replace": s.Replace(t.Context(), nil, "b", func(state.PutFunc) error { return nil }, func(state.Tx) error { return nil }),
	} {
		if !errors.Is(err, state.ErrClosed) {
			t.Errorf("%s: %v", op, err)
		}
	}
	s.Watch(func([]string) {})()
	if s.reopen != nil && acknowledged {
		s.Store = s.reopen()
		s.want("b", "k", "v")
	}
}

func testReopen(t *testing.T, s *tester) {
	if s.reopen == nil {
		t.Skip("it does not outlive the process")
	}
	s.put("b", "k", "v")
	s.put("b/below", "k", "w")
	p := s.append("log", "a", "b")
	s.update(func(tx state.Tx) error { return tx.Trim("log", p[1]+1) })
	s.Store = s.reopen()
	s.want("b", "k", "v")
	s.want("b/below", "k", "w")
	if q := s.append("log", "c"); q[0] <= p[1] {
		t.Errorf("position %d after %v", q[0], p)
	}
}
