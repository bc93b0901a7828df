package compress

import "container/list"

// job is something that needs an encoder.
type job struct {
	run     func()          // in a goroutine of its own, once there is an encoder for it
	abandon func(err error) // instead of run, if that never comes
	flight  *flight         // what it is the job of; nil if of one reader alone
	queue   *list.List      // where it waits, if it does
	place   *list.Element
}

// schedule hands out the encoders. Jobs that somebody waits for go first, in
// the order in which they came. Background jobs get an encoder only while
// nobody waits, never all of them if there are several, and give way when
// somebody has to wait. Guarded by Store.mu.
type schedule struct {
	working    int
	live       list.List        // of *job
	background list.List        // of *job
	active     map[*flight]bool // at work; true if it was told to make way
}

func (c *schedule) init() {
	c.live.Init()
	c.background.Init()
	c.active = make(map[*flight]bool)
}

func (c *schedule) enqueue(j *job, queue *list.List) {
	j.queue, j.place = queue, queue.PushBack(j)
}

func (c *schedule) dequeue(j *job) {
	if j.queue != nil {
		j.queue.Remove(j.place)
		j.queue, j.place = nil, nil
	}
}

// hand gives encoders to those who wait. Call it after every change of the
// queues or of who reads what. mu is held.
func (s *Store) hand() {
	for s.working < s.encoders && s.live.Len() > 0 {
		s.begin(&s.live)
	}
	if s.live.Len() > 0 {
		s.clear(s.live.Len())
		return
	}
	for s.working < max(1, s.encoders-1) && s.background.Len() > 0 {
		s.begin(&s.background)
	}
}

func (s *Store) begin(queue *list.List) {
	j, _ := queue.Front().Value.(*job)
	s.dequeue(j)
	s.working++
	if j.flight != nil {
		s.active[j.flight] = false
	}
	s.encoding.Go(func() {
		j.run()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.working--
		delete(s.active, j.flight)
		s.hand()
	})
}

// clear has up to n encodes without readers make way.
func (s *Store) clear(n int) {
	for _, leaving := range s.active {
		if leaving {
			n--
		}
	}
	for fl, leaving := range s.active {
		if n <= 0 {
			return
		}
		if leaving || fl.readers > 0 {
			continue
		}
		n--
		s.giveUp(fl, errYielded)
		if fl.wanted && !s.closed {
			again := s.newFlight(fl.key, fl.name, fl.src)
			again.wanted = true
			s.enqueue(&again.job, &s.background)
			s.background.MoveToFront(again.place)
		}
	}
}

// abandon ends all that still waits. mu is held.
func (s *Store) abandon(err error) {
	for _, queue := range []*list.List{&s.live, &s.background} {
		for queue.Len() > 0 {
			j, _ := queue.Front().Value.(*job)
			s.dequeue(j)
			j.abandon(err)
		}
	}
}
