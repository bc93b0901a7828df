// Package reboot is slots: how many hosts of a group may reboot at a time, who
// may next, and which are overdue (docs/design/014-reboot-slots.md).
//
// # What it promises
//
//   - A host is told that it may reboot after its slot is durable. The slot ends
//     when the host reports that the reboot is over, when it has not rebooted and
//     polls after its permission has run out, or when a person takes it away.
//     Neither time nor a restart ends it. So of the hosts of a group never more
//     are down by permission than the policy had slots for, and none that is up
//     keeps the others waiting.
//   - Whether there is room for a slot is read in the transaction that takes it,
//     under the lock of its group. Who takes it is decided by who asks, and in
//     memory: a host that did not use its last one lets others go first.
//
// # Format
//
// In the state, as JSON: hooks/slot  <host>  Slot, and hooks/slot  fleetlock/<id>  Slot
// of machines that are no hosts (hooks/fleetlock). What a host did not use is in its
// record (host.Unused).
package reboot

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"narwharf/cache/state"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/host"
)

// Lease is for how long a permission is good, unless a window closes sooner.
const Lease = 900 * time.Second

// A Slot is the permission of one host to reboot for one release. It is held
// from before the host is told until the host has declared that it is over, shows
// that it is up and has not used it, or an operator takes it away; time alone ends
// none, since what is not back is down.
type Slot struct {
	Channel string    `json:"channel"`
	Group   string    `json:"group"`
	Seq     int64     `json:"seq"`
	BootID  string    `json:"boot_id"` // before the reboot
	Granted time.Time `json:"granted"`
	Alarmed bool      `json:"late,omitempty"` // the alarm was raised
	// Again is that the host was told after the grant, too.
	Again bool `json:"again,omitempty"`
	// LastReason is why the host did not reboot, when it said so last.
	LastReason string `json:"last_reason,omitempty"`
	// Retried is that an operator has said retry since the permission was over.
	Retried bool `json:"retried,omitempty"`
	// By is the credential that took it, of a machine that is no host.
	By string `json:"by,omitempty"`
}

// Slots is all slots.
type Slots struct {
	table *mirror.Table[Slot]
}

// New makes slots in the state of a set. Those of a clock that was ahead begin
// anew: their time would not be over for ever.
func New(set *mirror.Set, now time.Time) (s *Slots, err error) {
	s = new(Slots)
	if s.table, err = mirror.Open[Slot](set, "hooks/slot", "reboot slot of host", nil); err != nil {
		return nil, fmt.Errorf("open reboot slots: %w", err)
	}
	for name, sl := range s.table.All() {
		if !sl.Granted.After(now) {
			continue
		}
		err := set.Update(context.Background(), []string{host.Lock(name), Lock(sl.Group)}, func(tx *mirror.Tx) error {
			if is := s.In(tx, name); is != nil && is.Granted.After(now) {
				is.Granted = now.UTC()
				s.Put(tx, name, is)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Lock is the lock of the state that whoever changes slots of a group holds.
func Lock(group string) string { return "group:" + group }

// Topic is what a slot's end notifies of: there may be room in its group.
func Topic(group string) string { return "reboot/" + group }

// HostOf is the host of whose slot a topic tells.
func (s *Slots) HostOf(topic string) (host string, ok bool) {
	return strings.CutPrefix(topic, s.table.Topic(""))
}

// Of is the slot that a host holds as memory has it, nil if it holds none.
func (s *Slots) Of(host string) *Slot { return s.table.Get(host) }

// In is Of in a transaction.
func (s *Slots) In(tx *mirror.Tx, host string) *Slot { return s.table.In(tx, host) }

// Key is what In reads.
func (s *Slots) Key(host string) state.Key { return s.table.Key(host) }

// All is all slots, by host.
func (s *Slots) All() map[string]*Slot { return s.table.All() }

// Put changes a slot.
func (s *Slots) Put(tx *mirror.Tx, host string, sl *Slot) { s.table.Put(tx, host, sl) }

// Full says who holds the slots of a group, "" if there is room for another.
func (s *Slots) Full(group string, limit int) string {
	if limit == 0 {
		return ""
	}
	return full(s.table.All(), group, limit)
}

func full(all map[string]*Slot, group string, limit int) string {
	var hosts []string
	for host, sl := range all {
		if sl.Group == group {
			hosts = append(hosts, host)
		}
	}
	if limit == 0 || len(hosts) < limit {
		return ""
	}
	slices.Sort(hosts)
	return fmt.Sprintf("%s of the group %s may reboot now, %d at a time", someOf(hosts), group, limit)
}

// Take gives a host a slot, if it holds none and there is room: fewer than limit
// in its group, or no limit.
func (s *Slots) Take(tx *mirror.Tx, host string, sl *Slot, limit int) (taken bool) {
	if s.In(tx, host) != nil || limit > 0 && full(s.table.AllIn(tx), sl.Group, limit) != "" {
		return false
	}
	name, called, data := who(host, sl)
	why := "by FleetLock"
	if name != "" {
		data["boot_id"], why = sl.BootID, fmt.Sprintf("for seq %d", sl.Seq)
	}
	audit.Note(tx, api.Event{Kind: "reboot.granted", By: sl.By, Channel: sl.Channel, Host: name, Seq: sl.Seq, Data: data,
		Text: fmt.Sprintf("%s may reboot %s, in a slot of the group %s", called, why, sl.Group)})
	s.Put(tx, host, sl)
	return true
}

// End takes a host's slot away, with the words for why.
func (s *Slots) End(tx *mirror.Tx, host string, sl *Slot, by, text string) {
	tx.Notify(Topic(sl.Group), audit.Host(host))
	name, _, data := who(host, sl)
	audit.Note(tx, api.Event{Kind: "reboot.ended", By: by, Channel: sl.Channel, Host: name, Seq: sl.Seq, Text: text, Data: data})
	s.table.Put(tx, host, nil)
}

// Asks tells whether a host would reboot at once if it were permitted. That it
// needs one is not enough: its own windows, a pause or a person may be in the way.
func Asks(st *api.Status) bool {
	return st != nil && st.State == api.Armed && st.WaitingFor != nil && st.WaitingFor.Asks
}

// Over tells whether a report says that a host's reboot is over, or will not be.
func (sl *Slot) Over(st *api.Status, now time.Time) bool {
	switch {
	case st.Channel != sl.Channel, st.Seq != sl.Seq:
		return true // what it was armed for is not what it is about any more
	case st.State != api.Armed:
		return st.State.Final()
	case st.BootID != sl.BootID:
		return false // it came back just now, and its probation begins
	}
	// It may be about to go down, unless it waits for something else and its
	// permission ran out before it said so.
	return st.WaitingFor != nil && st.WaitingFor.Kind != api.WaitReboot && !st.WaitingFor.Asks && now.After(sl.LeaseOver())
}

// Failed is a report that a host does not reboot although it may. It may also be
// about to.
func (sl *Slot) Failed(st *api.Status) bool {
	w := st.WaitingFor
	return st.Channel == sl.Channel && st.Seq == sl.Seq && st.State == api.Armed && st.BootID == sl.BootID && w != nil && w.Kind == api.WaitReboot && !w.Asks
}

// LeaseOver is when a host's permission has surely ended, by its own clock too.
// What it was told later than at the grant may end a part of a minute later.
func (sl *Slot) LeaseOver() time.Time {
	over := sl.Granted.Add(Lease + time.Minute)
	if sl.Again {
		over = over.Add(time.Minute)
	}
	return over
}

// Lease is for how long a host may be told that it may reboot, 0 if not any more:
// however often it asks, a slot that it does not use ends. In whole minutes, so
// that what is said twice is the same.
func (sl *Slot) Lease(now time.Time) time.Duration {
	left := min(sl.Granted.Add(Lease).Sub(now), Lease)
	return max(left+time.Minute-1, 0).Truncate(time.Minute)
}

// someOf are the first five of some names.
func someOf(names []string) string {
	text := strings.Join(names[:min(len(names), 5)], ", ")
	if more := len(names) - 5; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// upFor is how much longer than its permission a host that is up as it was may
// take to give its slot back: about what a hook takes that began at the last moment.
const upFor = 10 * time.Minute

// Overdue is from when on a host that is not heard of is overdue. One of which it is known
// that it does not come to reboot is busy with trying for that long.
func (sl *Slot) Overdue(r *host.Record, patience time.Duration) time.Time {
	if r != nil && r.Unused.Of(sl.Channel, sl.Seq) {
		patience = max(patience, 2*Lease)
	}
	return sl.Granted.Add(patience)
}

// Busy tells whether a host that has not rebooted yet still has time to reboot, or to
// give its slot back. One that is heard of after that, and asks for nothing, hangs in
// its hook.
func (sl *Slot) Busy(r *host.Record, online bool, now time.Time) bool {
	return online && r != nil && r.Status != nil && r.Status.BootID == sl.BootID && now.Before(sl.LeaseOver().Add(upFor))
}

// Alarm raises the alarm of a slot that is held for too long.
func (s *Slots) Alarm(tx *mirror.Tx, name string, sl *Slot, r *host.Record, online bool, heard time.Time) {
	var last *api.Status
	if r != nil {
		last = r.Status
	}
	tx.Notify(audit.Host(name))
	host, _, data := who(name, sl)
	text := alarmText(name, sl, last, online && last != nil, heard, tx.Time)
	if id, ok := IsForeign(name); ok {
		text = alarmForeign(id, sl, tx.Time)
	}
	audit.Note(tx, api.Event{Kind: "reboot.late", Channel: sl.Channel, Host: host, Seq: sl.Seq, Alarm: true, Data: data, Text: text})
	next := *sl
	next.Alarmed = true
	s.Put(tx, name, &next)
}

// alarmText tells a host that is gone from one that was booted and has come to no
// end, and from one whose hook hangs.
func alarmText(name string, sl *Slot, last *api.Status, up bool, heard, now time.Time) string {
	what := "has not come back"
	if up {
		what = "is up, and neither reboots nor asks"
	}
	if last != nil && last.BootID != sl.BootID {
		what = "was booted since, and has come to no end"
	}
	if !up {
		what += ", and is not heard of"
		if !heard.IsZero() {
			what += " since " + heard.UTC().Format("15:04:05 MST")
		}
	}
	return fmt.Sprintf("%s was let reboot for seq %d %s ago and %s (its last word: %s); it keeps its slot of the group %s until it reports the end, or narwharf host release %s",
		name, sl.Seq, now.Sub(sl.Granted).Round(time.Second), what, Summary(last), sl.Group, name)
}
