// Package namelock is a mutex for each name: of a path, a file, a host.
//
// It keeps two goroutines of one process from working on the same thing at the
// same moment. It is no guard of data: another process does not see it, so what
// a change decides on is read in the transaction that makes it.
package namelock

import "sync"

// Set holds the locks. The zero value is ready. A lock takes memory only while
// somebody holds it or waits for it.
type Set struct {
	mu   sync.Mutex
	held map[string]*lock
}

type lock struct {
	sync.Mutex
	users int // holders and waiters, guarded by Set.mu
}

// Lock waits for the name and returns what unlocks it.
func (s *Set) Lock(name string) (unlock func()) {
	s.mu.Lock()
	if s.held == nil {
		s.held = make(map[string]*lock)
	}
	l := s.held[name]
	if l == nil {
		l = new(lock)
		s.held[name] = l
	}
	l.users++
	s.mu.Unlock()
	l.Lock()
	return func() {
		l.Unlock()
		s.mu.Lock()
		if l.users--; l.users == 0 {
			delete(s.held, name)
		}
		s.mu.Unlock()
	}
}
