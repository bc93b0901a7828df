package desired

import (
	"cmp"
	"slices"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/host"
	"narwharf/hooks/reboot"
)

// Describe is all that is known of a host.
func (f *Fleet) Describe(name string) (*host.Described, error) {
	d := f.hosts.Describe(name)
	a, err := f.answer(name, d.Channel, d.Target, f.hosts.Record(name))
	if err != nil {
		return nil, err
	}
	d.WaitingFor, d.Directive = a.WaitingFor, a.Directive
	f.wakeFor(a, d.Channel, name)
	if sl := f.slots.Of(name); sl != nil {
		d.Slot = &api.Slot{Group: sl.Group, Seq: sl.Seq, Granted: sl.Granted, Late: sl.Late}
	}
	l := f.channels.Get(d.Channel)
	if e := l.Entry(d.Target); e != nil {
		d.WantedSeq, d.Wanted = l.Head.Seq, e.StorePath
		d.Converged = d.Status != nil && d.Status.Current == e.StorePath && d.Status.Seq == l.Head.Seq && d.Status.State == api.OK
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

// List is all hosts that reported or polled, of all channels if none is named,
// sorted by name. The time next is when one of them will count as gone.
func (f *Fleet) List(channel string) (list []api.Host, next time.Time, err error) {
	names := f.hosts.Names()
	list = make([]api.Host, 0, len(names))
	for n := range names {
		d, err := f.Describe(n)
		if err != nil {
			return nil, next, err
		}
		if channel != "" && d.Channel != channel {
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
