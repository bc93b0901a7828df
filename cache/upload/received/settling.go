package received

import (
	"sync"

	"narwharf/cache/narfile"
)

// Settling are NAR files whose PUT is answered, which are verified, and which are becoming durable: until they are
// they have no name. A narinfo that names one waits for it, and so does whoever asks for the file. The zero
// value is ready.
type Settling struct {
	mu     sync.Mutex
	open   map[string]*settling // by the file's name
	failed map[string]error     // not told yet
	all    sync.WaitGroup
}

type settling struct {
	facts narfile.Facts
	done  chan struct{}
}

// Bounds of what settles at once, each with an open file, and of errors nobody asked for.
const (
	maxSettling = 64
	maxFailed   = 1000
)

// Begin calls commit in a goroutine of its own. Where as many as may are under way it returns false and calls
// nothing. An earlier commit of the same file ends first.
func (s *Settling) Begin(name string, f narfile.Facts, commit func() error) bool {
	for {
		s.mu.Lock()
		before := s.open[name]
		if before == nil {
			break
		}
		s.mu.Unlock()
		<-before.done
	}
	defer s.mu.Unlock()
	if len(s.open) >= maxSettling {
		return false
	}
	if s.open == nil {
		s.open, s.failed = make(map[string]*settling), make(map[string]error)
	}
	delete(s.failed, name)
	now := &settling{f, make(chan struct{})}
	s.open[name] = now
	s.all.Go(func() {
		err := commit()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.open, name)
		if err != nil {
			for other := range s.failed {
				if len(s.failed) < maxFailed {
					break
				}
				delete(s.failed, other)
			}
			s.failed[name] = err
		}
		close(now.done)
	})
	return true
}

// Facts tells what a file is that settles.
func (s *Settling) Facts(name string) (narfile.Facts, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.open[name]; now != nil {
		return now.facts, true
	}
	return narfile.Facts{}, false
}

// Wait waits until a file has settled, if it does now. It returns the error of a commit that failed, once: the file is to be
// sent again then.
func (s *Settling) Wait(name string) error {
	s.mu.Lock()
	now := s.open[name]
	s.mu.Unlock()
	if now != nil {
		<-now.done
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.failed[name]
	delete(s.failed, name)
	return err
}

// Rest waits until all have settled. Nothing begins meanwhile.
func (s *Settling) Rest() { s.all.Wait() }
