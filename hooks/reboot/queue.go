package reboot

import (
	"fmt"
	"slices"
	"time"

	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/host"
)

// maxRest bounds how long a host rests that did not use its slot, which begins
// with one lease. It goes to the end of the queue then: a host whose hook fails
// for ever would else take every second slot.
const maxRest = time.Hour

func rest(u *host.Unused) time.Duration { return min(time.Duration(u.Times)*Lease, maxRest) }

// restsUntil is zero for a host that may ask, and where the clock was set back.
func restsUntil(u *host.Unused, now time.Time) time.Time {
	end := u.At.Add(rest(u))
	if left := end.Sub(now); left <= 0 || left > maxRest {
		return time.Time{}
	}
	return end
}

// before orders the queue; nil is of a host that has used what it had.
func before(u, v *host.Unused) bool {
	switch {
	case u == nil || v == nil:
		return u == nil && v != nil
	case u.Times != v.Times:
		return u.Times < v.Times
	}
	return u.At.Before(v.At)
}

// Resting says why a host that asks to reboot is not let now, though there may be
// a slot: it did not use the last, and rests until a time. It is "" for all others.
func Resting(r *host.Record, now time.Time) (why string, until time.Time) {
	u := r.UnusedNow()
	if u == nil {
		return "", time.Time{}
	}
	if until = restsUntil(u, now); until.IsZero() {
		return "", until
	}
	return fmt.Sprintf("its last permission to reboot came to nothing (%d in a row), and it is in line again at %s", u.Times, until.UTC().Format("15:04 MST")), until
}

// Ahead says which hosts go before one that did not use its last slot. others are
// those that might take a slot of its group now.
func Ahead(r *host.Record, group string, others map[string]*host.Record) string {
	u := r.UnusedNow()
	var first []string
	for name, other := range others {
		if before(other.UnusedNow(), u) {
			first = append(first, name)
		}
	}
	if len(first) == 0 {
		return ""
	}
	slices.Sort(first)
	return fmt.Sprintf("its last permission to reboot came to nothing: %s of the group %s before it", someOf(first), group)
}

// GiveBack ends the slot of a host that is up: it has not rebooted, or has, and asks
// again. It returns the host's record as it is then.
func (s *Slots) GiveBack(tx *mirror.Tx, name string, r *host.Record, sl *Slot) *host.Record {
	st := r.Status
	last := Summary(st)
	if Asks(st) && sl.LastReason != "" && st.BootID == sl.BootID {
		last = string(st.State) + ", " + sl.LastReason
	}
	what, alarm := "is up and does not reboot now", "is up, and has not"
	if st.BootID != sl.BootID {
		what, alarm = "was booted since, and asks to reboot again", "was booted since, and asks again"
	}
	text := fmt.Sprintf("%s %s (%s): its reboot slot of the group %s is free", name, what, last, sl.Group)
	if planned(st) || sl.Retried {
		s.End(tx, name, sl, name, text)
		return r
	}
	u := host.Unused{Channel: sl.Channel, Seq: sl.Seq}
	if r.Unused.Of(sl.Channel, sl.Seq) {
		u = *r.Unused
	}
	u.Times++
	u.At = tx.Time.UTC()
	s.End(tx, name, sl, name, fmt.Sprintf("%s, and it is in line again in %s", text, rest(&u)))
	// Once it may have been the agent that was away for a while.
	if !u.Alarmed && (sl.LastReason != "" || u.Times > 1) {
		u.Alarmed = true
		audit.Note(tx, api.Event{Kind: "reboot.unused", Channel: sl.Channel, Host: name, Seq: sl.Seq, Alarm: true, Data: map[string]string{"group": sl.Group},
			Text: fmt.Sprintf("%s was let reboot for seq %d %s ago, %s (%s); others of the group %s may go on, and it tries again by itself, without another alarm: put right what it says, then narwharf host retry %s",
				name, sl.Seq, tx.Time.Sub(sl.Granted).Round(time.Second), alarm, last, sl.Group, name)})
	}
	next := *r
	next.Unused = &u
	return &next
}

// planned tells whether a host that does not reboot waits for what somebody wants
// it to wait for – a window, a pause, a hold – and not for a reboot that fails. One
// that is not armed any more (it has lost its journal, say) has none to fail.
func planned(st *api.Status) bool {
	w := st.WaitingFor
	return st.State != api.Armed || w != nil && w.Kind != api.WaitReboot && w.Kind != api.WaitSlot
}

// Summary is what a host said last, for people.
func Summary(st *api.Status) string {
	if st == nil {
		return "nothing"
	}
	text := string(st.State)
	if w := st.WaitingFor; w != nil {
		text += ", waits for " + string(w.Kind)
		if w.Detail != "" {
			text += ": " + w.Detail
		}
	}
	return text
}
