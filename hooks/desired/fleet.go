// Package desired is what a host is told, and what its report changes: the one
// place where channel, host and reboot meet.
//
// An answer to a host is made of what is in memory, and has an ETag that is a
// hash of it. What time alone changes of an answer wakes the polls that wait for
// it. Whatever is stored is decided in its transaction, under the locks of the
// channel, the host and the group that it is about.
package desired

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"narwharf/cache/state"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/channel"
	"narwharf/hooks/host"
	"narwharf/hooks/policy"
	"narwharf/hooks/reboot"
	"narwharf/hooks/timers"
)

// Options are what a Fleet is made of.
type Options struct {
	Set      *mirror.Set
	Channels *channel.Channels
	Policies *policy.Policies
	Hosts    *host.Hosts
	Slots    *reboot.Slots
	Timers   *timers.Set
	Wake     func(topics ...string) // polls of this server
	Log      *slog.Logger
	Clock    func() time.Time
}

// Fleet is the hosts with the channels that they follow.
type Fleet struct {
	set      *mirror.Set
	channels *channel.Channels
	policies *policy.Policies
	hosts    *host.Hosts
	slots    *reboot.Slots
	timers   *timers.Set
	wake     func(topics ...string)
	log      *slog.Logger
	clock    func() time.Time
	began    time.Time
}

// New makes a Fleet. It is to be told of all notices from then on, and that some
// may have been lost before.
func New(o Options) *Fleet {
	return &Fleet{
		set: o.Set, channels: o.Channels, policies: o.Policies, hosts: o.Hosts, slots: o.Slots, timers: o.Timers,
		wake: o.Wake, log: o.Log, clock: o.Clock, began: o.Clock(),
	}
}

// Noticed is told which topics the state notified of.
func (f *Fleet) Noticed(topics []string) {
	now := f.clock()
	for _, topic := range topics {
		if name, ok := f.slots.HostOf(topic); ok {
			f.timers.At(now, slotTimer(name), func() { f.checkOverdue(name) })
		} else if f.policies.Is(topic) || topic == state.All {
			f.timers.At(now, "slots", f.watchSlots)
		}
	}
}

// errMoved is that a host has another slot than the locks are for.
var errMoved = errors.New("the host's slot has changed")

// change changes a host and its slot, nil if it holds none, under their locks and
// some more.
func (f *Fleet) change(ctx context.Context, name string, more []string, fn func(tx *mirror.Tx, sl *reboot.Slot) error) error {
	group := ""
	if sl := f.slots.Of(name); sl != nil {
		group = sl.Group
	}
	for {
		locks := append([]string{host.Lock(name)}, more...)
		if group != "" {
			locks = append(locks, reboot.Lock(group))
		}
		err := f.set.Update(ctx, locks, func(tx *mirror.Tx) error {
			sl := f.slots.In(tx, name)
			if sl != nil && sl.Group != group {
				group = sl.Group
				return errMoved
			}
			return fn(tx, sl)
		})
		if !errors.Is(err, errMoved) {
			return err
		}
	}
}
