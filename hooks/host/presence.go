package host

import (
	"sync"
	"time"

	"narwharf/hooks/api"
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

// Described is a host for its readers.
type Described struct {
	api.Host
	Channel string // that it asked for or reported last
	Target  string
	known   bool
	Until   time.Time // when it counts as gone if nothing is heard; zero: not by that
}

// Describe is what is known of a host by itself.
func (h *Hosts) Describe(name string) *Described {
	d := &Described{Host: api.Host{Host: name}, Target: name, known: h.Known(name)}
	h.describeOwner(&d.Host)
	now := h.clock()
	if r := h.Record(name); r != nil {
		d.Reported, d.By, d.Labels, d.Status = r.Reported, r.By, r.Labels, r.Status
		if r.Held(now) {
			d.Hold = r.Hold
		}
		d.LastSeen = r.Reported
		if r.Status != nil {
			d.Channel, d.Target = r.Status.Channel, r.Status.Target
		}
	}
	if p := h.Seen(name); p != nil {
		p.describe(d, now)
	}
	return d
}

// Known tells whether the host has reported or joined.
func (d *Described) Known() bool { return d.known }

func (p *Presence) describe(d *Described, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last.After(d.LastSeen) {
		d.LastSeen = p.last.UTC().Truncate(time.Second)
	}
	d.Online, d.Channel, d.Target = p.online(now), p.channel, p.target
	if d.Online && p.parked == 0 {
		d.Until = p.until()
	}
}

// describeOwner puts into d which machine it is, and who else would be.
func (h *Hosts) describeOwner(d *api.Host) {
	o := h.owners.Get(d.Host)
	if o == nil {
		return
	}
	id := o.Identity
	if sg := h.sighted.Get(sightKey(d.Host, id.Instance)); sg != nil {
		id.Cloned = !sg.Cloned.IsZero()
	}
	d.Identity = &id
	for _, c := range o.Claims {
		if c.Withdrawn.IsZero() {
			d.Conflict = append(d.Conflict, c.Claim)
		}
	}
}

// HeardOf is when a host polled or reported last, zero if that is not known.
func (h *Hosts) HeardOf(host string, r *Record) (at time.Time) {
	if r != nil {
		at = r.Reported
	}
	if p := h.Seen(host); p != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.last.After(at) {
			at = p.last
		}
	}
	return at
}
