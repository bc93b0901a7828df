// Package timers calls functions at a time of day, mostly to wake polls: what
// they look at changes by the passing of time alone. Whoever looks sets the timer
// for the next change that it sees.
package timers

import (
	"sync"
	"time"
)

// Set is timers by key.
type Set struct {
	clock func() time.Time

	mu      sync.Mutex
	set     map[string]*timer
	over    bool
	running sync.WaitGroup
}

type timer struct {
	at    time.Time
	run   func()
	timer *time.Timer
}

// A timer looks at the clock this often, since the clock may be put right.
const step = time.Minute

// New makes a Set that goes by a clock.
func New(clock func() time.Time) *Set {
	return &Set{clock: clock, set: make(map[string]*timer)}
}

// First calls run at a time, unless the key's timer runs before that anyway.
// Once it has run, a timer is forgotten.
func (s *Set) First(at time.Time, key string, run func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.set[key]; old == nil || at.Before(old.at) {
		s.put(at, key, run)
	}
}

// At calls run at a time, in place of the key's timer of before.
func (s *Set) At(at time.Time, key string, run func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(at, key, run)
}

// Off forgets the timer of a key.
func (s *Set) Off(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(key)
}

func (s *Set) drop(key string) {
	if old := s.set[key]; old != nil {
		old.timer.Stop()
		delete(s.set, key)
	}
}

func (s *Set) put(at time.Time, key string, run func()) {
	if s.over {
		return
	}
	s.drop(key)
	n := &timer{at: at, run: run}
	n.timer = time.AfterFunc(s.left(at), func() { s.look(key, n) })
	s.set[key] = n
}

// left is how long to sleep for a time.
func (s *Set) left(at time.Time) time.Duration {
	return max(min(at.Sub(s.clock()), step), 0)
}

// look runs a timer, if it is time.
func (s *Set) look(key string, n *timer) {
	s.mu.Lock()
	if s.over || s.set[key] != n {
		s.mu.Unlock()
		return
	}
	if left := s.left(n.at); left > 0 {
		n.timer.Reset(left)
		s.mu.Unlock()
		return
	}
	delete(s.set, key)
	s.running.Add(1)
	s.mu.Unlock()
	defer s.running.Done()
	n.run()
}

// Stop forgets all timers, for good. When it returns, none is running.
func (s *Set) Stop() {
	s.mu.Lock()
	s.over = true
	for key := range s.set {
		s.drop(key)
	}
	s.mu.Unlock()
	s.running.Wait()
}
