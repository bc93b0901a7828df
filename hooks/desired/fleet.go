// Package desired is what a host is told, and what its report changes: the one
// place where channel, host and reboot meet.
//
// An answer to a host is made of what is in memory, and has an ETag that is a
// hash of it. What time alone changes of an answer wakes the polls that wait for
// it. Whatever is stored is decided in its transaction, under the locks of the
// channel, the host and the group that it is about.
package desired

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"narwharf/cache/state"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/channel"
	"narwharf/hooks/host"
	"narwharf/hooks/keys"
	"narwharf/hooks/longpoll"
	"narwharf/hooks/policy"
	"narwharf/hooks/reboot"
	"narwharf/hooks/rollout/driver"
	"narwharf/hooks/timers"
)

// Options are what a Fleet is made of.
type Options struct {
	Set      *mirror.Set
	Channels *channel.Channels
	Policies *policy.Policies
	Keys     *keys.Keyrings
	Hosts    *host.Hosts
	Slots    *reboot.Slots
	Rollouts *driver.Driver
	Timers   *timers.Set
	Wake     func(topics ...string) // polls of this server
	Log      *slog.Logger
	Clock    func() time.Time
}

// Fleet is the hosts with the channels that they follow.
type Fleet struct {
	o     Options
	began time.Time
}

// New makes a Fleet. It is to be told of all notices from then on, and that some
// may have been lost before.
func New(o Options) *Fleet { return &Fleet{o: o, began: o.Clock()} }

// Noticed is told which topics the state notified of.
func (f *Fleet) Noticed(topics []string) {
	now := f.o.Clock()
	for _, topic := range topics {
		if name, ok := f.o.Slots.HostOf(topic); ok {
			f.o.Timers.At(now, slotTimer(name), func() { f.checkOverdue(name) })
		} else if f.o.Policies.Is(topic) || topic == state.All {
			f.o.Timers.At(now, "slots", f.watchSlots)
		}
	}
}

// errMoved is that a host has another slot than the locks are for.
var errMoved = errors.New("the host's slot has changed")

// change changes a host and its slot, nil if it holds none, under their locks and
// some more.
func (f *Fleet) change(ctx context.Context, name string, more []string, fn func(tx *mirror.Tx, sl *reboot.Slot) error) error {
	group := ""
	if sl := f.o.Slots.Of(name); sl != nil {
		group = sl.Group
	}
	for {
		locks := append([]string{host.Lock(name)}, more...)
		if group != "" {
			locks = append(locks, reboot.Lock(group))
		}
		err := f.o.Set.Update(ctx, locks, func(tx *mirror.Tx) error {
			sl := f.o.Slots.In(tx, name)
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

// Describe is all that is known of a host.
func (f *Fleet) Describe(name string) (*host.Described, error) {
	d := f.o.Hosts.Describe(name)
	a, err := f.answer(name, d.Channel, d.Target, api.Have{Keys: -1}, f.o.Hosts.Record(name))
	if errors.As(err, new(longpoll.Later)) {
		a, err = &Answer{Desired: new(api.Desired)}, nil // what is known is enough for people
	}
	if err != nil {
		return nil, err
	}
	d.WaitingFor, d.Directive = a.WaitingFor, a.Directive
	if kind, detail := f.o.Rollouts.Why(name); kind != "" && a.Hold == nil {
		d.WaitingFor = &api.Waiting{Kind: kind, Detail: detail}
	}
	f.wakeFor(a, d.Channel, name)
	f.measure(d)
	if a.Pointer != nil && a.shown != d.WantedSeq {
		d.ShownSeq = a.shown
	}
	if st := d.Status; reboot.Asks(st) && st.Seq == d.WantedSeq {
		// What it waits for is our permission, of which it may not have heard yet.
	} else if st != nil && st.WaitingFor != nil {
		d.WaitingFor = st.WaitingFor
	} else if st != nil && st.Seq == d.WantedSeq && st.State.Final() {
		d.WaitingFor = nil // it is not waiting, whatever it would have to wait for
	}
	return d, nil
}

// measure puts into d what the host is to run, and which slot it has.
func (f *Fleet) measure(d *host.Described) {
	if sl := f.o.Slots.Of(d.Host.Host); sl != nil {
		d.Slot = &api.Slot{Group: sl.Group, Seq: sl.Seq, Granted: sl.Granted, Overdue: sl.Alarmed}
	}
	l := f.o.Channels.Get(d.Channel)
	if e := l.Entry(d.Target); e != nil {
		d.WantedSeq, d.Wanted = l.Head.Seq, e.StorePath
		d.Converged = d.Status != nil && d.Status.Current == e.StorePath && d.Status.Seq == l.Head.Seq && d.Status.State == api.OK
	}
}

// Glance calls each with all hosts of channels that keep says yes to ("" is none), in no order. They are
// as Describe has them, but for what they are told, wait for and are asked to do: who counts
// 10,000 hosts needs none of that, and it is most of the work.
func (f *Fleet) Glance(keep func(channel string) bool, each func(d *host.Described)) {
	for name := range f.o.Hosts.Names() {
		if d := f.o.Hosts.Describe(name); keep(d.Channel) {
			f.measure(d)
			each(d)
		}
	}
}

// List is all hosts that reported or polled of channels that keep says yes to ("" is none),
// sorted by name. The time next is when one of them will count as gone.
func (f *Fleet) List(keep func(channel string) bool) (list []api.Host, next time.Time, err error) {
	names := f.o.Hosts.Names()
	list = make([]api.Host, 0, len(names))
	for n := range names {
		d, err := f.Describe(n)
		if err != nil {
			return nil, next, err
		}
		if !keep(d.Channel) {
			continue
		}
		list = append(list, d.Host)
		if !d.Until.IsZero() && (next.IsZero() || d.Until.Before(next)) {
			next = d.Until
		}
	}
	slices.SortFunc(list, func(a, b api.Host) int { return cmp.Compare(a.Host, b.Host) })
	return list, next, nil
}

const (
	pageBytes = 1 << 20  // of a page of hosts, and one host at least
	allBytes  = 32 << 20 // of a list of all, for those that do not ask for pages
)

// Page is the hosts behind a name, which may be "", and in next the name to go on with; if
// it is not to be paged all, as older clients ask. The ETag is that of the whole list.
func Page(list []api.Host, paged bool, after string) (longpoll.Answer, error) {
	sum := sha256.New()
	page, next, full := []byte(`{"hosts":[`), "", false
	for i := range list {
		text, err := json.Marshal(&list[i])
		if err != nil {
			return longpoll.Answer{}, err
		}
		_, _ = sum.Write(text) // never fails
		switch {
		case paged && (list[i].Host <= after || full):
			continue
		case !paged && len(page) > allBytes:
			return longpoll.Answer{}, api.Errorf(api.Invalid, "these are too many hosts for one answer: ask for them in pages, with ?after= (a newer narwharf does)")
		case next != "":
			page = append(page, ',')
		}
		page, next = append(page, text...), list[i].Host
		full = paged && len(page) > pageBytes
	}
	page = append(page, ']')
	if full && next != list[len(list)-1].Host {
		page = fmt.Appendf(page, `,"next":%q`, next)
	}
	return longpoll.Answer{Status: 200, ETag: `"` + hex.EncodeToString(sum.Sum(nil)[:16]) + `"`, Body: append(page, "}\n"...)}, nil
}
