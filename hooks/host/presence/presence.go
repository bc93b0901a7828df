// Package presence is when hosts were heard of last, and for what they asked. It is in memory:
// after a restart every host asks again within a minute, and nothing that is stored rests on it. Servers
// that share a state tell each other (Share).
package presence

import (
	"sync"
	"time"
)

// Presence is that of one host.
type Presence struct {
	mu      sync.Mutex
	last    time.Time
	parked  int   // polls
	polls   int64 // that began ever
	gone    bool  // the last one ended since the host left
	channel string
	target  string

	elsewhere time.Time // when another server has said last that it hears of the host
}

// How long a host counts as there after its last poll: one that was answered
// may be followed by a download and a switch, one that the host broke off is
// followed by another within seconds, or by none.
const (
	OnlineFor = 90 * time.Second
	goneAfter = 12 * time.Second
)

// Book is that of all hosts.
type Book struct {
	mu   sync.RWMutex
	seen map[string]*Presence
}

// New makes an empty one.
func New() *Book { return &Book{seen: make(map[string]*Presence)} }

// Of is that of a host that is heard of now.
func (b *Book) Of(host string) *Presence {
	if p := b.Seen(host); p != nil {
		return p
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.seen[host]
	if p == nil {
		p = new(Presence)
		b.seen[host] = p
	}
	return p
}

// Seen is that of a host, nil if it was not heard of since the start.
func (b *Book) Seen(host string) *Presence {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.seen[host]
}

// Forget forgets when a host was heard of.
func (b *Book) Forget(host string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.seen, host)
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
func (p *Presence) online(now time.Time) bool {
	return p.onlineHere(now) || now.Before(p.elsewhere.Add(OnlineFor))
}

// onlineHere is online without what other servers say.
func (p *Presence) onlineHere(now time.Time) bool { return p.parked > 0 || now.Before(p.until()) }

// Online tells whether the host polls now, or did just before.
func (p *Presence) Online(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.online(now)
}

// A View is a presence at one moment.
type View struct {
	Last            time.Time // when it was heard of
	Online          bool
	Channel, Target string    // that it asked for
	Until           time.Time // when it counts as gone if nothing is heard; zero: not by that
}

// View is how it is now.
func (p *Presence) View(now time.Time) View {
	p.mu.Lock()
	defer p.mu.Unlock()
	last, until := p.last, p.until()
	if p.elsewhere.After(last) {
		last = p.elsewhere
	}
	if other := p.elsewhere.Add(OnlineFor); other.After(until) {
		until = other
	}
	v := View{Last: last, Online: p.online(now), Channel: p.channel, Target: p.target}
	if v.Online && p.parked == 0 {
		v.Until = until
	}
	return v
}
