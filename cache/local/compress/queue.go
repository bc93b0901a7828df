package compress

import "container/list"

// job is something that needs an encoder.
type job struct {
	run     func()        // in a goroutine of its own, once there is an encoder for it
	place   *list.Element // in the queue, while it waits
	working bool
}

// enqueue has a job wait for an encoder. mu is held.
func (s *Store) enqueue(j *job) {
	j.place = s.queue.PushBack(j)
	s.dispatch()
}

// dequeue takes a job out that need not be done. mu is held.
func (s *Store) dequeue(j *job) {
	if j.place != nil {
		s.queue.Remove(j.place)
		j.place = nil
	}
}

// dispatch gives encoders to those who wait, in the order in which they came. While
// any waits, encodes that nobody reads end. mu is held.
func (s *Store) dispatch() {
	for s.working < s.encoders && s.queue.Len() > 0 {
		j, _ := s.queue.Front().Value.(*job)
		s.dequeue(j)
		j.working = true
		s.working++
		s.running.Go(func() {
			j.run()
			s.mu.Lock()
			defer s.mu.Unlock()
			s.working--
			s.dispatch()
		})
	}
	if s.queue.Len() > 0 {
		for _, e := range s.encodings {
			if e.working && e.readers == 0 {
				s.giveUp(e, errYielded)
			}
		}
	}
}
