package index

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"narwharf/cache/state"
	"narwharf/cache/state/memory"
)

// A start after a stop in order reads no record: what was counted is in the note.
func TestCountIsNoted(t *testing.T) {
	db := reading{Store: memory.New(nil), pages: new(int)}
	b := open(t, db)
	if b.Files() != nil {
		t.Error("the files of a new index are known")
	}
	for n := range 3 {
		if err := Put(b, record(n, 10, []int{n}, nil)); err != nil {
			t.Fatal(err)
		}
	}
	want, err := b.Totals()
	if err != nil || want != (Totals{3, 30}) {
		t.Fatalf("Totals %+v, %v", want, err)
	}
	if err := b.Close(Files{4, 400}); err != nil {
		t.Fatal(err)
	}
	*db.pages = 0
	b = open(t, db)
	f := b.Files()
	if got, err := b.Totals(); got != want || err != nil || f == nil || *f != (Files{4, 400}) || *db.pages > 0 || b.Dirty() {
		t.Errorf("Totals %+v, %v, files %+v, %d pages read, dirty %t", got, err, f, *db.pages, b.Dirty())
	}
	if err := Delete(b, hashOf(1)); err != nil {
		t.Fatal(err)
	}
	b = open(t, db) // killed
	if b.Files() != nil || !b.Dirty() {
		t.Error("the note outlived a kill")
	}
	if got, err := b.Totals(); got != (Totals{2, 20}) || err != nil {
		t.Errorf("counted anew: %+v, %v", got, err)
	}
	write(t, db, metaBucket, keyClean, "1") // by an older narwharf
	b = open(t, db)
	if b.Files() != nil || b.Dirty() {
		t.Errorf("after an older narwharf: files are %+v, dirty %t", b.Files(), b.Dirty())
	}
	if err := b.Close(Files{1, 1}); err != nil { // nobody asked for the totals
		t.Fatal(err)
	}
	b = open(t, db)
	if got, err := b.Totals(); got != (Totals{2, 20}) || err != nil || b.Dirty() {
		t.Errorf("not counted, then counted: %+v, %v", got, err)
	}
}

// reading counts the pages of records that are read.
type reading struct {
	state.Store
	pages *int
}

func (s reading) View(ctx context.Context, fn func(state.Reader) error) error {
	return s.Store.View(ctx, func(tx state.Reader) error { return fn(pageReader{tx, s.pages}) })
}

type pageReader struct {
	state.Reader
	pages *int
}

func (r pageReader) List(bucket string, rg state.Range) ([]state.Entry, error) {
	*r.pages++
	return r.Reader.List(bucket, rg)
}

// Changes go on while the records are counted, and the count is exact.
func TestCountBesideChanges(t *testing.T) {
	db := memory.New(nil)
	b := open(t, db)
	for n := range 3 * countPage {
		if err := Put(b, record(n, 1, []int{n}, nil)); err != nil {
			t.Fatal(err)
		}
	}
	b = open(t, db)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				n := (i*977 + w*131) % (3*countPage + 100)
				change := func() error { return Delete(b, hashOf(n)) }
				if i%3 > 0 {
					change = func() error { return Put(b, record(n, int64(i%9), []int{n}, nil)) }
				}
				if err := change(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	if _, err := b.Totals(); err != nil {
		t.Error(err)
	}
	close(stop)
	wg.Wait()
	got, err := b.Totals()
	if want, err2 := open(t, db).Totals(); got != want || err != nil || err2 != nil {
		t.Errorf("Totals %+v and, counted anew, %+v, %v, %v", got, want, err, err2)
	}
}

// After a commit of which nobody knows whether it took place all is counted anew.
func TestCountAfterUncertainCommit(t *testing.T) {
	for _, made := range []bool{true, false} {
		t.Run(fmt.Sprint(made), func(t *testing.T) {
			db := &uncertain{Store: memory.New(nil), made: made}
			b := open(t, db)
			if got, err := b.Totals(); got != (Totals{}) || err != nil {
				t.Fatalf("Totals %+v, %v", got, err)
			}
			db.on = true
			if err := Put(b, record(1, 7, []int{1}, nil)); !errors.Is(err, state.ErrUncertain) {
				t.Fatal(err)
			}
			db.on = false
			want := Totals{}
			if made {
				want = Totals{1, 7}
			}
			if got, err := b.Totals(); got != want || err != nil {
				t.Errorf("Totals %+v, %v; want %+v", got, err, want)
			}
		})
	}
}

// uncertain is a state whose commits fail at their end.
type uncertain struct {
	state.Store
	on, made bool
}

func (s *uncertain) Update(ctx context.Context, locks []string, fn func(tx state.Tx) error) error {
	if !s.on {
		return s.Store.Update(ctx, locks, fn)
	}
	if s.made {
		if err := s.Store.Update(ctx, locks, fn); err != nil {
			return err
		}
	}
	return fmt.Errorf("no connection: %w", state.ErrUncertain)
}
