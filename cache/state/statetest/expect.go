package statetest

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"narwharf/cache/state"
)

// What an Update says that it is going to read it reads as else: under its locks, with what it wrote itself,
// and whether or not it said it rightly.
func testExpect(t *testing.T, s *tester) {
	expect := state.Expect(context.Background(), state.Expected{Append: true, Keys: []state.Key{{Bucket: "n", Key: "a"}, {Bucket: "n", Key: "none"}, {Bucket: "n", Key: "empty"}}})
	s.put("n", "empty", "", "other", "5")
	var wg sync.WaitGroup
	const writers, each = 8, 20
	for range writers {
		wg.Go(func() {
			for range each {
				err := s.Update(expect, []string{"n"}, func(tx state.Tx) error { return add(tx, "n", "a", 1) })
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	var last uint64
	err := s.Update(expect, []string{"n"}, func(tx state.Tx) error {
		get := func(key, want string) {
			v, err := tx.Get("n", key)
			if got := fmt.Sprintf("%s %t", v, v == nil); got != want || err != nil {
				t.Errorf("%s is %q, want %q, %v", key, got, want, err)
			}
		}
		get("a", fmt.Sprint(writers*each, " false"))
		get("none", " true")
		get("empty", " false")
		get("other", "5 false")
		for _, put := range []string{"1", "2"} {
			if err := tx.Put("n", "none", []byte(put)); err != nil {
				return err
			}
			get("none", put+" false")
			if _, err := tx.List("n", state.Range{}); err != nil { // which has it written
				return err
			}
			get("none", put+" false")
		}
		if err := tx.Delete("n", "a"); err != nil {
			return err
		}
		get("a", " true")
		if err := tx.Clear("n"); err != nil {
			return err
		}
		get("empty", " true")
		get("none", " true")
		for range 2 {
			if err := tx.Append("log", func(p uint64) ([]byte, error) {
				if p <= last {
					t.Errorf("position %d after %d", p, last)
				}
				last = p
				return nil, nil
			}); err != nil {
				return err
			}
		}
		last = 0
		return tx.Put("n", "z", []byte("1"))
	})
	if err != nil {
		t.Error(err)
	}
	s.want("n", "z", "1")
	s.update(func(tx state.Tx) error { // said rightly or not
		return tx.Put("n", "z", []byte("2"))
	})
	if err := s.Update(expect, nil, func(state.Tx) error { return nil }); err != nil {
		t.Error(err)
	}
}
