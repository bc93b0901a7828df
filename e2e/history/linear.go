package history

import (
	"fmt"
	"slices"
	"time"
)

// release is what a channel is at.
type release struct {
	seq int64
	id  string
}

// releases wants promotes and readings of each channel to be linearisable.
func releases(ops []Op, r Rules) (wrong []string) {
	for channel, of := range by(ops, ofKey, Promote, Read) {
		s := &search{seen: map[string]bool{}}
		for _, o := range of {
			// A reading without an answer says nothing, and a promote that failed in another way neither.
			if o.Kind == Promote && (o.Outcome != Refused || o.From >= 0) || o.Outcome == OK {
				if o.Kind == Read {
					o.Call = r.oldest(o.Call)
				}
				s.ops = append(s.ops, o)
			}
		}
		s.done = make([]byte, len(s.ops))
		if !s.from(release{}) {
			wrong = append(wrong, fmt.Sprintf("the releases of %s are not linearisable: after %d of %d operations none of these can be next: %v",
				channel, s.most, len(s.ops), s.stuck))
		}
	}
	return wrong
}

// search looks for an order.
type search struct {
	ops  []Op
	done []byte // 1: it has its place in the order
	seen map[string]bool

	most  int // operations that had a place at most, and what could not follow
	stuck []Op
}

// from tells whether what is not done yet can follow when the channel is at a release.
func (s *search) from(at release) bool {
	placed := s.place(at)
	defer func() {
		for _, i := range placed {
			s.done[i] = 0
		}
	}()
	key := fmt.Sprint(at.seq, at.id, string(s.done))
	if s.seen[key] {
		return false
	}
	s.seen[key] = true
	next, all := s.next()
	if all {
		return true
	}
	for _, i := range next {
		o := s.ops[i]
		if o.Kind != Promote || o.Outcome == Refused || o.From != at.seq {
			continue
		}
		s.done[i] = 1
		if s.from(release{o.At, o.ID}) {
			return true
		}
		s.done[i] = 0
	}
	s.note(next)
	return false
}

// place gives each operation its place here that changes nothing and may be here: whatever
// comes later, it is in nobody's way.
func (s *search) place(at release) (placed []int) {
	for {
		before := len(placed)
		next, _ := s.next()
		for _, i := range next {
			if o := s.ops[i]; o.idle(at) {
				s.done[i] = 1
				placed = append(placed, i)
			}
		}
		if len(placed) == before {
			return placed
		}
	}
}

// idle tells whether an operation is as it should be when the channel is at a release, and leaves it there.
func (o Op) idle(at release) bool {
	switch {
	case o.Kind == Read:
		return at == release{o.At, o.ID}
	case o.Outcome == Refused:
		return at.seq != o.From
	}
	return o.Outcome == OK && at == release{o.At, o.ID} // it was promoted before, by itself: the answer was lost
}

// next are the operations that may come next: those that began before the first of the others has
// ended. all is that only such are left as need not have taken place.
func (s *search) next() (list []int, all bool) {
	first, all := time.Duration(1<<62), true
	for i, o := range s.ops {
		if s.done[i] == 0 && o.Outcome != Unknown {
			first, all = min(first, o.End), false
		}
	}
	for i, o := range s.ops {
		if s.done[i] == 0 && o.Call <= first {
			list = append(list, i)
		}
	}
	return list, all
}

func (s *search) note(next []int) {
	n := 0
	for _, d := range s.done {
		n += int(d)
	}
	if n < s.most || n == s.most && s.stuck != nil {
		return
	}
	s.most, s.stuck = n, nil
	for _, i := range next {
		s.stuck = append(s.stuck, s.ops[i])
	}
	s.stuck = slices.Clip(s.stuck)
}
