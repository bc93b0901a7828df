package host

import (
	"time"

	"narwharf/cache/state"
	"narwharf/hooks/api"
	"narwharf/hooks/host/presence"
)

// Presence is that of a host that is heard of now.
func (h *Hosts) Presence(host string) *presence.Presence { return h.seen.Of(host) }

// Seen is that of a host, nil if it was not heard of since the start.
func (h *Hosts) Seen(host string) *presence.Presence { return h.seen.Seen(host) }

// Sharing tells other servers which hosts are heard of here.
func (h *Hosts) Sharing(s state.Store) *presence.Share {
	return &presence.Share{State: s, Book: h.seen, Clock: h.clock, Log: h.log}
}

// Unsee forgets when a host was heard of.
func (h *Hosts) Unsee(host string) { h.seen.Forget(host) }

// Online tells whether a host polls now, or did just before.
func (h *Hosts) Online(host string, now time.Time) bool {
	p := h.Seen(host)
	return p != nil && p.Online(now)
}

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
		d.LastSeen, d.Asked = r.Reported, r.Obeyed()
		if r.Status != nil {
			d.Channel, d.Target = r.Status.Channel, r.Status.Target
		}
	}
	if p := h.Seen(name); p != nil {
		v := p.View(now)
		if v.Last.After(d.LastSeen) {
			d.LastSeen = v.Last.UTC().Truncate(time.Second)
		}
		d.Online, d.Channel, d.Target, d.Until = v.Online, v.Channel, v.Target, v.Until
	}
	return d
}

// Known tells whether the host has reported or joined.
func (d *Described) Known() bool { return d.known }

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
		if last := p.View(h.clock()).Last; last.After(at) {
			at = last
		}
	}
	return at
}
