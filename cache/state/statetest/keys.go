package statetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"narwharf/cache/state"
)

func testValues(t *testing.T, s *tester) {
	value := []byte("one")
	s.update(func(tx state.Tx) error {
		if v, err := tx.Get("b", "k"); v != nil || err != nil {
			t.Errorf("of an absent bucket: %q, %v", v, err)
		}
		if err := errors.Join(tx.Put("b", "k", value), tx.Put("b", "nil", nil), tx.Put("b", "empty", []byte{})); err != nil {
			return err
		}
		v, err := tx.Get("b", "k")
		if string(v) != "one" {
			t.Errorf("an update does not read what it wrote: %q", v)
		}
		list, err2 := tx.List("b", state.Range{})
		if len(list) != 3 {
			t.Errorf("nor lists it: %q", list)
		}
		return errors.Join(err, err2)
	})
	value[0] = 'X'
	s.want("b", "empty", "", "k", "one", "nil", "")
	s.wantNothing()
	var kept []byte
	var entries []state.Entry
	s.view(func(tx state.Reader) (err error) {
		if kept, err = tx.Get("b", "k"); err != nil {
			return err
		}
		entries, err = tx.List("b", state.Range{From: "k", Limit: 1})
		return err
	})
	s.put("b", "k", "two")
	if string(kept) != "one" || string(entries[0].Value) != "one" {
		t.Errorf("a value changed after its transaction: %q, %q", kept, entries[0].Value)
	}
	kept[0], entries[0].Value[0] = 'Y', 'Y'
	s.update(func(tx state.Tx) error {
		return errors.Join(tx.Delete("b", "nil"), tx.Delete("b", "none"), tx.Delete("none", "k"))
	})
	s.want("b", "empty", "", "k", "two")
	s.view(func(tx state.Reader) error {
		now, err := tx.Now()
		if now.IsZero() {
			t.Error("no time")
		}
		return err
	})
}

// wantNothing looks for what is empty and what is not there.
func (s *tester) wantNothing() {
	s.view(func(tx state.Reader) error {
		for _, key := range []string{"nil", "empty"} {
			if v, err := tx.Get("b", key); v == nil || len(v) > 0 || err != nil {
				s.t.Errorf("%s: %#v, %v", key, v, err)
			}
		}
		for _, at := range [][2]string{{"b", "none"}, {"none", "k"}, {"b/k", "k"}, {"b", ""}} {
			if v, err := tx.Get(at[0], at[1]); v != nil || err != nil {
				s.t.Errorf("%q: %q, %v", at, v, err)
			}
		}
		return nil
	})
}

func testFailure(t *testing.T, s *tester) {
	s.put("b", "k", "one", "l", "two")
	s.put("b/nested", "k", "one")
	boom := errors.New("boom")
	err := s.Update(t.Context(), []string{"x"}, func(tx state.Tx) error {
		err := errors.Join(tx.Put("b", "k", []byte("X")), tx.Put("b", "m", nil), tx.Delete("b", "l"), tx.Put("new", "k", nil),
			tx.Delete("b", "m"), tx.Put("b", "l", nil), tx.Clear("b"), tx.Put("b", "k", nil),
			tx.Append("log", func(uint64) ([]byte, error) { return []byte("X"), nil }))
		if err != nil {
			t.Error(err)
		}
		return boom
	})
	if err != boom { //nolint:errorlint // as it is
		t.Errorf("error %v", err)
	}
	s.want("b", "k", "one", "l", "two")
	s.want("b/nested", "k", "one")
	s.want("new")
	err = s.Update(t.Context(), nil, func(tx state.Tx) error {
		return tx.Append("log", func(uint64) ([]byte, error) { return nil, boom })
	})
	if !errors.Is(err, boom) {
		t.Errorf("an error of encode: %v", err)
	}
	if got := s.log("log", 0); len(got) > 0 {
		t.Errorf("records %v", got)
	}
}

func testPanic(t *testing.T, s *tester) {
	func() {
		defer func() {
			if r := recover(); r != "boom" {
				t.Errorf("recovered %v", r)
			}
		}()
		_ = s.Update(t.Context(), []string{"x"}, func(tx state.Tx) error {
			_ = tx.Put("b", "k", nil)
			panic("boom")
		})
	}()
	func() {
		defer func() { _ = recover() }()
		_ = s.View(t.Context(), func(state.Reader) error { panic("boom") })
	}()
	s.want("b")
	s.update(func(tx state.Tx) error { return tx.Put("b", "l", nil) }, "x")
	s.want("b", "l", "")
}

// awkward are keys in order.
var awkward = []string{"\x00", "\x00\x00", "a", "a\x00", "aa", "ab", "a\xff", "a\xff\xff", "b", "ä", "\xfe\xff", "\xff", "\xff\x00", "\xff\xff"}

func testRanges(t *testing.T, s *tester) {
	s.update(func(tx state.Tx) error {
		var errs []error
		for _, k := range slices.Backward(awkward) {
			errs = append(errs, tx.Put("b", k, []byte("v"+k)))
		}
		return errors.Join(errs...)
	})
	s.put("b2", "a", "other bucket")
	bounds := append([]string{""}, awkward...)
	for _, from := range bounds {
		for _, to := range bounds {
			for _, limit := range []int{0, 1, 3} {
				s.wantRange(state.Range{From: from, To: to, Limit: limit})
				s.wantRange(state.Range{From: from, To: to, Limit: limit, Reverse: true})
			}
		}
		s.wantList(state.Prefix(from), choose(awkward, func(k string) bool { return strings.HasPrefix(k, from) }))
	}
	s.wantList(state.Range{}.After("aa"), awkward[5:])
	s.wantList(state.Range{Reverse: true}.After("aa"), []string{"a\x00", "a", "\x00\x00", "\x00"})
}

func choose(keys []string, ok func(k string) bool) []string {
	return slices.DeleteFunc(slices.Clone(keys), func(k string) bool { return !ok(k) })
}

// within is what a range has of keys that are in order.
func within(r state.Range, keys []string) []string {
	list := choose(keys, func(k string) bool { return k >= r.From && (r.To == "" || k < r.To) })
	if r.Reverse {
		slices.Reverse(list)
	}
	if r.Limit > 0 {
		list = list[:min(r.Limit, len(list))]
	}
	return list
}

func (s *tester) wantRange(r state.Range) {
	s.t.Helper()
	s.wantList(r, within(r, awkward))
}

func (s *tester) wantList(r state.Range, want []string) {
	s.t.Helper()
	s.view(func(tx state.Reader) error {
		list, err := tx.List("b", r)
		var got []string
		for _, e := range list {
			got = append(got, e.Key)
			if string(e.Value) != "v"+e.Key {
				s.t.Errorf("%q has the value %q", e.Key, e.Value)
			}
		}
		if !slices.Equal(got, want) {
			s.t.Errorf("%+v: %q, want %q", r, got, want)
		}
		return err
	})
}

// fill puts n keys 00000, 00001, … into a bucket.
func (s *tester) fill(bucket string, n int) (keys []string) {
	s.t.Helper()
	for i := range n {
		keys = append(keys, fmt.Sprintf("%05d", i))
	}
	s.update(func(tx state.Tx) error {
		for _, k := range keys {
			if err := tx.Put(bucket, k, []byte(k)); err != nil {
				return err
			}
		}
		return nil
	})
	return keys
}

func testEach(t *testing.T, s *tester) {
	keys := s.fill("b", state.MaxPage+5)
	for _, r := range []state.Range{{}, {Reverse: true}, {Limit: 3}, {Limit: state.MaxPage + 2}, {Limit: state.MaxPage}, {From: "00003"}} {
		want := within(r, keys)
		var got []string
		s.view(func(tx state.Reader) error {
			got = nil
			list, err := tx.List("b", r)
			if err != nil || len(list) > state.MaxPage || len(list) < min(len(want), state.MaxPage) {
				t.Errorf("%+v: a list of %d, %v", r, len(list), err)
			}
			return state.Each(tx, "b", r, func(e state.Entry) error { got = append(got, e.Key); return nil })
		})
		if !slices.Equal(got, want) {
			t.Errorf("%+v: %d keys, want %d", r, len(got), len(want))
		}
	}
	stop, calls := errors.New("stop"), 0
	err := s.View(t.Context(), func(tx state.Reader) error {
		return state.Each(tx, "b", state.Range{}, func(state.Entry) error { calls++; return stop })
	})
	if !errors.Is(err, stop) || calls != 1 {
		t.Errorf("%d calls, %v", calls, err)
	}
}

func testScan(t *testing.T, s *tester) {
	keys := s.fill("b", 2*state.MaxPage+5)
	for _, r := range []state.Range{{}, {Reverse: true}, {Limit: 7}, {Limit: state.MaxPage + 7}, {From: "00010", To: "00020"}, {From: "x"}} {
		want := within(r, keys)
		var got []string
		err := s.Scan(t.Context(), "b", r, func(page []state.Entry) error {
			if len(page) == 0 || len(page) > state.MaxPage {
				t.Errorf("a page of %d", len(page))
			}
			for _, e := range page {
				got = append(got, e.Key)
			}
			s.put("seen", page[0].Key, "") // no transaction is open
			return nil
		})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%+v: %d keys, want %d, %v", r, len(got), len(want), err)
		}
	}
	stop, calls := errors.New("stop"), 0
	if err := s.Scan(t.Context(), "b", state.Range{}, func([]state.Entry) error { calls++; return stop }); !errors.Is(err, stop) || calls != 1 {
		t.Errorf("%d calls, %v", calls, err)
	}
}

// Keys that are there from beginning to end are seen once, in order, whatever comes
// and goes between them.
func testScanBesideWriters(t *testing.T, s *tester) {
	keys := s.fill("b", state.MaxPage+50)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				k := keys[(i*97+w*31)%len(keys)] + fmt.Sprintf("-%d", w)
				s.update(func(tx state.Tx) error {
					if i%2 == 1 {
						return tx.Delete("b", k)
					}
					return tx.Put("b", k, nil)
				})
			}
		})
	}
	for range 3 {
		var all []string
		err := s.Scan(context.Background(), "b", state.Range{}, func(page []state.Entry) error {
			for _, e := range page {
				all = append(all, e.Key)
			}
			return nil
		})
		lasting := choose(all, func(k string) bool { return len(k) == 5 })
		if err != nil || !slices.IsSorted(all) || !slices.Equal(lasting, keys) || len(slices.Compact(all)) != len(all) {
			t.Errorf("%d keys, of which %d last, want %d, %v", len(all), len(lasting), len(keys), err)
		}
	}
	close(stop)
	wg.Wait()
}

func testClear(t *testing.T, s *tester) {
	buckets := []string{"a", "a/b", "a/b/c", "a/bc", "ab", "a0", "b/a"}
	for _, b := range buckets {
		s.put(b, "k", "v", "l", "w")
	}
	s.update(func(tx state.Tx) error {
		if err := tx.Clear("a/b"); err != nil {
			return err
		}
		list, err := tx.List("a/b/c", state.Range{})
		if len(list) > 0 {
			t.Errorf("within the transaction: %q", list)
		}
		return errors.Join(err, tx.Clear("none"), tx.Clear("none/below"), tx.Clear("a/none"))
	})
	for _, b := range buckets {
		if b == "a/b" || b == "a/b/c" {
			s.want(b)
		} else {
			s.want(b, "k", "v", "l", "w")
		}
	}
	s.update(func(tx state.Tx) error { return errors.Join(tx.Clear("a"), tx.Put("a/b", "new", nil)) })
	s.want("a/b", "new", "")
	s.want("a/bc")
	s.want("a")
	s.want("ab", "k", "v", "l", "w")
	s.want("a0", "k", "v", "l", "w")
}

func testLimits(t *testing.T, s *tester) {
	for what, c := range map[string]struct {
		bucket, key string
		size        int
	}{
		"no key":                 {"b", "", 1},
		"long key":               {"b", strings.Repeat("k", state.MaxKey+1), 1},
		"large value":            {"b", "k", state.MaxValue + 1},
		"no bucket":              {"", "k", 1},
		"bucket with end":        {"b/", "k", 1},
		"bucket with begin":      {"/b", "k", 1},
		"bucket with nothing":    {"a//b", "k", 1},
		"bucket with NUL":        {"a\x00", "k", 1},
		"bucket that is no text": {"a\xff", "k", 1},
		"long bucket":            {strings.Repeat("b", state.MaxBucket+1), "k", 1},
	} {
		err := s.Update(t.Context(), nil, func(tx state.Tx) error {
			return errors.Join(tx.Put("other", "k", nil), tx.Put(c.bucket, c.key, make([]byte, c.size)))
		})
		if !errors.Is(err, state.ErrLimit) {
			t.Errorf("%s: %v", what, err)
		}
	}
	err := s.Update(t.Context(), nil, func(tx state.Tx) error {
		return tx.Append("log", func(uint64) ([]byte, error) { return make([]byte, state.MaxValue+1), nil })
	})
	if !errors.Is(err, state.ErrLimit) {
		t.Errorf("large record: %v", err)
	}
	s.want("other")
	key, bucket := strings.Repeat("\xff", state.MaxKey), strings.Repeat("b", state.MaxBucket)
	s.put(bucket, key, strings.Repeat("v", state.MaxValue))
	s.view(func(tx state.Reader) error {
		v, err := tx.Get(bucket, key)
		if len(v) != state.MaxValue {
			t.Errorf("a value of %d bytes", len(v))
		}
		return err
	})
}

func testMerge(t *testing.T, s *tester) {
	merge := func(values map[string]uint64) {
		t.Helper()
		if err := s.Merge(t.Context(), "days", values); err != nil {
			t.Error(err)
		}
	}
	wide := map[string]uint64{}
	for i := range state.MaxPage + 3 {
		wide[fmt.Sprintf("w%d", i)] = uint64(i)
	}
	merge(nil)
	merge(map[string]uint64{"a": 5, "b": 0, "c": 1 << 63})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() { merge(map[string]uint64{"a": uint64(i), "b": 300 - uint64(i), "d": uint64(i)}) })
	}
	wg.Wait()
	merge(wide)
	maps.Copy(wide, map[string]uint64{"a": 7, "b": 300, "c": 1 << 63, "d": 7})
	got := map[string]uint64{}
	s.view(func(tx state.Reader) error {
		return state.Each(tx, "days", state.Range{}, func(e state.Entry) error {
			got[e.Key] = state.Uint64(e.Value)
			return nil
		})
	})
	if !maps.Equal(got, wide) {
		t.Errorf("%d values, want %d; a=%d b=%d d=%d", len(got), len(wide), got["a"], got["b"], got["d"])
	}
	if err := s.Merge(t.Context(), "days", map[string]uint64{"": 1}); !errors.Is(err, state.ErrLimit) {
		t.Errorf("no key: %v", err)
	}
}

func testReplace(t *testing.T, s *tester) {
	s.put("g/1/t", "old", "")
	s.put("g/2/t", "rubbish", "")
	s.put("g/meta", "now", "1")
	stop := errors.New("stop")
	flip := func(tx state.Tx) error {
		return errors.Join(tx.Put("g/meta", "now", []byte("2")), tx.Clear("g/1"))
	}
	fill := func(put state.PutFunc) error {
		for i := range 200 {
			if err := put("g/2/t", fmt.Sprintf("%03d", i), make([]byte, 100<<10)); err != nil {
				return err
			}
		}
		s.want("g/1/t", "old", "") // readers have the old
		return put("g/2", "k", []byte("v"))
	}
	err := s.Replace(t.Context(), []string{"g"}, "g/2", func(put state.PutFunc) error {
		return errors.Join(fill(put), stop)
	}, func(state.Tx) error { t.Error("flip after an error of fill"); return nil })
	if !errors.Is(err, stop) {
		t.Errorf("error of fill: %v", err)
	}
	if err := s.Replace(t.Context(), []string{"g"}, "g/2", fill, func(tx state.Tx) error { return errors.Join(flip(tx), stop) }); !errors.Is(err, stop) {
		t.Errorf("error of flip: %v", err)
	}
	for _, outside := range []string{"g", "g/22", "g/1/t"} {
		err := s.Replace(t.Context(), nil, "g/2", func(put state.PutFunc) error { return put(outside, "k", nil) }, func(state.Tx) error { return nil })
		if err == nil {
			t.Errorf("put into %s", outside)
		}
	}
	s.want("g/1/t", "old", "")
	s.want("g/meta", "now", "1")
	if err := s.Replace(t.Context(), []string{"g"}, "g/2", fill, flip); err != nil {
		t.Fatal(err)
	}
	s.want("g/1/t")
	s.want("g/2", "k", "v")
	s.want("g/meta", "now", "2")
	n := 0
	s.view(func(tx state.Reader) error {
		n = 0
		return state.Each(tx, "g/2/t", state.Range{}, func(e state.Entry) error {
			if n++; len(e.Value) != 100<<10 {
				t.Errorf("%s: %d bytes", e.Key, len(e.Value))
			}
			return nil
		})
	})
	if n != 200 {
		t.Errorf("%d entries", n)
	}
}

// model is what buckets should have.
type model map[string]map[string]string

func (m model) clone() model {
	c := model{}
	for b, entries := range m {
		c[b] = maps.Clone(entries)
	}
	return c
}

type write struct{ op, bucket, key, value string }

func (w write) toModel(m model) {
	switch w.op {
	case "put":
		m[w.bucket][w.key] = w.value
	case "delete":
		delete(m[w.bucket], w.key)
	case "clear":
		clear(m[w.bucket])
	}
}

func (w write) toState(tx state.Tx) error {
	switch w.op {
	case "put":
		return tx.Put(w.bucket, w.key, []byte(w.value))
	case "delete":
		return tx.Delete(w.bucket, w.key)
	}
	return tx.Clear(w.bucket)
}

func writeAll(tx state.Tx, writes []write) error {
	for _, w := range writes {
		if err := w.toState(tx); err != nil {
			return err
		}
	}
	return nil
}

// testModel draws transactions, some of which fail, and compares with maps.
func testModel(_ *testing.T, s *tester) {
	n := 0
	rapid.Check(s.t, func(rt *rapid.T) {
		n++
		root := fmt.Sprintf("m%d", n)
		now := model{}
		for _, b := range []string{"a", "b", "a-b", "c/d"} {
			now[root+"/"+b] = map[string]string{}
		}
		draw := rapid.Custom(func(rt *rapid.T) write {
			return write{
				rapid.SampledFrom([]string{"put", "put", "put", "delete", "clear"}).Draw(rt, "op"),
				rapid.SampledFrom(slices.Sorted(maps.Keys(now))).Draw(rt, "bucket"),
				rapid.SampledFrom(awkward).Draw(rt, "key"), rapid.StringN(0, 4, 8).Draw(rt, "value"),
			}
		})
		for range rapid.IntRange(1, 4).Draw(rt, "transactions") {
			next := now.clone()
			writes := rapid.SliceOfN(draw, 0, 12).Draw(rt, "writes")
			for _, w := range writes {
				w.toModel(next)
			}
			var stop error
			if rapid.Bool().Draw(rt, "fail") {
				stop = errNot
			}
			err := s.Update(context.Background(), []string{root}, func(tx state.Tx) error {
				err := writeAll(tx, writes)
				sameAs(rt, tx, next)
				return errors.Join(err, stop)
			})
			if stop == nil && err != nil || !errors.Is(err, stop) {
				rt.Fatal(err)
			}
			if stop == nil {
				now = next
			}
			s.view(func(tx state.Reader) error { sameAs(rt, tx, now); return nil })
		}
	})
}

func sameAs(rt *rapid.T, tx state.Reader, want model) {
	for b, m := range want {
		list, err := tx.List(b, state.Range{})
		if err != nil {
			rt.Fatal(err)
		}
		var got, all []string
		for _, e := range list {
			got = append(got, e.Key, string(e.Value))
		}
		for _, k := range slices.Sorted(maps.Keys(m)) {
			all = append(all, k, m[k])
		}
		if !slices.Equal(got, all) {
			rt.Fatalf("%s has %q, want %q", b, got, all)
		}
	}
}
