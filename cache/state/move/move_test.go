package move

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"narwharf/cache/state"
	"narwharf/cache/state/bolt"
	"narwharf/cache/state/postgres"
	"narwharf/cache/state/postgres/postgrestest"
)

func file(t *testing.T, place string) *bolt.Store {
	t.Helper()
	s, err := bolt.Open(filepath.Join(t.TempDir(), "db"), bolt.Options{NoSync: true, Place: place})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// change makes some changes of every kind.
func change(t *testing.T, s state.Store, seed uint64, n int) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	for range n {
		err := s.Update(t.Context(), nil, func(tx state.Tx) error {
			for range 50 {
				bucket, key := []string{"a", "a/b", "a-c", "z/y/x"}[r.IntN(4)], fmt.Sprint(r.IntN(4000))
				err := tx.Put(bucket, key, []byte(strings.Repeat("v", r.IntN(30))))
				if r.IntN(4) == 0 {
					err = tx.Delete(bucket, key)
				}
				if err == nil && r.IntN(3) == 0 {
					err = tx.Append("log/events", func(p uint64) ([]byte, error) { return fmt.Append(nil, "record ", p), nil })
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func sync2(t *testing.T, from, to state.Movable, check bool) Result {
	t.Helper()
	r, err := Sync(t.Context(), from, to, Options{Check: check, Step: "rows"})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// next is the position that a record gets which is appended.
func next(t *testing.T, s state.Store) (position uint64) {
	t.Helper()
	err := s.Update(t.Context(), nil, func(tx state.Tx) error {
		return tx.Append("log/events", func(p uint64) ([]byte, error) { position = p; return nil, nil })
	})
	if err != nil {
		t.Fatal(err)
	}
	return position
}

func positions(t *testing.T, s state.Movable) (all []uint64) {
	t.Helper()
	list, err := s.Records(t.Context(), "log/events", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range list {
		all = append(all, r.Position)
	}
	return all
}

// moves are the ways between kinds of stores.
func moves(t *testing.T, do func(t *testing.T, open func(t *testing.T, place string) (from, to state.Movable))) {
	t.Run("file to file", func(t *testing.T) {
		do(t, func(t *testing.T, place string) (state.Movable, state.Movable) { return file(t, place), file(t, place) })
	})
	db := postgrestest.Need(t, "fsync=off")
	base := func(t *testing.T, place string) state.Movable {
		t.Helper()
		name, err := db.Database()
		if err != nil {
			t.Fatal(err)
		}
		s, err := postgres.Open(t.Context(), postgres.Options{URL: db.URL(name), Place: place})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	t.Run("file to database", func(t *testing.T) {
		do(t, func(t *testing.T, place string) (state.Movable, state.Movable) { return file(t, place), base(t, place) })
	})
	t.Run("database to file", func(t *testing.T) {
		do(t, func(t *testing.T, place string) (state.Movable, state.Movable) { return base(t, place), file(t, place) })
	})
}

// A state is copied, changes are caught up with, and a frozen one is compared to the last row. New records come
// behind the copied ones.
func TestSync(t *testing.T) {
	moves(t, func(t *testing.T, open func(*testing.T, string) (from, to state.Movable)) {
		from, to := open(t, "there")
		change(t, from, 1, 60)
		first := sync2(t, from, to, false)
		if first.Rows < 1000 || first.Changed != first.Rows {
			t.Errorf("the first copy: %+v", first)
		}
		if again := sync2(t, from, to, true); again.Changed != 0 || again.Rows != first.Rows {
			t.Errorf("nothing has changed: %+v", again)
		}
		change(t, from, 2, 3)
		change(t, to, 3, 1) // what others did to it goes
		if caught := sync2(t, from, to, false); caught.Changed == 0 || caught.Changed > 400 {
			t.Errorf("catching up: %+v", caught)
		}
		if err := from.Freeze(t.Context(), &state.Freeze{Why: "it moves"}); err != nil {
			t.Fatal(err)
		}
		if last := sync2(t, from, to, true); last.Changed != 0 {
			t.Errorf("after all: %+v", last)
		}
		all := positions(t, to)
		if p := next(t, to); p <= all[len(all)-1] {
			t.Errorf("a new record is at %d, and the last copied one at %d", p, all[len(all)-1])
		}
		if got := sync2(t, from, to, true); got.Changed != 1 || !strings.HasPrefix(got.First, "log/events ") {
			t.Errorf("a record that one has alone: %+v", got)
		}
	})
}

// A copy that is ended anywhere goes on.
func TestSyncGoesOn(t *testing.T) {
	from := file(t, "")
	change(t, from, 1, 100)
	whole := sync2(t, from, file(t, ""), false)
	for n := 1; ; n++ {
		to := file(t, "")
		stopping := &stopping{Movable: to, left: n}
		_, err := Sync(t.Context(), from, stopping, Options{})
		if err != nil && !errors.Is(err, errStopped) {
			t.Fatal(err)
		}
		if r := sync2(t, from, to, false); r.Rows != whole.Rows || n > 1 && r.Changed >= whole.Changed {
			t.Errorf("after %d writes: %+v", n, r)
		}
		if r := sync2(t, from, to, true); r.Changed != 0 {
			t.Errorf("after %d writes: %+v", n, r)
		}
		if err == nil {
			break
		}
	}
}

var errStopped = errors.New("stopped")

// stopping fails after some writes.
type stopping struct {
	state.Movable
	left int
}

func (s *stopping) Update(ctx context.Context, locks []string, fn func(tx state.Tx) error) error {
	if s.left--; s.left < 0 {
		return errStopped
	}
	return s.Movable.Update(ctx, locks, fn)
}

func (s *stopping) Restore(ctx context.Context, log string, from, to uint64, records []state.Record) error {
	if s.left--; s.left < 0 {
		return errStopped
	}
	return s.Movable.Restore(ctx, log, from, to, records)
}

// A frozen state takes no write of anybody, but for whom it is meant, and is read as always.
func TestFreeze(t *testing.T) {
	moves(t, func(t *testing.T, open func(*testing.T, string) (from, to state.Movable)) {
		s, _ := open(t, "there")
		put := func() error {
			return s.Update(t.Context(), nil, func(tx state.Tx) error { return tx.Put("a", "k", []byte("v")) })
		}
		if err := put(); err != nil {
			t.Fatal(err)
		}
		for _, f := range []*state.Freeze{{Why: "it moves"}, {Why: "it moves", For: "elsewhere"}} {
			if err := s.Freeze(t.Context(), f); err != nil {
				t.Fatal(err)
			}
			var frozen *state.Frozen
			if err := put(); !errors.As(err, &frozen) || !errors.Is(err, state.ErrUnavailable) || frozen.Why != "it moves" {
				t.Errorf("an Update: %v", err)
			}
			if err := s.Merge(t.Context(), "m", map[string]uint64{"k": 1}); !errors.As(err, &frozen) {
				t.Errorf("a Merge: %v", err)
			}
			if is, err := s.Frozen(t.Context()); err != nil || is == nil || is.Why != "it moves" {
				t.Errorf("%v, %v", is, err)
			}
			if err := s.View(t.Context(), func(tx state.Reader) error {
				v, err := tx.Get("a", "k")
				if string(v) != "v" {
					t.Errorf("it reads %q", v)
				}
				return err
			}); err != nil {
				t.Error(err)
			}
		}
		for _, f := range []*state.Freeze{{For: "there"}, nil} {
			if err := s.Freeze(t.Context(), f); err != nil {
				t.Fatal(err)
			}
			if err := put(); err != nil {
				t.Errorf("%+v: %v", f, err)
			}
		}
		if buckets, _, err := s.Names(t.Context()); err != nil || strings.Join(buckets, " ") != "a" {
			t.Errorf("buckets %q, %v", buckets, err)
		}
	})
}

// Freeze waits for an Update that had begun before.
func TestFreezeWaits(t *testing.T) {
	moves(t, func(t *testing.T, open func(*testing.T, string) (from, to state.Movable)) {
		s, _ := open(t, "")
		begun, write, frozen := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		updated := make(chan error, 1)
		go func() {
			updated <- s.Update(t.Context(), nil, func(tx state.Tx) error {
				close(begun)
				<-write
				return tx.Put("a", "k", nil)
			})
		}()
		<-begun
		go func() { frozen <- s.Freeze(t.Context(), &state.Freeze{Why: "it moves"}) }()
		select {
		case err := <-frozen:
			t.Fatalf("it did not wait: %v", err)
		default:
		}
		close(write)
		if err := <-updated; err != nil {
			t.Error(err)
		}
		if err := <-frozen; err != nil {
			t.Error(err)
		}
	})
}
