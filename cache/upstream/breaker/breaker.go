// Package breaker keeps requests from a server that is down.
package breaker

import (
	"sync"
	"time"
)

// Breaker keeps requests from a server after some failures in a row, for a while, which
// doubles. Then one request tries. The zero value is ready to be used.
type Breaker struct {
	mu      sync.Mutex
	failed  int       // in a row
	until   time.Time // no request before
	pause   time.Duration
	probing bool // one tries
}

const (
	breakAfter = 4
	firstPause = 10 * time.Second
	maxPause   = 5 * time.Minute
	tryTime    = 4 * time.Second // for the case that the one that tries never comes to an end
)

// Ready tells whether a request may go out. Of those that come when a pause is over one may.
func (b *Breaker) Ready(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.failed < breakAfter:
		return true
	case now.Before(b.until):
		return false
	}
	b.probing = true
	b.until = now.Add(tryTime)
	return true
}

// Done notes how a request ended. changed tells that the server was just found to be down, or up again.
func (b *Breaker) Done(now time.Time, ok bool) (changed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if ok {
		changed = b.failed >= breakAfter
		b.failed, b.pause, b.probing = 0, 0, false
		return changed
	}
	b.failed++
	switch {
	case b.failed == breakAfter:
		b.pause = firstPause
		b.until = now.Add(b.pause)
		return true
	case b.probing: // else it was under way when the pause began
		b.probing = false
		b.pause = min(2*b.pause, maxPause)
		b.until = now.Add(b.pause)
	}
	return false
}

// Down tells whether the server is taken to be down.
func (b *Breaker) Down() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed >= breakAfter
}
