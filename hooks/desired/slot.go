package desired

import (
	"context"
	"fmt"
	"time"

	"narwharf/cache/state"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/channel"
	"narwharf/hooks/host"
	"narwharf/hooks/host/presence"
	"narwharf/hooks/policy"
	"narwharf/hooks/reboot"
)

// notYet says why a host that asks to reboot is not let now, though there may be
// a slot: it did not use the last. It is "" for all others. The time is when the
// host has rested, zero if that is not what it waits for.
func (f *Fleet) notYet(name string, r *host.Record, p *policy.Policy) (why string, until time.Time) {
	now := f.o.Clock()
	if why, until = reboot.Resting(r, now); why != "" || r.UnusedNow() == nil || p.RebootSlots == 0 {
		return why, until // with no slots nobody waits for anybody
	}
	group := r.RebootGroup(r.Status.Channel)
	queue := make(map[string]*host.Record)
	for other, record := range f.o.Hosts.Records() {
		if other != name && f.inQueue(other, record, group, now) {
			queue[other] = record
		}
	}
	return reboot.Ahead(r, group, queue), time.Time{}
}

// inQueue tells whether a host is there and takes a slot of a group that is free
// now.
func (f *Fleet) inQueue(name string, r *host.Record, group string, now time.Time) bool {
	st := r.Status
	if !reboot.Asks(st) || r.RebootGroup(st.Channel) != group || r.Held(now) || f.o.Slots.Of(name) != nil || !f.o.Hosts.Online(name, now) {
		return false
	}
	if why, _ := reboot.Resting(r, now); why != "" {
		return false
	}
	l, p := f.o.Channels.Get(st.Channel), f.o.Policies.Of(st.Channel)
	if open, _ := p.Open(now); !open || p.Unasked(st) {
		return false
	}
	if governed(l, p) {
		if kind, _ := f.o.Rollouts.MayReboot(name); kind != "" {
			return false
		}
	} else if l.Entry(st.Target) == nil || l.Head.Seq != st.Seq {
		return false
	}
	// For the hosts of its channel, which may be let fewer at a time.
	return f.o.Slots.Full(group, p.RebootSlots) == ""
}

// takeSlot gives a host that asks a slot, if there is still one.
func (f *Fleet) takeSlot(ctx context.Context, name, ch string, seq int64) error {
	r := f.o.Hosts.Record(name)
	if r == nil {
		return nil
	}
	group := r.RebootGroup(ch)
	locks := []string{host.Lock(name), state.Shared(channel.Lock(ch)), state.Shared(policy.Lock(ch)), reboot.Lock(group)}
	return f.o.Set.Update(ctx, locks, func(tx *mirror.Tx) error {
		r := f.o.Hosts.In(tx, name)
		if r == nil || !reboot.Asks(r.Status) || r.Status.Channel != ch || r.Status.Seq != seq || r.Held(tx.Time) || r.RebootGroup(ch) != group {
			return nil // it has said something else meanwhile, or somebody of it
		}
		if why, _ := reboot.Resting(r, tx.Time); why != "" {
			return nil
		}
		p := f.o.Policies.In(tx, ch)
		if open, _ := p.Open(tx.Time); !open || p.Rollout == nil && f.o.Channels.In(tx, ch).Current != seq || p.Unasked(r.Status) {
			return nil
		}
		f.o.Slots.Take(tx, name, &reboot.Slot{Channel: ch, Group: group, Seq: seq, BootID: r.Status.BootID, Granted: tx.Time.UTC()}, p.RebootSlots)
		return nil
	})
}

// Review ends the slot of a host whose agent polls on the boot on which it was
// let reboot, after its permission ran out: its own window has closed, its
// pre_reboot hook fails, or nobody knows why it did not. An agent that reboots
// does not poll. It also ends that of a host which asks on another boot: it is
// armed anew there. A host repeats its last report until its first poll after a
// boot.
func (f *Fleet) Review(ctx context.Context, name, boot string) error {
	unused := func(sl *reboot.Slot, r *host.Record, now time.Time) bool {
		if sl == nil || r == nil || r.Status == nil || r.Status.BootID != boot || !now.After(sl.LeaseOver()) {
			return false
		}
		return boot == sl.BootID || reboot.Asks(r.Status) && now.Sub(r.Reported) >= time.Minute
	}
	if sl := f.o.Slots.Of(name); sl == nil || !unused(sl, f.o.Hosts.Record(name), f.o.Clock()) {
		return nil
	}
	return f.change(ctx, name, nil, func(tx *mirror.Tx, sl *reboot.Slot) error {
		r := f.o.Hosts.In(tx, name)
		if !unused(sl, r, tx.Time) {
			return nil
		}
		if next := f.o.Slots.GiveBack(tx, name, r, sl); next != r {
			f.o.Hosts.Put(tx, name, next)
		}
		return nil
	})
}

// Release takes the slot of a host that will not come back.
func (f *Fleet) Release(ctx context.Context, who host.Caller, name string, seq int64) error {
	return f.change(ctx, name, nil, func(tx *mirror.Tx, sl *reboot.Slot) error {
		if sl == nil {
			return api.Errorf(api.NotFound, "%s holds no reboot slot", name)
		}
		if sl.Seq != seq {
			return otherSeq(name, seq, sl.Seq)
		}
		if err := who.Over(f.o.Hosts.In(tx, name)); err != nil {
			return err
		}
		f.o.Slots.End(tx, name, sl, who.Name, fmt.Sprintf("the reboot slot of %s in the group %s was taken away", name, sl.Group))
		return nil
	})
}

// ---- slots that are held for too long

func slotTimer(name string) string { return "slot/" + name }

// watchSlots sets the timers of all slots, of which the policy may be another now.
func (f *Fleet) watchSlots() {
	for name := range f.o.Slots.All() {
		f.o.Timers.At(f.o.Clock(), slotTimer(name), func() { f.checkOverdue(name) })
	}
}

// checkOverdue raises the alarm of a slot that is held for too long, or looks
// again when that may be.
func (f *Fleet) checkOverdue(name string) {
	sl, r, now := f.o.Slots.Of(name), f.o.Hosts.Record(name), f.o.Clock()
	if sl == nil || sl.Alarmed {
		return
	}
	again := func(at time.Time) { f.o.Timers.At(at, slotTimer(name), func() { f.checkOverdue(name) }) }
	at := sl.Overdue(r, f.o.Policies.Of(sl.Channel).RebootPatience())
	if heard := f.began.Add(presence.OnlineFor); at.Before(heard) {
		at = heard // a server that has just begun has heard of nobody
	}
	if now.Before(at) {
		again(at)
		return
	}
	online := f.o.Hosts.Online(name, now)
	if sl.Busy(r, online, now) {
		again(now.Add(time.Minute))
		return
	}
	err := f.change(context.Background(), name, nil, func(tx *mirror.Tx, is *reboot.Slot) error {
		if is != nil && !is.Alarmed && is.Granted.Equal(sl.Granted) {
			r := f.o.Hosts.In(tx, name)
			f.o.Slots.Alarm(tx, name, is, r, online, f.o.Hosts.HeardOf(name, r))
		}
		return nil
	})
	if err != nil {
		f.o.Log.Error("an alarm was not stored", "host", name, "error", err)
		again(f.o.Clock().Add(time.Minute))
	}
}
