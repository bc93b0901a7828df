package desired

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/host"
	"narwharf/hooks/longpoll"
	"narwharf/hooks/policy"
	"narwharf/hooks/reboot"
	"narwharf/signing"
)

// Answer is an answer to a host, and when it will be another by itself.
type Answer struct {
	*api.Desired
	shown  int64     // seq of the release that it is about
	window time.Time // when a window of the channel opens or closes next
	hold   time.Time // when the hold ends
	rest   time.Time // when it is in the queue for a slot again
	room   bool      // it asks to reboot, might, and there is a slot for it
	again  bool      // it has a slot, and is told so for the second time
	lease  time.Duration
}

// For works out what a host shall do. Who has an entry, is not held, and comes within a
// window has the grant, if the channel's policy has no roll-outs. Else they decide.
func (f *Fleet) For(name, channel, target string, have api.Have) (*Answer, error) {
	r, err := f.o.Hosts.Read(name)
	if err != nil {
		return nil, err
	}
	return f.answer(name, channel, target, have, r)
}

// answer is For of a host of which r is known, nil for nothing.
func (f *Fleet) answer(name, channel, target string, have api.Have, r *host.Record) (*Answer, error) {
	l, p, now := f.o.Channels.Get(channel), f.o.Policies.Of(channel), f.o.Clock()
	r = cmp.Or(r, new(host.Record))
	if have.Seq > l.State.Seq { // another server has told it of a release, and this one has not heard yet
		again, fresh := f.o.Channels.Again(channel)
		if l = again; !fresh && have.Seq > l.State.Seq {
			return nil, longpoll.Later{Err: api.Errorf(api.Unavailable, "this server cannot read which release %s has: ask again", channel)}
		}
	}
	v, err := f.view(name, l, p)
	if err == nil && v.told != nil && have.Seq > v.seq {
		err = f.heard(name, have)
	}
	if err != nil {
		return nil, err
	}
	a := &Answer{Desired: &api.Desired{Channel: channel, Seq: v.seq, Policy: p.Policy, MinAgent: p.MinAgent}, lease: reboot.Lease, shown: v.seq}
	if a.Pointer, err = v.Pointer(target); err != nil {
		return nil, err
	}
	if r.Held(now) {
		if a.Hold = r.Hold; a.Hold.Until != nil {
			a.hold = *a.Hold.Until
		}
	}
	if a.Pointer != nil && r.Directive != nil && r.Directive.Seq == v.seq {
		a.Directive = r.Directive
	}
	open, next := p.Open(now)
	if a.window = next; open && !next.IsZero() {
		a.lease = min(a.lease, next.Sub(now))
	}
	a.Keys, a.Revocations = f.o.Keys.After(channel, have.Keys)
	step, err := f.walk(a, l.Name, target, have.Seq, r)
	if err != nil {
		return nil, err
	}
	switch {
	case step > 0:
		a.wait(api.WaitWave, fmt.Sprintf("it was off for long, and comes to release %d by way of %d", v.seq, step))
	case a.Pointer == nil:
		a.wait(api.WaitNotInRelease, v.absentText(l, target))
	case a.Hold != nil:
		a.wait(api.WaitHold, a.Hold.Reason)
	case l.State.Bad != 0 && l.State.Bad == v.seq:
		a.wait(api.WaitHold, "a key that signed it was revoked: promote another release")
	case v.told != nil:
		f.obey(a, name, v.told, r, p)
	case !open:
		a.wait(api.WaitWindow, p.Opens(next))
	case f.kept(a, r):
	default:
		a.Grant = newGrant(v.seq, a.lease, fmt.Sprintf("%s-%d", channel, v.seq))
		f.permitReboot(a, name, r, p)
	}
	return a, nil
}

// walk is for a host whose last seq is more than a jump below the channel's. It is shown heads
// in between. An agent that does not know of them is shown one of the releases instead, whose
// seq is step; it takes the seq, and is granted nothing of it.
func (f *Fleet) walk(a *Answer, name, target string, seen int64, r *host.Record) (step int64, err error) {
	old := seen < 0
	if old && r.Status != nil && r.Status.Channel == a.Channel {
		seen = r.Status.HighestSeq
	}
	switch {
	case a.Pointer == nil || seen <= 0 || a.shown-seen <= signing.MaxSeqJump:
	case old:
		var p *signing.Pointer
		if p, step, err = f.o.Channels.Step(name, seen, target); p != nil {
			a.Pointer = p
		}
	default:
		a.Heads, err = f.o.Channels.Between(name, seen, a.shown)
	}
	return step, err
}

func (a *Answer) wait(kind api.WaitKind, why string) {
	a.WaitingFor = &api.Waiting{Kind: kind, Detail: why}
}

// permitReboot is for a host that may act, if it asks to reboot.
func (f *Fleet) permitReboot(a *Answer, name string, r *host.Record, p *policy.Policy) {
	if !reboot.Asks(r.Status) || r.Status.Channel != a.Channel || r.Status.Seq != a.shown {
		return
	}
	if sl := f.o.Slots.Of(name); sl != nil && sl.Channel == a.Channel && sl.Seq == a.shown {
		if lease := min(a.lease, sl.Lease(f.o.Clock())); lease > 0 {
			a.Reboot = newGrant(sl.Seq, lease, fmt.Sprintf("reboot-%s-%d-%d", a.Channel, sl.Seq, sl.Granted.Unix()))
			a.again = !sl.Again
		} else {
			a.wait(api.WaitSlot, "its permission to reboot came to nothing, and it gives its slot back first")
		}
		return
	}
	if p.Unasked(r.Status) {
		a.wait(api.WaitReboot, fmt.Sprintf("the policy of %s has no reboot_slots, and the release does not say reboot: the server permits none, a person has to reboot it; or set reboot_slots (narwharf channel policy %s), and it reboots by itself", a.Channel, a.Channel))
		return
	}
	var why string
	if why, a.rest = f.notYet(name, r, p); why == "" {
		why = f.o.Slots.Full(r.RebootGroup(a.Channel), p.RebootSlots)
	}
	if a.room = why == ""; !a.room {
		a.wait(api.WaitSlot, why)
	}
}

// ends has the host told anew when a hold ends; zero is never.
func (a *Answer) ends(at time.Time) {
	if !at.IsZero() && (a.hold.IsZero() || at.Before(a.hold)) {
		a.hold = at
	}
}

func newGrant(seq int64, lease time.Duration, id string) *api.Grant {
	return &api.Grant{Seq: seq, Lease: max(int64(lease/time.Second), 1), ID: id}
}

// Tell is For for the host itself: it takes the slot that there is for it, and
// sees to it that the host is woken when time alone changes the answer.
func (f *Fleet) Tell(name, channel, target string, have api.Have) (*Answer, error) {
	ctx := context.Background() // a poll has none while it is parked
	a, err := f.For(name, channel, target, have)
	switch {
	case err != nil:
	case a.room:
		if err = f.takeSlot(ctx, name, channel, a.shown); err == nil {
			a, err = f.For(name, channel, target, have)
		}
	case a.again:
		err = f.change(ctx, name, nil, func(tx *mirror.Tx, sl *reboot.Slot) error {
			if sl != nil && sl.Seq == a.Reboot.Seq {
				sl.Again = true
				f.o.Slots.Put(tx, name, sl)
			}
			return nil
		})
	}
	if err != nil {
		return nil, err
	}
	f.wakeFor(a, channel, name)
	return a, nil
}

// SlotTopics are those after which there may be a slot for a host; it has none
// if it does not ask.
func (f *Fleet) SlotTopics(name string) []string {
	r := f.o.Hosts.Record(name)
	if r == nil || !reboot.Asks(r.Status) {
		return nil
	}
	return []string{reboot.Topic(r.RebootGroup(r.Status.Channel))}
}

// wakeFor sets the timers for what time changes of an answer.
func (f *Fleet) wakeFor(a *Answer, channel, name string) {
	if !a.window.IsZero() {
		f.o.Timers.First(a.window, "window/"+channel, func() { f.o.Wake(append(audit.Hosts(channel), audit.Channel(channel))...) })
	}
	if !a.rest.IsZero() {
		f.o.Timers.First(a.rest, "rest/"+name, func() { f.o.Wake(audit.Host(name)) })
	}
	if !a.hold.IsZero() {
		f.o.Timers.First(a.hold, "hold/"+name, func() { f.o.Wake(append(audit.Hosts(channel), audit.Host(name))...) })
	}
}

// Encode is its text and its ETag. The ETag is as if no window were about to
// close: a lease is how long the very answer is good, and a host that acted on it
// long ago is not to be woken for it.
func (a *Answer) Encode() (longpoll.Answer, error) {
	const full = int64(reboot.Lease / time.Second)
	answer, err := longpoll.JSON(a.Desired)
	whole, short := *a.Desired, false
	for _, g := range []**api.Grant{&whole.Grant, &whole.Reboot} {
		if *g != nil && (*g).Lease != full {
			copied := **g
			copied.Lease, *g = full, &copied
			short = true
		}
	}
	if err == nil && short {
		var as longpoll.Answer
		as, err = longpoll.JSON(&whole)
		answer.ETag = as.ETag
	}
	return answer, err
}
