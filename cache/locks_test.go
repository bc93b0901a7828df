package cache

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"

	"narwharf/cache/blob"
)

func TestKeyLocks(t *testing.T) {
	var locks keyLocks
	counts := make([]int, 3) // guarded by the locks of their names
	var wg sync.WaitGroup
	for g := range 12 {
		wg.Go(func() {
			for range 200 {
				unlock := locks.lock(fmt.Sprint(g % 3))
				counts[g%3]++
				unlock()
			}
		})
	}
	wg.Wait()
	for i, n := range counts {
		if n != 800 {
			t.Errorf("count %d is %d", i, n)
		}
	}
	if len(locks.held) != 0 {
		t.Errorf("%d locks are kept", len(locks.held))
	}
	// Another name does not wait.
	a := locks.lock("a")
	locks.lock("b")()
	a()
}

func TestAsFull(t *testing.T) {
	for _, err := range []error{syscall.ENOSPC, fmt.Errorf("x: %w", syscall.EDQUOT)} {
		if got := asFull(err); !errors.Is(got, blob.ErrFull) || !errors.Is(got, err) {
			t.Errorf("%v becomes %v", err, got)
		}
	}
	if got := asFull(syscall.EIO); errors.Is(got, blob.ErrFull) {
		t.Errorf("EIO becomes %v", got)
	}
}
