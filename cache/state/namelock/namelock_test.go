package namelock

import (
	"fmt"
	"sync"
	"testing"
)

func TestLocks(t *testing.T) {
	var locks Set
	counts := make([]int, 3) // guarded by the locks of their names
	var wg sync.WaitGroup
	for g := range 12 {
		wg.Go(func() {
			for range 200 {
				unlock := locks.Lock(fmt.Sprint(g % 3))
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
	a := locks.Lock("a")
	locks.Lock("b")()
	a()
}
