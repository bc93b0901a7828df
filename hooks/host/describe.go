package host

import (
	"time"

	"narwharf/hooks/api"
)

// Described is a host for its readers.
type Described struct {
	api.Host
	Channel string // that it asked for or reported last
	Target  string
	Until   time.Time // when it counts as gone if nothing is heard; zero: not by that
}

// Describe is what is known of a host by itself.
func (h *Hosts) Describe(name string) *Described {
	d := &Described{Host: api.Host{Host: name}, Target: name}
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

// Known tells whether anything was heard of the host.
func (d *Described) Known() bool { return !d.LastSeen.IsZero() || d.Identity != nil }

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
