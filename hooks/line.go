package hooks

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"narwharf/hooks/api"
)

// unused is that a host was let reboot for a release, was up all the time, and
// gave its slot back. It goes to the end of the line then, and rests before it
// asks again: a host whose hook fails for ever would else take every second slot.
type unused struct {
	Channel string    `json:"channel"`
	Seq     int64     `json:"seq"`
	Times   int       `json:"times"` // in a row
	At      time.Time `json:"at"`    // of the last
	Told    bool      `json:"told,omitempty"`
}

// maxRest bounds how long a host rests, which begins with one lease.
const maxRest = time.Hour

func (u *unused) of(channel string, seq int64) bool {
	return u != nil && u.Channel == channel && u.Seq == seq
}

func (u *unused) rest() time.Duration { return min(time.Duration(u.Times)*grantLease, maxRest) }

// restsUntil is zero for a host that may ask, and where the clock was set back.
func (u *unused) restsUntil(now time.Time) time.Time {
	end := u.At.Add(u.rest())
	if left := end.Sub(now); left <= 0 || left > maxRest {
		return time.Time{}
	}
	return end
}

// before orders the hosts of a line; nil is of one that has used what it had.
func (u *unused) before(v *unused) bool {
	switch {
	case u == nil || v == nil:
		return u == nil && v != nil
	case u.Times != v.Times:
		return u.Times < v.Times
	}
	return u.At.Before(v.At)
}

// unusedFor is what a host has not used of the release that it is about.
func (h *hostRecord) unusedFor() *unused {
	if h.Status != nil && h.Unused.of(h.Status.Channel, h.Status.Seq) {
		return h.Unused
	}
	return nil
}

// behind says why a host that asks to reboot is not let now, though there may be
// a slot: it did not use the last. It is "" for all others. The time is when the
// host has rested, zero if that is not what it waits for.
func (s *Server) behind(host string, r *hostRecord) (why string, until time.Time) {
	u, now := r.unusedFor(), s.clock()
	if u == nil {
		return "", time.Time{}
	}
	if until = u.restsUntil(now); !until.IsZero() {
		return fmt.Sprintf("its last permission to reboot came to nothing (%d in a row), and it is in line again at %s", u.Times, until.UTC().Format("15:04 MST")), until
	}
	if s.policy(r.Status.Channel).RebootSlots == 0 {
		return "", time.Time{} // nobody waits for anybody
	}
	group := rebootGroup(r, r.Status.Channel)
	var first []string
	for name, other := range s.store.allHosts() {
		if name != host && s.inLine(name, other, group, now) && other.unusedFor().before(u) {
			first = append(first, name)
		}
	}
	if len(first) == 0 {
		return "", time.Time{}
	}
	slices.Sort(first)
	return fmt.Sprintf("its last permission to reboot came to nothing: %s of the group %s before it", someOf(first), group), time.Time{}
}

// inLine tells whether a host is there and takes a slot of a group that is free
// now.
func (s *Server) inLine(host string, r *hostRecord, group string, now time.Time) bool {
	st := r.Status
	if !asksReboot(st) || rebootGroup(r, st.Channel) != group || r.held(now) || s.slots.of(host) != nil {
		return false
	}
	if u := r.unusedFor(); u != nil && !u.restsUntil(now).IsZero() {
		return false
	}
	l, p := s.channel(st.Channel), s.policy(st.Channel)
	if open, _ := p.state(now); !open || p.unasked(st) || l.entry(st.Target) == nil || l.head.Seq != st.Seq {
		return false
	}
	if s.slots.full(group, p.RebootSlots) != "" {
		return false // for the hosts of its channel, which may be let fewer at a time
	}
	return s.isOnline(host, now)
}

func (s *Server) isOnline(host string, now time.Time) bool {
	s.mu.RLock()
	p := s.seen[host]
	s.mu.RUnlock()
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.online(now)
}

// someOf are the first five of some names.
func someOf(names []string) string {
	text := strings.Join(names[:min(len(names), 5)], ", ")
	if more := len(names) - 5; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// planned tells whether a host that does not reboot waits for what somebody wants
// it to wait for – a window, a pause, a hold – and not for a reboot that fails. One
// that is not armed any more (it has lost its journal, say) has none to fail.
func planned(st *api.Status) bool {
	w := st.WaitingFor
	return st.State != api.Armed || w != nil && w.Kind != api.WaitReboot && w.Kind != api.WaitSlot
}

// giveBack ends the slot of a host that is up and has not used it, or to no end;
// next is the host's record, which is changed and stored with it.
func (c *change) giveBack(host string, next *hostRecord, sl *slot, now time.Time) error {
	st := next.Status
	word := lastWord(st)
	if asksReboot(st) && sl.said != "" && st.BootID == sl.BootID {
		word = string(st.State) + ", " + sl.said
	}
	what, alarm := "is up and does not reboot now", "is up, and has not"
	if st.BootID != sl.BootID {
		what, alarm = "was booted since, and asks to reboot again", "was booted since, and asks again"
	}
	text := fmt.Sprintf("%s %s (%s): its reboot slot of the group %s is free", host, what, word, sl.Group)
	if planned(st) || sl.retried {
		return c.endSlot(host, sl, host, text)
	}
	u := unused{Channel: sl.Channel, Seq: sl.Seq}
	if next.Unused.of(sl.Channel, sl.Seq) {
		u = *next.Unused
	}
	u.Times++
	u.At = now.UTC()
	if err := c.endSlot(host, sl, host, fmt.Sprintf("%s, and it is in line again in %s", text, u.rest())); err != nil {
		return err
	}
	// Once it may have been the agent that was away for a while.
	if !u.Told && (sl.said != "" || u.Times > 1) {
		u.Told = true
		c.note(api.Event{Kind: "reboot.unused", Channel: sl.Channel, Host: host, Seq: sl.Seq, Alarm: true, Data: map[string]string{"group": sl.Group},
			Text: fmt.Sprintf("%s was let reboot for seq %d %s ago, %s (%s); others of the group %s may go on, and it tries again by itself, without another alarm: put right what it says, then narwharf host retry %s",
				host, sl.Seq, now.Sub(sl.Granted).Round(time.Second), alarm, word, sl.Group, host)})
	}
	next.Unused = &u
	return c.putHost(host, next)
}
