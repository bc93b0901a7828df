package hooks

import (
	"cmp"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"narwharf/hooks/api"
	"narwharf/hooks/api/policy"
	"narwharf/hooks/host/presence"
	"narwharf/hooks/window"
)

// rebooter is a host that needs a reboot for each release.
type rebooter struct {
	w       *world
	name    string
	boot    int
	counter int64
	state   api.State
	seq     int64
	waits   *api.Waiting
	down    bool // it was permitted, and is going down or on its way up
	path    string
	action  string // reboot if empty
}

func (h *rebooter) url(leaf string) string { return "/api/v1/hosts/" + h.name + leaf }

func (h *rebooter) report() answer {
	h.counter++
	s := &api.Status{
		Agent: "test", StartID: 100, Counter: h.counter, Channel: "web", Target: h.name, BootID: fmt.Sprint("b", h.boot), State: h.state, Seq: h.seq,
		Action: cmp.Or(h.action, "reboot"), Wanted: h.path, Current: h.path, Booted: h.path, Profile: h.path, WaitingFor: h.waits,
	}
	if h.state == api.Reverted {
		s.Current = "/nix/store/old"
	}
	return h.w.do("PUT", h.url("/status"), h.w.host, s)
}

// asks reports that it is armed, and would reboot.
func (h *rebooter) asks(seq int64) {
	h.w.t.Helper()
	h.seq, h.state, h.waits = seq, api.Armed, &api.Waiting{Kind: api.WaitReboot, Asks: true}
	h.w.must(h.report(), 204, "")
}

// ends reports a state after the boot that it is in.
func (h *rebooter) ends(s api.State) {
	h.w.t.Helper()
	h.state, h.waits = s, nil
	h.w.must(h.report(), 204, "")
}

func (h *rebooter) poll() api.Desired {
	h.w.t.Helper()
	return decode[api.Desired](h.w.t, h.w.must(h.w.do("GET", h.url(fmt.Sprint("/desired?channel=web&boot=b", h.boot)), h.w.host, nil), 200, ""))
}

func (h *rebooter) show() api.Host {
	h.w.t.Helper()
	return decode[api.Host](h.w.t, h.w.must(h.w.do("GET", h.url(""), h.w.op, nil), 200, ""))
}

// rebooters are hosts of a channel with a policy and a release.
func rebooters(w *world, slots int, names ...string) []*rebooter {
	w.t.Helper()
	a := w.system("a")
	e := w.entry("*", a)
	e.Action = "reboot"
	w.promote(1, e)
	w.must(w.setPolicy(policy.Channel{RebootSlots: slots, RebootTimeout: 900}), 200, "")
	var all []*rebooter
	for _, n := range names {
		all = append(all, &rebooter{w: w, name: n, path: a.In("/nix/store")})
	}
	return all
}

func TestRebootSlot(t *testing.T) {
	w := newWorld(t)
	hosts := rebooters(w, 1, "web-1", "web-2")
	one, two := hosts[0], hosts[1]
	one.asks(1)
	two.asks(1)
	w.must(w.do("HEAD", one.url("/desired?channel=web"), w.host, nil), 200, "")
	if h := one.show(); h.Slot != nil {
		t.Fatal("looking at a host gives it a slot")
	}
	d := one.poll()
	if d.Reboot == nil || d.Reboot.Seq != 1 || d.Reboot.Lease != 900 || d.Reboot.ID == "" || d.WaitingFor != nil {
		t.Fatalf("the first that asks: %+v", d)
	}
	if again := one.poll().Reboot; again == nil || *again != *d.Reboot {
		t.Errorf("asked again: %+v", again)
	}
	if h := one.show(); h.Slot == nil || h.Slot.Group != "web" || h.Slot.Seq != 1 || h.Slot.Overdue {
		t.Errorf("shown is %+v", h.Slot)
	}
	waits := two.poll()
	if waits.Reboot != nil || waits.WaitingFor == nil || waits.WaitingFor.Kind != api.WaitSlot || !strings.Contains(waits.WaitingFor.Detail, "web-1 of the group web") {
		t.Fatalf("the second: %+v", waits)
	}
	two.waits = &api.Waiting{Kind: waits.WaitingFor.Kind, Asks: true} // as agents do
	w.must(two.report(), 204, "")

	// Neither a restart, nor going down and up, nor probation frees it.
	w.restart()
	one.state = api.Probation
	one.boot++
	w.must(one.report(), 204, "")
	if d := two.poll(); d.Reboot != nil {
		t.Fatal("free in probation")
	}
	// The end does, and wakes who waits.
	etag := w.do("GET", two.url("/desired?channel=web"), w.host, nil).header.Get("ETag")
	woken := make(chan answer, 1)
	go func() {
		a, _ := w.try("GET", two.url("/desired?channel=web"), w.host, nil, "If-None-Match", etag, "Prefer", "wait=60")
		woken <- a
	}()
	w.parked(1)
	one.ends(api.OK)
	if d := decode[api.Desired](t, <-woken); d.Reboot == nil {
		t.Errorf("woken with %+v", d)
	}
	if h := one.show(); h.Slot != nil {
		t.Errorf("after the end it holds %+v", h.Slot)
	}
	w.must(w.do("GET", "/api/v1/events?channel=web", w.op, nil), 200, "", "reboot.granted", "web-1 may reboot for seq 1", "reboot.ended", "web-1 is ok")
}

// TestRebootIsForWhoAsks: a slot is not wasted on a host that would not use it.
func TestRebootIsForWhoAsks(t *testing.T) {
	w := newWorld(t)
	h := rebooters(w, 1, "web-1")[0]
	for name, change := range map[string]func(s *api.Status){
		"ok":            func(s *api.Status) { s.State, s.WaitingFor = api.OK, nil },
		"not by itself": func(s *api.Status) { s.Action, s.WaitingFor.Asks = "boot", false },
		"an older seq":  func(s *api.Status) { s.Seq = 0 },
		"paused":        func(s *api.Status) { s.WaitingFor = &api.Waiting{Kind: api.WaitPaused} },
		"by its own rule": func(s *api.Status) {
			s.WaitingFor = &api.Waiting{Kind: api.WaitReboot, Detail: "reboot.allow is never"}
		},
		"its own window":  func(s *api.Status) { s.WaitingFor = &api.Waiting{Kind: api.WaitWindow} },
		"waits for words": func(s *api.Status) { s.WaitingFor = nil },
	} {
		h.counter++
		s := &api.Status{StartID: 100, Counter: h.counter, Channel: "web", Target: "web-1", BootID: "b0", State: api.Armed, Seq: 1, Action: "reboot",
			Wanted: h.path, Current: h.path, Booted: h.path, Profile: h.path, WaitingFor: &api.Waiting{Kind: api.WaitReboot, Asks: true}}
		change(s)
		w.must(w.do("PUT", h.url("/status"), w.host, s), 204, "")
		if d := h.poll(); d.Reboot != nil || h.show().Slot != nil {
			t.Errorf("%s: %+v", name, d.Reboot)
		}
	}
	h.asks(1)
	w.must(w.do("PATCH", h.url(""), w.op, map[string]any{"hold": api.Hold{Reason: "x"}}), 200, "")
	if d := h.poll(); d.Reboot != nil || d.WaitingFor.Kind != api.WaitHold {
		t.Errorf("held: %+v", d)
	}
	w.must(w.do("PATCH", h.url(""), w.op, map[string]any{"unhold": true}), 200, "")
	if d := h.poll(); d.Reboot == nil {
		t.Errorf("asks: %+v", d)
	}
}

// TestRebootByAuto: a release that does not say reboot gets hosts rebooted where
// the policy says how many at a time. Without that a new kernel would take down all.
func TestRebootByAuto(t *testing.T) {
	w := newWorld(t)
	h := rebooters(w, 0, "web-1")[0]
	h.action = "auto"
	h.asks(1)
	d := h.poll()
	if d.Reboot != nil || d.WaitingFor == nil || d.WaitingFor.Kind != api.WaitReboot || !strings.Contains(d.WaitingFor.Detail, "no reboot_slots") {
		t.Errorf("without slots: %+v %+v", d.Reboot, d.WaitingFor)
	}
	if s := h.show(); s.Slot != nil || s.WaitingFor == nil || *s.WaitingFor != *d.WaitingFor {
		t.Errorf("shown is %+v %+v", s.Slot, s.WaitingFor)
	}
	w.must(w.setPolicy(policy.Channel{RebootSlots: 1}), 200, "")
	if d := h.poll(); d.Reboot == nil {
		t.Errorf("with slots: %+v", d.WaitingFor)
	}
	other := rebooter{w: w, name: "web-2", path: h.path}
	w.must(w.setPolicy(policy.Channel{RebootTimeout: 900}), 200, "")
	other.asks(1)
	if other.poll().Reboot == nil || h.poll().Reboot == nil {
		t.Error("by the action reboot any number may; and what was permitted stays")
	}
}

// TestSlotGroups: hosts of a label share slots over channels' borders; those
// without share their channel's; an operator, or the removal of a host, frees one.
func TestSlotGroups(t *testing.T) {
	w := newWorld(t)
	hosts := rebooters(w, 1, "a-1", "a-2", "b-1", "b-2")
	for i, h := range hosts {
		h.asks(1)
		if i < 2 {
			w.must(w.do("PATCH", h.url(""), w.op, map[string]any{"labels": map[string]string{"reboot_group": "a"}}), 200, "")
		}
	}
	got := func() (permitted string) {
		for _, h := range hosts {
			if h.poll().Reboot != nil {
				permitted += h.name + " "
			}
		}
		return permitted
	}
	if p := got(); p != "a-1 b-1 " {
		t.Fatalf("permitted: %s", p)
	}
	about := func(seq int64) any { return map[string]int64{"seq": seq} }
	w.must(w.do("POST", "/api/v1/hosts/a-1/release", w.op, about(2)), 409, api.SeqConflict)
	w.must(w.do("POST", "/api/v1/hosts/a-1/release", w.ci, about(1)), 403, api.Forbidden)
	w.must(w.do("POST", "/api/v1/hosts/a-2/release", w.op, about(1)), 404, api.NotFound, "no reboot slot")
	if h := decode[api.Host](t, w.must(w.do("POST", "/api/v1/hosts/a-1/release", w.op, about(1)), 200, "")); h.Slot != nil {
		t.Errorf("released, and holds %+v", h.Slot)
	}
	if hosts[1].poll().Reboot == nil {
		t.Error("a-2 waits for a slot that was taken away")
	}
	w.must(w.do("DELETE", "/api/v1/hosts/b-1", w.op, nil), 204, "")
	if hosts[3].poll().Reboot == nil {
		t.Error("b-2 waits for a host that was removed")
	}
	w.restart()
	hosts[2].asks(1)
	if p := got(); p != "a-2 b-2 " {
		t.Errorf("after a restart: %s", p)
	}
	// More slots are there at once; fewer take none away.
	w.must(w.setPolicy(policy.Channel{RebootSlots: 2}), 200, "")
	if p := got(); p != "a-1 a-2 b-1 b-2 " {
		t.Errorf("with two slots: %s", p)
	}
	w.must(w.setPolicy(policy.Channel{RebootSlots: 1}), 200, "")
	if p := got(); p != "a-1 a-2 b-1 b-2 " {
		t.Errorf("with one slot again: %s", p)
	}
	w.must(w.do("GET", "/api/v1/events", w.op, nil), 200, "", "was taken away", "b-1 is removed")
}

// TestRebootWindow: outside of the windows nobody reboots, and a slot that was
// not used when one closed is free for the next one: that is nobody's fault.
func TestRebootWindow(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		hosts := rebooters(w, 1, "web-1", "web-2")
		w.must(w.setPolicy(policy.Channel{RebootSlots: 1, RebootTimeout: 24 * 3600, Windows: []window.Window{{From: "02:00", To: "04:00"}}}), 200, "")
		one, two := hosts[0], hosts[1]
		for _, h := range hosts {
			h.asks(1)
			if d := h.poll(); d.Reboot != nil || d.WaitingFor.Kind != api.WaitWindow {
				t.Fatalf("%s before the window: %+v", h.name, d)
			}
			h.waits = &api.Waiting{Kind: api.WaitWindow, Asks: true}
			w.must(h.report(), 204, "")
		}
		time.Sleep(2*time.Hour + 110*time.Minute)
		if d := one.poll(); d.Reboot == nil || d.Reboot.Lease > 600 {
			t.Fatalf("in the window: %+v", d.Reboot)
		}
		time.Sleep(11 * time.Minute)
		w.must(one.report(), 204, "")
		if d := one.poll(); d.Reboot != nil || d.WaitingFor.Kind != api.WaitWindow {
			t.Errorf("after the window: %+v", d)
		}
		one.waits = &api.Waiting{Kind: api.WaitWindow, Asks: true}
		w.must(one.report(), 204, "")
		time.Sleep(17 * time.Minute)
		if one.poll(); one.show().Slot != nil {
			t.Error("it holds a slot for a night in which it may not reboot")
		}
		w.must(w.do("GET", "/api/v1/events", w.op, nil), 200, "", "web-1 is up and does not reboot now (armed, waits for window): its reboot slot of the group web is free\"")
		time.Sleep(22 * time.Hour)
		if d := two.poll(); d.Reboot == nil {
			t.Errorf("web-2 in the next window: %+v", d)
		}
		two.boot++
		two.ends(api.OK)
		if d := one.poll(); d.Reboot == nil {
			t.Errorf("web-1 in the next window: %+v", d)
		}
	})
}

// TestSlotNotUsed: a host that said that it would not reboot, and polls on the
// same boot when its permission is over, has no slot any more. One that has said
// nothing keeps it, and so does one that polls too soon or after a boot.
func TestSlotNotUsed(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		hosts := rebooters(w, 1, "web-1", "web-2")
		one, two := hosts[0], hosts[1]
		one.asks(1)
		two.asks(1)
		if one.poll().Reboot == nil {
			t.Fatal("not permitted")
		}
		polls := func(boot string) {
			w.must(w.do("GET", one.url("/desired?channel=web&boot="+boot), w.host, nil), 200, "")
		}
		holds := func(what string, want bool) {
			t.Helper()
			if got := w.slot("web-1") != nil; got != want {
				t.Errorf("%s: holds it %v, want %v", what, got, want)
			}
		}
		one.waits = &api.Waiting{Kind: api.WaitReboot, Detail: "hooks.pre_reboot: exit 1"}
		w.must(one.report(), 204, "")
		polls("b0")
		holds("it polls at once", true)
		time.Sleep(15*time.Minute + 30*time.Second)
		polls("b0")
		holds("it polls soon", true)
		time.Sleep(time.Minute)
		polls("b1")
		holds("it polls after a boot", true)
		polls("")
		holds("somebody polls", true)
		if d := two.poll(); d.Reboot != nil {
			t.Error("web-2 is permitted meanwhile")
		}
		polls("b0")
		holds("it polls on the same boot", false)
		if d := two.poll(); d.Reboot == nil {
			t.Errorf("web-2 waits: %+v", d.WaitingFor)
		}
		w.must(w.do("GET", "/api/v1/events", w.op, nil), 200, "", "its last word: armed, waits for reboot: hooks.pre_reboot: exit 1", "is up and does not reboot now")
	})
}

// TestSlotOverdue: a host that does not come back is an alarm, once, also over a
// restart, and keeps its slot.
func TestSlotOverdue(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		hosts := rebooters(w, 1, "web-1", "web-2")
		hosts[0].asks(1)
		hosts[1].asks(1)
		if hosts[0].poll().Reboot == nil {
			t.Fatal("not permitted")
		}
		alarms := func() int {
			return strings.Count(w.do("GET", "/api/v1/events", w.op, nil).body, `"reboot.late"`)
		}
		time.Sleep(15*time.Minute - time.Second)
		if alarms() != 0 || hosts[0].show().Slot.Overdue {
			t.Error("late before its time")
		}
		w.restart() // after which all hosts have a moment to ask
		time.Sleep(presence.OnlineFor + time.Second)
		if alarms() != 1 || !hosts[0].show().Slot.Overdue {
			t.Errorf("%d alarms, %+v", alarms(), hosts[0].show().Slot)
		}
		w.restart()
		time.Sleep(time.Hour)
		if alarms() != 1 {
			t.Errorf("%d alarms", alarms())
		}
		if d := hosts[1].poll(); d.Reboot != nil {
			t.Error("the slot of a host that is lost was given away")
		}
		hosts[0].boot++
		hosts[0].ends(api.OK)
		if d := hosts[1].poll(); d.Reboot == nil {
			t.Errorf("it came back, and still: %+v", d)
		}
		// A longer patience counts for who is rebooting already.
		w.must(w.setPolicy(policy.Channel{RebootSlots: 1, RebootTimeout: 3600}), 200, "")
		time.Sleep(59 * time.Minute)
		if alarms() != 1 {
			t.Errorf("%d alarms", alarms())
		}
		time.Sleep(2 * time.Minute)
		if alarms() != 2 {
			t.Errorf("%d alarms after an hour", alarms())
		}
	})
}

// TestSlotsNeverExceedTheLimit: hosts that ask, poll, go down, come up well or
// badly, or stay away, a server that is started anew, releases that come between,
// an operator who changes the limit and frees slots: no host is permitted while as
// many of its group as the policy allows hold a slot, and who is down holds one.
func TestSlotsNeverExceedTheLimit(t *testing.T) {
	w := newWorld(t)
	rebooters(w, 1)
	seq, round := int64(1), 0
	promote := func() {
		seq++
		e := w.entry("*", w.system("a"))
		e.Action = "reboot"
		w.promote(seq, e)
	}
	rapid.Check(t, func(rt *rapid.T) {
		round++
		var hosts []*rebooter
		for i := range 5 {
			h := &rebooter{w: w, name: fmt.Sprintf("r%d-h%d", round, i), path: w.system("a").In("/nix/store")}
			h.asks(seq)
			w.must(w.do("PATCH", h.url(""), w.op, map[string]any{"labels": map[string]string{"reboot_group": fmt.Sprint("r", round)}}), 200, "")
			hosts = append(hosts, h)
		}
		limit := 0
		setLimit := func() {
			limit = rapid.IntRange(1, 3).Draw(rt, "limit")
			w.must(w.setPolicy(policy.Channel{RebootSlots: limit}), 200, "")
		}
		setLimit()
		holds := make(map[*rebooter]bool)
		permitted := func(before int, hs ...*rebooter) {
			fresh := 0
			for _, h := range hs {
				if !holds[h] {
					fresh++
				}
				holds[h], h.down = true, true
			}
			if fresh > 0 && before+fresh > limit {
				rt.Fatalf("%d more may reboot while %d of %d do", fresh, before, limit)
			}
		}
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			h := rapid.SampledFrom(hosts).Draw(rt, "host")
			switch step := rapid.SampledFrom([]string{"ask", "poll", "all poll", "all poll", "up", "up", "probation", "restart", "limit", "free", "promote"}).Draw(rt, "step"); step {
			case "ask":
				if !h.down {
					if h.seq != seq {
						delete(holds, h)
					}
					h.asks(seq)
				}
			case "poll":
				if !h.down && h.poll().Reboot != nil {
					permitted(len(holds), h)
				}
			case "all poll":
				told := make(chan *rebooter, len(hosts))
				asked := 0
				for _, h := range hosts {
					if h.down {
						continue
					}
					asked++
					go func() {
						a, err := w.try("GET", h.url("/desired?channel=web"), w.host, nil)
						if err != nil || a.status != 200 || !strings.Contains(a.body, `"reboot":{`) {
							h = nil
						}
						told <- h
					}()
				}
				var all []*rebooter
				for range asked {
					if h := <-told; h != nil {
						all = append(all, h)
					}
				}
				permitted(len(holds), all...)
			case "up":
				if h.down {
					h.down = false
					h.boot++
					delete(holds, h)
					h.ends(rapid.SampledFrom([]api.State{api.OK, api.Reverted, api.Failed, api.Drifted}).Draw(rt, "end"))
				}
			case "probation":
				if h.down {
					h.boot++
					h.state, h.waits = api.Probation, nil
					w.must(h.report(), 204, "")
				}
			case "restart":
				w.restart()
			case "limit":
				setLimit()
			case "free":
				if a := w.do("POST", h.url("/release"), w.op, map[string]int64{"seq": h.seq}); (a.status == 200) != holds[h] {
					rt.Fatalf("%s holds a slot: %v; freeing it: %s", h.name, holds[h], a)
				}
				delete(holds, h)
			case "promote":
				promote()
			}
			for _, h := range hosts {
				if sl := w.slot(h.name); (sl != nil) != holds[h] {
					rt.Fatalf("%s holds a slot: %v, want %v", h.name, sl != nil, holds[h])
				}
			}
		}
	})
}

// TestSlotNotStored: a slot that could not be stored is not given, and is free.
func TestSlotNotStored(t *testing.T) {
	w := newWorld(t)
	hosts := rebooters(w, 1, "web-1", "web-2")
	hosts[0].asks(1)
	hosts[1].asks(1)
	if err := w.db.Close(); err != nil {
		t.Fatal(err)
	}
	w.must(w.do("GET", hosts[0].url("/desired?channel=web"), w.host, nil), 500, api.Internal)
	if w.slot("web-1") != nil || len(w.slots()) != 0 {
		t.Fatal("it holds a slot that is not in the database")
	}
	w.restart()
	if hosts[1].poll().Reboot == nil {
		t.Error("the slot is lost")
	}
}
