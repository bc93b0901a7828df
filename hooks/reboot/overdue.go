package reboot

import (
	"fmt"
	"time"

	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/host"
)

// upFor is how much longer than its permission a host that is up as it was may
// take to give its slot back: about what a hook takes that began at the last moment.
const upFor = 10 * time.Minute

// Overdue is when a host that is not heard of is late. One of which it is known
// that it does not come to reboot is busy with trying for that long.
func (sl *Slot) Overdue(r *host.Record, patience time.Duration) time.Time {
	if r != nil && r.Unused.Of(sl.Channel, sl.Seq) {
		patience = max(patience, 2*Lease)
	}
	return sl.Granted.Add(patience)
}

// Busy tells whether a host that is up as it was still has time to give its slot
// back by itself, or to stop to be heard of. One that does neither says that it
// is there, and asks for nothing: its hook hangs.
func (sl *Slot) Busy(r *host.Record, online bool, now time.Time) bool {
	return online && r != nil && r.Status != nil && r.Status.BootID == sl.BootID && now.Before(sl.LeaseOver().Add(upFor))
}

// MarkLate raises the alarm of a slot that is held for too long.
func (s *Slots) MarkLate(tx *mirror.Tx, name string, sl *Slot, r *host.Record, online bool, heard time.Time) {
	var last *api.Status
	if r != nil {
		last = r.Status
	}
	tx.Notify(audit.Host(name))
	audit.Note(tx, api.Event{Kind: "reboot.late", Channel: sl.Channel, Host: name, Seq: sl.Seq, Alarm: true, Data: map[string]string{"group": sl.Group},
		Text: lateText(name, sl, last, online && last != nil, heard, tx.Time)})
	next := *sl
	next.Late = true
	s.Put(tx, name, &next)
}

// lateText tells a host that is gone from one that was booted and has come to no
// end, and from one whose hook hangs.
func lateText(name string, sl *Slot, last *api.Status, up bool, heard, now time.Time) string {
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
