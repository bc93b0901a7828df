package hooks

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"narwharf/hooks/api"
	"narwharf/signing"
)

// groupLabel is the label by which hosts share reboot slots.
const groupLabel = "reboot_group"

// A slot is the permission of one host to reboot for one release. It is held
// from before the host is told until the host has declared that it is over, shows
// that it is up and has not used it, or an operator takes it away; time alone ends
// none, since what is not back is down.
type slot struct {
	Channel string    `json:"channel"`
	Group   string    `json:"group"`
	Seq     int64     `json:"seq"`
	BootID  string    `json:"boot_id"` // before the reboot
	Granted time.Time `json:"granted"`
	Late    bool      `json:"late,omitempty"` // the alarm was raised

	until   time.Time // when the host's permission has ended, at the latest
	said    string    // why the host did not reboot, when it said so last
	retried bool      // an operator has said retry since the permission was over
	pending bool      // not yet durable
}

// slots are the table in memory, by host. Values are replaced, never changed.
//
// A slot of a host is put and removed only while reporting has the host locked.
// One that is about to be stored counts already.
type slots struct {
	mu   sync.Mutex
	held map[string]*slot
}

func loadSlots(db *bbolt.DB, now time.Time) (map[string]*slot, error) {
	all := make(map[string]*slot)
	err := db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(rootBucket).Bucket(slotBucket).ForEach(func(k, v []byte) error {
			sl := &slot{until: now.Add(grantLease)} // as it may have heard just now
			if err := json.Unmarshal(v, sl); err != nil {
				return fmt.Errorf("reboot slot of host %s: %w", k, err)
			}
			if sl.Granted.After(now) { // the clock was ahead: its time would not be over for ever
				sl.Granted = now.UTC()
			}
			all[string(k)] = sl
			return nil
		})
	})
	return all, err
}

// of is the slot that a host holds, nil if it holds none.
func (t *slots) of(host string) *slot {
	t.mu.Lock()
	defer t.mu.Unlock()
	if sl := t.held[host]; sl != nil && !sl.pending {
		return sl
	}
	return nil
}

// set replaces a host's slot; nil takes it away.
func (t *slots) set(host string, sl *slot) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if sl == nil {
		delete(t.held, host)
	} else {
		t.held[host] = sl
	}
}

// reserve counts a slot as held if there is room for it: fewer than limit in
// its group, or no limit.
func (t *slots) reserve(host string, sl *slot, limit int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.held[host] != nil || limit > 0 && len(t.holders(sl.Group)) >= limit {
		return false
	}
	t.held[host] = sl
	return true
}

// holders are the hosts with a slot of a group, sorted; for mu's holder.
func (t *slots) holders(group string) (hosts []string) {
	for host, sl := range t.held {
		if sl.Group == group {
			hosts = append(hosts, host)
		}
	}
	slices.Sort(hosts)
	return hosts
}

// full says who holds the slots of a group, "" if there is room for another.
func (t *slots) full(group string, limit int) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	hosts := t.holders(group)
	if limit == 0 || len(hosts) < limit {
		return ""
	}
	return fmt.Sprintf("%s of the group %s may reboot now, %d at a time", someOf(hosts), group, limit)
}

// change replaces a host's slot by a copy that is changed.
func (t *slots) change(host string, to func(sl *slot)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if sl := t.held[host]; sl != nil {
		next := *sl
		to(&next)
		t.held[host] = &next
	}
}

// all is a copy of the table.
func (t *slots) all() map[string]*slot {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make(map[string]*slot, len(t.held))
	for host, sl := range t.held {
		all[host] = sl
	}
	return all
}

// asksReboot tells whether a host would reboot at once if it were permitted. That
// it needs one is not enough: its own windows, a pause or a person may be in the way.
func asksReboot(st *api.Status) bool {
	return st != nil && st.State == api.Armed && st.WaitingFor != nil && st.WaitingFor.Asks
}

// unasked tells whether nobody has asked for the reboot of a host: the release
// does not say reboot, and the channel's policy does not say how many may at a
// time. Without that a new kernel would take down all hosts at once.
func (p *policy) unasked(st *api.Status) bool {
	return p.RebootSlots == 0 && st.Action != string(signing.Reboot)
}

// over tells whether a report says that a host's reboot is over, or will not be.
func (sl *slot) over(st *api.Status, now time.Time) bool {
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
	return st.WaitingFor != nil && st.WaitingFor.Kind != api.WaitReboot && !st.WaitingFor.Asks && now.After(sl.leaseOver())
}

// leaseOver is when a host's permission has surely ended, by its own clock too.
func (sl *slot) leaseOver() time.Time { return sl.until.Add(time.Minute) }

// lease is for how long a host may be told that it may reboot, 0 if not any more:
// however often it asks, a slot that it does not use ends. In whole minutes, so
// that what is said twice is the same.
func (sl *slot) lease(now time.Time) time.Duration {
	left := min(sl.Granted.Add(grantLease).Sub(now), grantLease)
	return max(left+time.Minute-1, 0).Truncate(time.Minute)
}

// failed is a report that a host does not reboot although it may. It may also be
// about to.
func (sl *slot) failed(st *api.Status) bool {
	w := st.WaitingFor
	return st.Channel == sl.Channel && st.Seq == sl.Seq && st.State == api.Armed && st.BootID == sl.BootID && w != nil && w.Kind == api.WaitReboot && !w.Asks
}

// reviewSlot ends the slot of a host whose agent polls on the boot on which it
// was let reboot, after its permission ran out: its own window has closed, its
// pre_reboot hook fails, or nobody knows why it did not. An agent that reboots
// does not poll. It also ends that of a host which asks on another boot: it is
// armed anew there. What it says of the boot before it finds out where it is ends
// with its first poll.
func (s *Server) reviewSlot(host, boot string) error {
	now := s.clock()
	unused := func() (*slot, *hostRecord) {
		sl, r := s.slots.of(host), s.store.host(host)
		if sl == nil || r == nil || r.Status == nil || r.Status.BootID != boot || !now.After(sl.leaseOver()) {
			return nil, nil
		}
		if boot != sl.BootID && (!asksReboot(r.Status) || now.Sub(r.Reported) < time.Minute) {
			return nil, nil
		}
		return sl, r
	}
	if sl, _ := unused(); sl == nil {
		return nil
	}
	defer s.reporting.Lock(host)()
	sl, r := unused()
	if sl == nil {
		return nil
	}
	_, err := s.store.update(now, func(ch *change) error {
		next := *r
		return ch.giveBack(host, &next, sl, now)
	})
	if err == nil {
		s.slotEnded(host, sl)
		s.noted(sl.Channel, hostTopic(host))
	}
	return err
}

// lastWord is what a host said last, for people.
func lastWord(st *api.Status) string {
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

// rebootGroup is with whom a host shares reboot slots.
func rebootGroup(r *hostRecord, channel string) string {
	if r != nil && r.Labels[groupLabel] != "" {
		return r.Labels[groupLabel]
	}
	return channel
}

// takeSlot gives a host that asks a slot, if there is still one.
func (s *Server) takeSlot(host, channel string, seq int64) error {
	defer s.reporting.Lock(host)()
	r := s.store.host(host)
	if r == nil || !asksReboot(r.Status) || r.Status.Channel != channel || r.Status.Seq != seq || r.held(s.clock()) {
		return nil // it has said something else meanwhile
	}
	p := s.policy(channel)
	if p.unasked(r.Status) {
		return nil
	}
	if why, _ := s.behind(host, r); why != "" {
		return nil
	}
	now := s.clock()
	sl := slot{Channel: channel, Group: rebootGroup(r, channel), Seq: seq, BootID: r.Status.BootID, Granted: now.UTC(), until: now.Add(grantLease)}
	pending := sl
	pending.pending = true
	if !s.slots.reserve(host, &pending, p.RebootSlots) {
		return nil
	}
	_, err := s.store.update(now, func(ch *change) error {
		ch.note(api.Event{Kind: "reboot.granted", Channel: channel, Host: host, Seq: seq,
			Text: fmt.Sprintf("%s may reboot for seq %d, in a slot of the group %s", host, seq, sl.Group), Data: map[string]string{"group": sl.Group, "boot_id": sl.BootID}})
		return ch.putSlot(host, &sl)
	})
	if err != nil {
		s.slots.set(host, nil)
		s.slotFree(&sl)
		return err
	}
	s.slots.set(host, &sl)
	s.watchSlot(host, &sl)
	s.noted(channel)
	return nil
}

func (c *change) putSlot(host string, sl *slot) error {
	return putJSON(c.tx.Bucket(slotBucket), []byte(host), sl)
}

// endSlot takes a host's slot away, with the words for why.
func (c *change) endSlot(host string, sl *slot, by, text string) error {
	c.note(api.Event{Kind: "reboot.ended", By: by, Channel: sl.Channel, Host: host, Seq: sl.Seq, Text: text, Data: map[string]string{"group": sl.Group}})
	return c.tx.Bucket(slotBucket).Delete([]byte(host))
}

// slotEnded is called when endSlot is durable.
func (s *Server) slotEnded(host string, sl *slot) {
	s.slots.set(host, nil)
	s.alarms.off("slot/" + host)
	s.slotFree(sl)
}

// slotFree wakes who waits for a slot like this one.
func (s *Server) slotFree(sl *slot) {
	var names []string
	for name, r := range s.store.allHosts() {
		if asksReboot(r.Status) && rebootGroup(r, r.Status.Channel) == sl.Group {
			names = append(names, hostTopic(name))
		}
	}
	s.polls.Notify(names...)
}

// releaseHost takes the slot of a host that will not come back.
func (s *Server) releaseHost(c *call) error {
	name, err := operatedHost(c)
	if err != nil {
		return err
	}
	seq, err := readSeq(c)
	if err != nil {
		return err
	}
	defer s.reporting.Lock(name)()
	sl := s.slots.of(name)
	if sl == nil {
		return api.Errorf(api.NotFound, "%s holds no reboot slot", name)
	}
	if sl.Seq != seq {
		return otherSeq(name, seq, sl.Seq)
	}
	_, err = s.store.update(s.clock(), func(ch *change) error {
		return ch.endSlot(name, sl, c.who.Name, fmt.Sprintf("the reboot slot of %s in the group %s was taken away", name, sl.Group))
	})
	if err != nil {
		return err
	}
	s.slotEnded(name, sl)
	s.noted(sl.Channel, hostTopic(name))
	writeJSON(c.w, http.StatusOK, s.describeHost(name, s.store.host(name)).Host)
	return nil
}
