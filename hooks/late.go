package hooks

import (
	"fmt"
	"time"

	"narwharf/hooks/api"
)

// watchSlot raises the alarm of a slot when it is held for too long.
func (s *Server) watchSlot(host string, sl *slot) {
	if !sl.Late {
		s.alarms.at(s.lateAt(host, sl), "slot/"+host, func() { s.slotLate(host) })
	}
}

// watchSlots does so for all of a channel, of which the policy is another now.
func (s *Server) watchSlots(channel string) {
	for host, sl := range s.slots.all() {
		if sl.Channel == channel && !sl.pending {
			s.watchSlot(host, sl)
		}
	}
}

// lateAt is when a host that is not heard of is late. One of which it is known
// that it does not come to reboot is busy with trying for that long. A server that
// has just begun has heard of nobody.
func (s *Server) lateAt(host string, sl *slot) time.Time {
	patience := s.policy(sl.Channel).RebootPatience()
	if r := s.store.host(host); r != nil && r.Unused.of(sl.Channel, sl.Seq) {
		patience = max(patience, 2*grantLease)
	}
	at, heard := sl.Granted.Add(patience), s.began.Add(onlineFor)
	if at.Before(heard) {
		return heard
	}
	return at
}

// upFor is how much longer than its permission a host that is up as it was may
// take to give its slot back: about what a hook takes that began at the last moment.
const upFor = 10 * time.Minute

// slotLate raises the alarm, unless the host is up as it was: then it gives its
// slot back by itself (see reviewSlot), or stops to be heard of. One that does
// neither says that it is there, and asks for nothing: its hook hangs.
func (s *Server) slotLate(host string) {
	defer s.reporting.Lock(host)()
	sl, now := s.slots.of(host), s.clock()
	if sl == nil || sl.Late {
		return
	}
	if now.Before(s.lateAt(host, sl)) {
		s.watchSlot(host, sl) // another slot than the one of the alarm
		return
	}
	var last *api.Status
	if r := s.store.host(host); r != nil {
		last = r.Status
	}
	up := last != nil && s.isOnline(host, now)
	if up && last.BootID == sl.BootID && now.Before(sl.leaseOver().Add(upFor)) {
		s.alarms.at(now.Add(time.Minute), "slot/"+host, func() { s.slotLate(host) })
		return
	}
	next := *sl
	next.Late = true
	_, err := s.store.update(now, func(ch *change) error {
		ch.note(api.Event{Kind: "reboot.late", Channel: sl.Channel, Host: host, Seq: sl.Seq, Alarm: true, Data: map[string]string{"group": sl.Group},
			Text: lateText(host, sl, last, up, s.heardOf(host), now)})
		return ch.putSlot(host, &next)
	})
	if err != nil {
		s.log.Error("an alarm was not stored", "host", host, "error", err)
		s.alarms.at(s.clock().Add(time.Minute), "slot/"+host, func() { s.slotLate(host) })
		return
	}
	s.slots.change(host, func(sl *slot) { sl.Late = true })
	s.noted(sl.Channel, hostTopic(host))
}

// lateText tells a host that is gone from one that was booted and has come to no
// end, and from one whose hook hangs.
func lateText(host string, sl *slot, last *api.Status, up bool, heard, now time.Time) string {
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
		host, sl.Seq, now.Sub(sl.Granted).Round(time.Second), what, lastWord(last), sl.Group, host)
}

// heardOf is when a host polled or reported last, zero if that is not known.
func (s *Server) heardOf(host string) (at time.Time) {
	if r := s.store.host(host); r != nil {
		at = r.Reported
	}
	s.mu.RLock()
	p := s.seen[host]
	s.mu.RUnlock()
	if p != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.last.After(at) {
			at = p.last
		}
	}
	return at
}
