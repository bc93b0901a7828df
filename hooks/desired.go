package hooks

import (
	"fmt"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/longpoll"
)

// grantLease is for how many seconds a grant is good, unless a window closes
// sooner.
const grantLease = 900 * time.Second

// desired is an answer to a host, and when it will be another by itself.
type desired struct {
	*api.Desired
	window time.Time // when a window of the channel opens or closes next
	hold   time.Time // when the hold ends
	rest   time.Time // when it is in line for a slot again
	room   bool      // it asks to reboot, might, and there is a slot for it
	lease  time.Duration
}

// desired works out what a host shall do. Everyone at once, for now: who has
// an entry, is not held, and comes within a window has the grant.
func (s *Server) desired(host, channel, target string) (*desired, error) {
	l, p, now := s.channel(channel), s.policy(channel), s.clock()
	d := &desired{Desired: &api.Desired{Channel: channel, Seq: l.state.Seq, Policy: p.Policy, MinAgent: p.MinAgent}, lease: grantLease}
	var err error
	if d.Pointer, err = l.pointer(target); err != nil {
		return nil, err
	}
	record := s.store.host(host)
	if record == nil {
		record = new(hostRecord)
	}
	if record.held(now) {
		if d.Hold = record.Hold; d.Hold.Until != nil {
			d.hold = *d.Hold.Until
		}
	}
	if d.Pointer != nil && record.Directive != nil && record.Directive.Seq == l.head.Seq {
		d.Directive = record.Directive
	}
	open, next := p.state(now)
	if d.window = next; open && !next.IsZero() {
		d.lease = min(d.lease, next.Sub(now))
	}
	switch {
	case d.Pointer == nil:
		d.WaitingFor = &api.Waiting{Kind: api.WaitNotInRelease, Detail: notInText(l, target)}
	case d.Hold != nil:
		d.WaitingFor = &api.Waiting{Kind: api.WaitHold, Detail: d.Hold.Reason}
	case !open:
		d.WaitingFor = &api.Waiting{Kind: api.WaitWindow, Detail: p.schedule.Opens(next)}
	default:
		d.Grant = newGrant(l.head.Seq, d.lease, fmt.Sprintf("%s-%d", channel, l.head.Seq))
		s.permitReboot(d, host, record, p)
	}
	return d, nil
}

// permitReboot is for a host that may act, if it asks to reboot.
func (s *Server) permitReboot(d *desired, host string, r *hostRecord, p *policy) {
	if !asksReboot(r.Status) || r.Status.Channel != d.Channel || r.Status.Seq != d.Grant.Seq {
		return
	}
	sl := s.slots.of(host)
	if sl != nil && sl.Channel == d.Channel && sl.Seq == d.Grant.Seq {
		lease := min(d.lease, sl.lease(s.clock()))
		if lease > 0 {
			d.Reboot = newGrant(sl.Seq, lease, fmt.Sprintf("reboot-%s-%d-%d", d.Channel, sl.Seq, sl.Granted.Unix()))
		} else {
			d.WaitingFor = &api.Waiting{Kind: api.WaitSlot, Detail: "its permission to reboot came to nothing, and it gives its slot back first"}
		}
		return
	}
	if p.unasked(r.Status) {
		d.WaitingFor = &api.Waiting{Kind: api.WaitReboot, Detail: fmt.Sprintf("the policy of %s has no reboot_slots, and the release does not say reboot: the server permits none, a person has to reboot it; or set reboot_slots (narwharf channel policy %s), and it reboots by itself", d.Channel, d.Channel)}
		return
	}
	var why string
	if why, d.rest = s.behind(host, r); why != "" {
		d.WaitingFor = &api.Waiting{Kind: api.WaitSlot, Detail: why}
		return
	}
	if who := s.slots.full(rebootGroup(r, d.Channel), p.RebootSlots); who != "" {
		d.WaitingFor = &api.Waiting{Kind: api.WaitSlot, Detail: who}
		return
	}
	d.room = true
}

func newGrant(seq int64, lease time.Duration, id string) *api.Grant {
	return &api.Grant{Seq: seq, Lease: max(int64(lease/time.Second), 1), ID: id}
}

// tell is desired for the host itself: it takes the slot that there is for it,
// and sees to it that the host is woken when time alone changes the answer.
func (s *Server) tell(host, channel, target string) (*desired, error) {
	d, err := s.desired(host, channel, target)
	if err == nil && d.room {
		if err = s.takeSlot(host, channel, d.Grant.Seq); err == nil {
			d, err = s.desired(host, channel, target)
		}
	}
	if err != nil {
		return nil, err
	}
	if d.Reboot != nil {
		until := s.clock().Add(time.Duration(d.Reboot.Lease) * time.Second)
		s.slots.change(host, func(sl *slot) {
			if until.After(sl.until) {
				sl.until = until
			}
		})
	}
	s.wakeFor(d, channel, host)
	return d, nil
}

// wakeFor sets the alarms for what time changes of an answer.
func (s *Server) wakeFor(d *desired, channel, host string) {
	if !d.window.IsZero() {
		s.alarms.first(d.window, "window/"+channel, func() {
			s.polls.Notify(channelTopic(channel), hostsTopic(channel), hostsTopic(""))
		})
	}
	if !d.rest.IsZero() {
		s.alarms.first(d.rest, "rest/"+host, func() { s.polls.Notify(hostTopic(host)) })
	}
	if !d.hold.IsZero() {
		s.alarms.first(d.hold, "hold/"+host, func() {
			s.polls.Notify(hostTopic(host), hostsTopic(channel), hostsTopic(""))
		})
	}
}

// answer encodes it. The ETag is as if no window were about to close: a lease
// is how long the very answer is good, and a host that acted on it long ago is
// not to be woken for it.
func (d *desired) answer() (longpoll.Answer, error) {
	const full = int64(grantLease / time.Second)
	a, err := longpoll.JSON(d.Desired)
	whole, short := *d.Desired, false
	for _, g := range []**api.Grant{&whole.Grant, &whole.Reboot} {
		if *g != nil && (*g).Lease != full {
			copied := **g
			copied.Lease, *g = full, &copied
			short = true
		}
	}
	if err == nil && short {
		var full longpoll.Answer
		full, err = longpoll.JSON(&whole)
		a.ETag = full.ETag
	}
	return a, err
}

func notInText(l *live, target string) string {
	if l.release == nil {
		return absentText(l)
	}
	return fmt.Sprintf("release %d of %s has no entry for %s", l.head.Seq, l.name, target)
}
