package roster

import (
	"cmp"
	"slices"
	"time"

	"narwharf/hooks/rollout/attempt"
)

// Heap orders hosts by a number and, where that is the same, by another. An entry
// whose version is not the host's any more is passed over when it comes up.
type Heap struct {
	entries []entry
	timer   bool // versions are those of timers
}

type entry struct {
	a       int64
	b       uint64
	h       *Host
	version uint32
}

func (x *entry) before(y *entry) bool { return x.a < y.a || x.a == y.a && x.b < y.b }

func (q *Heap) push(x entry) {
	q.tidy()
	q.entries = append(q.entries, x)
	s := q.entries
	i := len(s) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !s[i].before(&s[up]) {
			break
		}
		s[i], s[up] = s[up], s[i]
		i = up
	}
}

func (q *Heap) pop() {
	s := q.entries
	n := len(s) - 1
	s[0] = s[n]
	s[n] = entry{}
	s = s[:n]
	for i := 0; ; {
		low := 2*i + 1
		if low >= n {
			break
		}
		if low+1 < n && s[low+1].before(&s[low]) {
			low++
		}
		if !s[low].before(&s[i]) {
			break
		}
		s[i], s[low] = s[low], s[i]
		i = low
	}
	q.entries = s
}

// tidy takes out entries that do not count any more, before the heap would grow: a host that
// comes and goes adds one each time.
func (q *Heap) tidy() {
	if n := len(q.entries); n < 64 || n < cap(q.entries) {
		return
	}
	q.entries = slices.DeleteFunc(q.entries, func(x entry) bool { return !q.counts(&x) })
	slices.SortFunc(q.entries, func(x, y entry) int {
		return cmp.Or(cmp.Compare(x.a, y.a), cmp.Compare(x.b, y.b))
	})
	q.entries = slices.Grow(q.entries, len(q.entries)+1)
}

// counts tells whether an entry is its host's last.
func (q *Heap) counts(x *entry) bool {
	if q.timer {
		return x.version == x.h.timerVersion
	}
	return x.version == x.h.lineVersion
}

// top is the first entry that counts, nil if there is none.
func (q *Heap) top() *entry {
	for len(q.entries) > 0 {
		if x := &q.entries[0]; q.counts(x) {
			return x
		}
		q.pop()
	}
	return nil
}

// first is the time of the first timer.
func (q *Heap) first() time.Time {
	if x := q.top(); x != nil {
		return time.Unix(0, x.a).UTC()
	}
	return time.Time{}
}

// setTimer sets the one timer of a host; zero is none.
func (e *Roster) setTimer(h *Host, at time.Time) {
	if at.Equal(h.timer) {
		return
	}
	h.timer = at
	h.timerVersion++
	if !at.IsZero() {
		e.timers.push(entry{a: at.UnixNano(), b: h.Hash, h: h, version: h.timerVersion})
	}
}

// Expire is what time alone changes of hosts.
func (e *Roster) Expire() {
	for x := e.timers.top(); x != nil && x.a <= e.Now.UnixNano(); x = e.timers.top() {
		h := x.h
		h.timer = time.Time{}
		h.timerVersion++
		e.Apply(h, (*attempt.Case).Overdue)
	}
}

// mix spreads a number over all its bits (splitmix64's).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// hashName is FNV-1a of a host's name, with the seed.
func hashName(name string, seed uint64) uint64 {
	x := uint64(14695981039346656037)
	for i := range len(name) {
		x = (x ^ uint64(name[i])) * 1099511628211
	}
	return mix(x ^ seed)
}

// Turn orders hosts for a release, those of a wave and those that wait for a grant: a host
// whose number is lower comes first. It is that of an engine with the seed 0.
func Turn(host string, seq int64) uint64 { return turn(hashName(host, 0), seq) }

// Turn is that of a host for the release of its channel's roll-out.
func (h *Host) Turn() uint64 { return turn(h.Hash, h.ch.Run.Row.Seq) }

func turn(hash uint64, seq int64) uint64 { return mix(hash ^ uint64(seq)) }

// Absent is 0 of a host that is heard of, 2 of one that is offline, and 1 of one that may be
// back in a minute, or went off for good just now.
func (h *Host) Absent() int {
	switch {
	case h.Counted.Away:
		return 2
	case !h.Away.IsZero():
		return 1
	}
	return 0
}

// Picked compares two hosts for a wave that does not take all: who is heard of at that moment
// is taken first, who is offline last, and then by turn. A wave of one host that went off seconds
// ago would have to wait for it.
func Picked(absent, otherAbsent int, turn, otherTurn uint64) int {
	return cmp.Or(cmp.Compare(absent, otherAbsent), cmp.Compare(turn, otherTurn))
}
