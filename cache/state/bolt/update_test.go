package bolt

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"go.etcd.io/bbolt"

	"narwharf/cache/state"
)

// Updates that share a commit: one that fails is refused alone, and its work undone.
func TestGroupCommit(t *testing.T) {
	st, _ := open(t)
	s := st.(*Store)
	hold, started := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // so that all the updates below wait together
		err := s.Update(context.Background(), nil, func(state.Tx) error {
			close(started)
			<-hold
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	<-started
	const n = 40
	boom := errors.New("boom")
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() {
			errs[i] = s.Update(context.Background(), nil, func(tx state.Tx) error {
				if err := tx.Put("b", fmt.Sprintf("%02d", i), nil); err != nil {
					return err
				}
				if i%10 == 3 {
					return fmt.Errorf("update %d: %w", i, boom)
				}
				return nil
			})
		})
	}
	for waiting := 0; waiting < n; {
		s.mu.Lock()
		waiting = len(s.queue)
		s.mu.Unlock()
	}
	ids := func() (id int) {
		if err := s.db.View(func(tx *bbolt.Tx) error { id = tx.ID(); return nil }); err != nil {
			t.Error(err)
		}
		return id
	}
	first := ids()
	close(hold)
	wg.Wait()
	for i, err := range errs {
		if i%10 == 3 != (err != nil) || err != nil && (!errors.Is(err, boom) || !strings.Contains(err.Error(), fmt.Sprintf("update %d:", i))) {
			t.Errorf("update %d: %v", i, err)
		}
	}
	// The one that held them up, and one for all: not a commit for each of the 40.
	if got := ids() - first; got > 2 {
		t.Errorf("%d commits for %d updates", got, n)
	}
	err := s.View(t.Context(), func(tx state.Reader) error {
		list, err := tx.List("b", state.Range{})
		if len(list) != n-4 {
			t.Errorf("%d entries", len(list))
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
