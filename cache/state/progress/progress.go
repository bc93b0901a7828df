// Package progress lets long work say how far it is to whoever started it, here or, by
// the admin socket, in another process. A context carries it: most work says nothing,
// and what lies between need not know.
package progress

import (
	"context"
	"sync"
	"time"
)

// A Step of long work has a name, "narinfos", and how much of it is done. A Total of 0
// is not known.
type Step struct {
	Name  string `json:"name"`
	Done  int64  `json:"done"`
	Total int64  `json:"total,omitempty"`
}

type key struct{}

// With is a context whose work is reported to show, at most ten times a second and for
// each step once at least. Calls do not overlap.
func With(ctx context.Context, show func(Step)) context.Context {
	var mu sync.Mutex
	var last Step
	var shown time.Time
	return context.WithValue(ctx, key{}, func(s Step) {
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); s.Name != last.Name || now.Sub(shown) > 100*time.Millisecond {
			last, shown = s, now
			show(s)
		}
	})
}

// Report says how far a step is.
func Report(ctx context.Context, name string, done, total int64) {
	if show, ok := ctx.Value(key{}).(func(Step)); ok {
		show(Step{name, done, total})
	}
}

// Every reports the seconds of a step of which no more is known, until stop has returned.
func Every(ctx context.Context, name string, interval time.Duration) (stop func()) {
	if ctx.Value(key{}) == nil {
		return func() {}
	}
	done, ended := make(chan struct{}), make(chan struct{})
	begun := time.Now()
	go func() {
		defer close(ended)
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case now := <-tick.C:
				Report(ctx, name, int64(now.Sub(begun).Seconds()), 0)
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}
