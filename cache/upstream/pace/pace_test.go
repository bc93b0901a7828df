package pace_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"narwharf/cache/upstream/pace"
)

func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pace.New(100_000)
		begin := time.Now()
		var wg sync.WaitGroup
		for range 4 { // who share the line
			wg.Go(func() {
				buf := make([]byte, 1<<20)
				for left := 250_000; left > 0; {
					n := min(len(p.Room(buf)), left)
					p.Wait(context.Background(), n)
					left -= n
				}
			})
		}
		wg.Wait()
		if took := time.Since(begin); took < 9700*time.Millisecond || took > 10*time.Second {
			t.Errorf("1 MB at 100 kB/s took %v", took)
		}
		time.Sleep(time.Hour) // a pause saves a quarter of a second and no more
		begin = time.Now()
		p.Wait(context.Background(), 100_000)
		if took := time.Since(begin); took != 750*time.Millisecond {
			t.Errorf("100 kB after a pause took %v", took)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		begin = time.Now()
		p.Wait(ctx, 100_000_000)
		if took := time.Since(begin); took != time.Second {
			t.Errorf("waited %v past the end of its context", took)
		}
	})
}

func TestNone(t *testing.T) {
	p := pace.New(0)
	if n := len(p.Room(make([]byte, 9<<20))); n != 9<<20 {
		t.Errorf("room for %d", n)
	}
	p.Wait(context.Background(), 9<<20)
	if n := len(pace.New(1).Room(make([]byte, 9<<20))); n != 4<<10 {
		t.Errorf("room for %d at one byte a second", n)
	}
}
