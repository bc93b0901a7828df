package limits

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// Slots are for work of which only so much is done at once, in total and for one.
type Slots struct {
	all  *semaphore.Weighted
	each int64

	mu  sync.Mutex
	own map[string]*ownSlots
}

type ownSlots struct {
	*semaphore.Weighted
	users int // who hold one or wait for one
}

// NewSlots makes n slots, of which one may have three quarters.
func NewSlots(n int) *Slots {
	return &Slots{all: semaphore.NewWeighted(int64(n)), each: max(int64(n)*3/4, 1), own: make(map[string]*ownSlots)}
}

// Take waits for a slot for at most patience, and returns an error if there is none. done
// gives it back.
func (s *Slots) Take(ctx context.Context, who string, patience time.Duration) (done func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s.mu.Lock()
	own := s.own[who]
	if own == nil {
		own = &ownSlots{Weighted: semaphore.NewWeighted(s.each)}
		s.own[who] = own
	}
	own.users++
	s.mu.Unlock()
	forget := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if own.users--; own.users == 0 {
			delete(s.own, who)
		}
	}
	if err := own.Acquire(ctx, 1); err != nil {
		forget()
		return nil, err
	}
	if err := s.all.Acquire(ctx, 1); err != nil {
		own.Release(1)
		forget()
		return nil, err
	}
	return func() {
		s.all.Release(1)
		own.Release(1)
		forget()
	}, nil
}
