package bolt

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"narwharf/cache/state"
)

// TestRefusalsShareACommit: updates that fail and wrote nothing do not make those
// that share their commit run again, or many refusals would stop every writer.
func TestRefusalsShareACommit(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "x.db"), Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	refused := errors.New("said again")
	begun, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Update(t.Context(), nil, func(tx state.Tx) error {
			once.Do(func() {
				close(begun)
				<-goOn
			})
			return tx.Put("x", "first", nil)
		}); err != nil {
			t.Error(err)
		}
	})
	<-begun
	const n = 1000
	var runs atomic.Int64
	for i := range n {
		wg.Go(func() {
			err := s.Update(t.Context(), nil, func(tx state.Tx) error {
				runs.Add(1)
				if _, err := tx.Get("x", "first"); err != nil {
					return err
				}
				if i%2 == 0 {
					return refused
				}
				tx.Notify("told")
				return tx.Put("x", state.Uint64Key(uint64(i)), nil)
			})
			if want := map[bool]error{true: refused}[i%2 == 0]; !errors.Is(err, want) {
				t.Errorf("%d: %v, want %v", i, err, want)
			}
		})
	}
	for queued := 0; queued < n; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		queued = len(s.queue)
		s.mu.Unlock()
	}
	close(goOn)
	wg.Wait()
	if runs.Load() != n {
		t.Errorf("%d functions ran %d times", n, runs.Load())
	}
	var stored []state.Entry
	if err := s.View(context.Background(), func(tx state.Reader) error {
		stored, err = tx.List("x", state.Range{})
		return err
	}); err != nil || len(stored) != n/2+1 {
		t.Errorf("%d are stored (%v), want %d", len(stored), err, n/2+1)
	}
}
