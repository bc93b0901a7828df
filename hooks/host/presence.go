package host

import (
	"sync"
	"time"
)

// Presence is when a host was last heard of, and for what it asked. It is in
// memory: after a restart every host asks again within a minute.
type Presence struct {
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
	OnlineFor = 90 * time.Second
	goneAfter = 12 * time.Second
)

// Presence is that of a host that is heard of now.
func (h *Hosts) Presence(host string) *Presence {
	if p := h.Seen(host); p != nil {
		return p
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.seen[host]
	if p == nil {
		p = new(Presence)
		h.seen[host] = p
	}
	return p
}

// Seen is that of a host, nil if it was not heard of since the start.
func (h *Hosts) Seen(host string) *Presence {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.seen[host]
}

// Unsee forgets when a host was heard of.
func (h *Hosts) Unsee(host string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.seen, host)
}

// Online tells whether a host polls now, or did just before.
func (h *Hosts) Online(host string, now time.Time) bool {
	p := h.Seen(host)
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.online(now)
}

// Touch notes that the host reported.
func (p *Presence) Touch(now time.Time, channel, target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last, p.gone, p.channel, p.target = now, false, channel, target
}

// Arrive notes the beginning of a poll, and tells its number and whether the
// host was away.
func (p *Presence) Arrive(now time.Time, channel, target string) (poll int64, back bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	back = !p.online(now)
	p.last, p.gone, p.channel, p.target = now, false, channel, target
	p.parked++
	p.polls++
	return p.polls, back
}

// Leave notes the end of a poll, and tells until when the host counts as there.
// That an older one broke off says nothing: the host has come by another way.
func (p *Presence) Leave(now time.Time, poll int64, gone bool) (until time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.parked--
	if poll == p.polls || !gone {
		p.last, p.gone = now, gone
	}
	return p.until()
}

// Parked is how many polls of the host wait.
func (p *Presence) Parked() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.parked
}

// until is for p.mu's holder.
func (p *Presence) until() time.Time {
	if p.gone {
		return p.last.Add(goneAfter)
	}
	return p.last.Add(OnlineFor)
}

// online is for p.mu's holder.
func (p *Presence) online(now time.Time) bool { return p.parked > 0 || now.Before(p.until()) }
