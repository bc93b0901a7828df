// Package statetest holds the tests that every implementation of state.Store
// passes, and a double that runs the function of each Update twice.
package statetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"narwharf/cache/state"
)

// Open makes a new, empty state for one test. reopen closes it and opens it again;
// it is nil where a state does not outlive the process. Open sees to it that the
// state is closed and removed after the test.
type Open func(t *testing.T) (s state.Store, reopen func() state.Store)

// Run holds an implementation to the contract, as it is and through Twice.
func Run(t *testing.T, open Open) {
	t.Run("once", func(t *testing.T) { run(t, open) })
	t.Run("twice", func(t *testing.T) {
		run(t, func(t *testing.T) (state.Store, func() state.Store) {
			s, reopen := open(t)
			if reopen == nil {
				return Twice(s), nil
			}
			return Twice(s), func() state.Store { return Twice(reopen()) }
		})
	})
}

func run(t *testing.T, open Open) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, s *tester)
	}{
		{"values", testValues},
		{"a failed update leaves nothing", testFailure},
		{"a panic is the caller's", testPanic},
		{"ranges", testRanges},
		{"more than a page in a transaction", testEach},
		{"scan", testScan},
		{"scan beside writers", testScanBesideWriters},
		{"clear", testClear},
		{"limits", testLimits},
		{"merge", testMerge},
		{"replace", testReplace},
		{"any order of writes is as a map", testModel},
		{"a lock's updates are one after the other", testCounter},
		{"what is expected is read as else", testExpect},
		{"several locks", testTransfers},
		{"shared locks", testShared},
		{"absence is a fact", testAbsence},
		{"a view sees one moment", testMoment},
		{"log", testLog},
		{"log with many writers", testLogOrder},
		{"notices", testNotices},
		{"context", testContext},
		{"closed", testClosed},
		{"opened again", testReopen},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, reopen := open(t)
			c.test(t, &tester{Store: s, t: t, reopen: reopen})
		})
	}
}

// tester is a state with what tests do all the time. Its methods fail the test, and
// may be called from any goroutine.
type tester struct {
	state.Store
	t      *testing.T
	reopen func() state.Store
}

func (s *tester) update(fn func(tx state.Tx) error, locks ...string) {
	s.t.Helper()
	if err := s.Update(context.Background(), locks, fn); err != nil {
		s.t.Error(err)
	}
}

func (s *tester) view(fn func(tx state.Reader) error) {
	s.t.Helper()
	if err := s.View(context.Background(), fn); err != nil {
		s.t.Error(err)
	}
}

func (s *tester) put(bucket string, pairs ...string) {
	s.t.Helper()
	s.update(func(tx state.Tx) error {
		for i := 0; i < len(pairs); i += 2 {
			if err := tx.Put(bucket, pairs[i], []byte(pairs[i+1])); err != nil {
				return err
			}
		}
		return nil
	})
}

// want compares all of a bucket.
func (s *tester) want(bucket string, pairs ...string) {
	s.t.Helper()
	var got []string
	s.view(func(tx state.Reader) error {
		got = nil
		return state.Each(tx, bucket, state.Range{}, func(e state.Entry) error {
			got = append(got, e.Key, string(e.Value))
			return nil
		})
	})
	if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", pairs) {
		s.t.Errorf("%s has %q, want %q", bucket, clip(got), clip(pairs))
	}
}

func clip(list []string) []string { return list[:min(len(list), 20)] }

// eventually waits for what may take a while.
func (s *tester) eventually(what string, ok func() bool) {
	s.t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("%s: not within 10 s", what)
		}
	}
}

// Twice returns s with the function of each Update run twice: what it did the first
// time is thrown away. A function that relies on running once fails over it.
func Twice(s state.Store) state.Store { return twice{s} }

type twice struct{ state.Store }

var errDiscarded = errors.New("discarded")

func (s twice) Update(ctx context.Context, locks []string, fn func(tx state.Tx) error) error {
	err := s.Store.Update(ctx, locks, func(tx state.Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		return errDiscarded
	})
	if !errors.Is(err, errDiscarded) {
		return err
	}
	return s.Store.Update(ctx, locks, fn)
}

func (s twice) Replace(ctx context.Context, locks []string, bucket string, fill func(put state.PutFunc) error, flip func(tx state.Tx) error) error {
	return state.ReplaceByUpdate(ctx, s, locks, bucket, fill, flip)
}
