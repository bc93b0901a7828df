package hooks

import (
	"sync"
	"time"
)

// presence is when a host was last heard of, and for what it asked. It is in
// memory: after a restart every host asks again within a minute.
type presence struct {
	mu      sync.Mutex
	last    time.Time
	parked  int   // polls
	polls   int64 // that began ever
	gone    bool  // the last one ended since the host left
	channel string
	target  string
}

// How long a host counts as there after its last poll: one that was answered
// may be followed by a download and a switch, one that the host broke off is
// followed by another within seconds, or by none.
const (
	onlineFor = 90 * time.Second
	goneAfter = 12 * time.Second
)

func (s *Server) presence(host string) *presence {
	s.mu.RLock()
	p := s.seen[host]
	s.mu.RUnlock()
	if p != nil {
		return p
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p = s.seen[host]; p == nil {
		p = new(presence)
		s.seen[host] = p
	}
	return p
}

// touch notes that the host reported.
func (p *presence) touch(now time.Time, channel, target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last, p.gone, p.channel, p.target = now, false, channel, target
}

// arrive notes the beginning of a poll, and tells its number and whether the
// host was away.
func (p *presence) arrive(now time.Time, channel, target string) (poll int64, back bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	back = !p.online(now)
	p.last, p.gone, p.channel, p.target = now, false, channel, target
	p.parked++
	p.polls++
	return p.polls, back
}

// leave notes the end of a poll, and tells until when the host counts as there.
// That an older one broke off says nothing: the host has come by another way.
func (p *presence) leave(now time.Time, poll int64, gone bool) (until time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.parked--
	if poll == p.polls || !gone {
		p.last, p.gone = now, gone
	}
	return p.until()
}

// until is for p.mu's holder.
func (p *presence) until() time.Time {
	if p.gone {
		return p.last.Add(goneAfter)
	}
	return p.last.Add(onlineFor)
}

// online is for p.mu's holder: whether the host polls now, or did just before.
func (p *presence) online(now time.Time) bool { return p.parked > 0 || now.Before(p.until()) }

// describe puts into h what is known of the host. The time until is that
// after which it counts as gone, zero if it polls or is gone.
func (p *presence) describe(h *describedHost, now time.Time) (target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last.After(h.LastSeen) {
		h.LastSeen = p.last.UTC().Truncate(time.Second)
	}
	h.Online, h.channel = p.online(now), p.channel
	if h.Online && p.parked == 0 {
		h.until = p.until()
	}
	return p.target
}
