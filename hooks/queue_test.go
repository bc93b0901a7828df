package hooks

import (
	"strings"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/api/policy"
	"narwharf/hooks/channel"
	"narwharf/hooks/reboot"
	"narwharf/nixos/effect"
	"narwharf/nixos/sim"
	"narwharf/signing"
)

// count is how many events of a kind there are.
func (w *world) count(kind string) int {
	w.t.Helper()
	return strings.Count(w.must(w.do("GET", "/api/v1/events", w.op, nil), 200, "").body, `"kind":"`+kind+`"`)
}

// says reports that it does not reboot, and why.
func (h *rebooter) says(kind api.WaitKind, why string) {
	h.w.t.Helper()
	h.waits = &api.Waiting{Kind: kind, Detail: why}
	h.w.must(h.report(), 204, "")
}

// lives is what the agent of a host does for a while whose hook fails: it asks
// when it has waited, tries when it may, and says what came of it.
func (h *rebooter) lives(span time.Duration, each func(permitted bool)) {
	h.w.t.Helper()
	for end := time.Now().Add(span); time.Now().Before(end); {
		h.waits = &api.Waiting{Kind: api.WaitReboot, Detail: "the server has not permitted it", Asks: true}
		if d := h.poll(); d.WaitingFor != nil {
			h.waits.Kind, h.waits.Detail = d.WaitingFor.Kind, d.WaitingFor.Detail
		}
		h.w.must(h.report(), 204, "")
		permitted := h.poll().Reboot != nil
		if permitted {
			h.says(api.WaitReboot, "it reboots now")
			time.Sleep(20 * time.Second)
			h.says(api.WaitReboot, "hooks.pre_reboot: exit status 1")
		}
		if each != nil {
			each(permitted)
		}
		time.Sleep(45 * time.Second)
	}
}

// TestFailingHostGivesWay: a host whose pre_reboot hook fails for ever is up, and
// asks again and again. It keeps nobody from rebooting: after its permission is
// over the next one has the slot. There is one alarm, which says what is wrong,
// none that it is gone, and none for each try; a restart of the server changes
// nothing of that.
func TestFailingHostGivesWay(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		hosts := rebooters(w, 1, "web-1", "web-2", "web-3")
		bad, two, three := hosts[0], hosts[1], hosts[2]
		bad.asks(1)
		begin := time.Now()
		if bad.poll().Reboot == nil {
			t.Fatal("not permitted")
		}
		two.asks(1)
		var freed time.Duration
		bad.lives(20*time.Minute, func(bool) {
			if two.down {
				return
			}
			if d := two.poll(); d.Reboot != nil {
				two.down, freed = true, time.Since(begin)
			}
		})
		if freed < reboot.Lease || freed > reboot.Lease+4*time.Minute {
			t.Fatalf("web-2 was let reboot after %s", freed)
		}
		w.must(w.do("GET", "/api/v1/events", w.op, nil), 200, "",
			"web-1 is up and does not reboot now (armed, hooks.pre_reboot: exit status 1): its reboot slot of the group web is free, and it is in line again in 15m0s",
			"is up, and has not (armed, hooks.pre_reboot: exit status 1); others of the group web may go on", "narwharf host retry web-1")
		if w.count("reboot.unused") != 1 || w.count("reboot.late") != 0 {
			t.Errorf("%d alarms that it is not used, %d that it is gone", w.count("reboot.unused"), w.count("reboot.late"))
		}
		if d := bad.poll(); d.Reboot != nil || d.WaitingFor == nil || d.WaitingFor.Kind != api.WaitSlot || !strings.Contains(d.WaitingFor.Detail, "in line again at") {
			t.Errorf("it is told %+v", d.WaitingFor)
		}
		two.boot++
		two.ends(api.OK)

		// The slot is free, and it rests; and after that who has not failed goes first.
		time.Sleep(reboot.Lease)
		three.asks(1)
		bad.asks(1)
		if d := bad.poll(); d.Reboot != nil || !strings.Contains(d.WaitingFor.Detail, "web-3 of the group web before it") {
			t.Errorf("it is told %+v, %+v", d.Reboot, d.WaitingFor)
		}
		if three.poll().Reboot == nil {
			t.Error("web-3 waits")
		}
		three.boot++
		three.ends(api.OK)

		// Alone it tries for ever, less and less often, without another alarm.
		tries := 0
		for range 4 {
			bad.lives(6*time.Hour, func(permitted bool) {
				if permitted {
					tries++
				}
			})
			w.restart()
		}
		if granted := w.count("reboot.granted"); granted < 10 || granted > 24 || tries < granted {
			t.Errorf("in a day it was let reboot %d times, and tried %d times", granted, tries)
		}
		if w.count("reboot.unused") != 1 || w.count("reboot.late") != 0 {
			t.Errorf("%d alarms that it is not used, %d that it is gone", w.count("reboot.unused"), w.count("reboot.late"))
		}

		// Who put it right does not wait for its rest to end.
		for bad.show().Slot != nil {
			bad.lives(time.Minute, nil)
		}
		if d := bad.poll(); d.Reboot != nil {
			t.Fatal("it does not rest")
		}
		w.must(w.do("POST", bad.url("/retry"), w.op, map[string]int64{"seq": 1}), 200, "")
		if d := bad.poll(); d.Reboot == nil {
			t.Errorf("after a retry it is told %+v", d.WaitingFor)
		}
		bad.boot++
		bad.ends(api.OK)
		if r := w.record("web-1"); r.Unused != nil || w.slot("web-1") != nil {
			t.Errorf("after all it is left with %+v", r.Unused)
		}
	})
}

// TestTwoThatFailTakeTurns: neither keeps the other from its tries, nor both a
// third from its reboot.
func TestTwoThatFailTakeTurns(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		hosts := rebooters(w, 1, "web-1", "web-2", "web-3")
		got := make(map[string]int)
		hosts[0].asks(1)
		hosts[1].asks(1)
		for i := range 12 * 60 {
			for _, h := range hosts[:2] {
				h.lives(20*time.Second, func(permitted bool) {
					if permitted {
						got[h.name]++
					}
				})
			}
			if h := hosts[2]; i == 6*60 {
				h.asks(1)
			} else if i > 6*60 && !h.down {
				h.down = h.poll().Reboot != nil
				if h.down && i > 6*60+40 {
					t.Errorf("the third waited for %d minutes", i-6*60)
				}
				if h.down {
					h.boot++
					h.ends(api.OK)
				}
			}
		}
		if !hosts[2].down || min(got["web-1"], got["web-2"])*2 < max(got["web-1"], got["web-2"]) {
			t.Errorf("the third %v, tries %v", hosts[2].down, got)
		}
		if w.count("reboot.unused") != 2 {
			t.Errorf("%d alarms", w.count("reboot.unused"))
		}
	})
}

// TestPlannedIsNoAlarm: a host that was paused, held, or whose own window closed
// gives its slot back without an alarm, and is as it was in the line.
func TestPlannedIsNoAlarm(t *testing.T) {
	for _, kind := range []api.WaitKind{api.WaitPaused, api.WaitWindow, api.WaitHold, api.WaitExpired, api.WaitInhibited} {
		t.Run(string(kind), func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				h := rebooters(w, 1, "web-1")[0]
				h.asks(1)
				if h.poll().Reboot == nil {
					t.Fatal("not permitted")
				}
				h.says(kind, "as somebody wants it")
				for range 20 {
					time.Sleep(time.Minute)
					h.poll()
				}
				if h.show().Slot != nil || w.count("reboot.ended") != 1 || w.count("reboot.unused") != 0 || w.count("reboot.late") != 0 {
					t.Errorf("it holds %+v, %d alarms and %d", h.show().Slot, w.count("reboot.unused"), w.count("reboot.late"))
				}
				h.asks(1)
				if d := h.poll(); d.Reboot == nil {
					t.Errorf("and then it is told %+v", d.WaitingFor)
				}
			})
		})
	}
}

// TestLostJournal: a host that begins its release anew on the same boot is up,
// and keeps nobody waiting while it waits for a person.
func TestLostJournal(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		h := rebooters(w, 1, "web-1")[0]
		h.asks(1)
		if h.poll().Reboot == nil {
			t.Fatal("not permitted")
		}
		h.state = api.WaitingState
		h.says(api.WaitPaused, "disk")
		for range 20 {
			time.Sleep(time.Minute)
			h.poll()
		}
		if h.show().Slot != nil || w.count("reboot.unused") != 0 || w.count("reboot.late") != 0 {
			t.Errorf("it holds %+v, %d alarms and %d", h.show().Slot, w.count("reboot.unused"), w.count("reboot.late"))
		}
	})
}

// TestLateTexts: what the alarm says is so.
func TestLateTexts(t *testing.T) {
	for name, c := range map[string]struct {
		then func(h *rebooter)
		want []string
		not  []string
	}{
		"gone": {func(*rebooter) {}, []string{"web-1 was let reboot for seq 1 15m0s ago and has not come back, and is not heard of since", "narwharf host release web-1"}, []string{"booted"}},
		"in probation": {func(h *rebooter) {
			h.boot++
			h.state, h.waits = api.Probation, nil
			for range 20 {
				h.w.must(h.report(), 204, "")
				h.poll()
				time.Sleep(time.Minute)
			}
		}, []string{"was booted since, and has come to no end (its last word: probation)"}, []string{"has not come back", "not heard of"}},
		"booted, and gone again": {func(h *rebooter) {
			h.boot++
			h.state, h.waits = api.Probation, nil
			h.w.must(h.report(), 204, "")
		}, []string{"was booted since, and has come to no end, and is not heard of since"}, []string{"has not come back"}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				h := rebooters(w, 1, "web-1")[0]
				h.asks(1)
				if h.poll().Reboot == nil {
					t.Fatal("not permitted")
				}
				c.then(h)
				time.Sleep(20 * time.Minute)
				if w.count("reboot.late") != 1 || !h.show().Slot.Overdue || w.count("reboot.unused") != 0 {
					t.Fatalf("%d alarms, %+v", w.count("reboot.late"), h.show().Slot)
				}
				w.must(w.do("GET", "/api/v1/events", w.op, nil), 200, "", c.want...)
				for _, word := range c.not {
					if body := w.do("GET", "/api/v1/events", w.op, nil).body; strings.Contains(body, word) {
						t.Errorf("it says %q: %s", word, body)
					}
				}
			})
		})
	}
}

// TestUpThenGone: a host that was up when its time was over, and then is not heard
// of, is an alarm soon after.
func TestUpThenGone(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		h := rebooters(w, 1, "web-1")[0]
		w.must(w.setPolicy(policy.Channel{RebootSlots: 1, RebootTimeout: 60}), 200, "")
		h.asks(1)
		if h.poll().Reboot == nil {
			t.Fatal("not permitted")
		}
		for range 8 {
			time.Sleep(30 * time.Second)
			h.poll()
		}
		if w.count("reboot.late") != 0 {
			t.Error("it is up, and the alarm says that it is not")
		}
		time.Sleep(3 * time.Minute)
		if w.count("reboot.late") != 1 {
			t.Errorf("%d alarms of a host that is gone", w.count("reboot.late"))
		}
	})
}

// TestSlotOfTheFuture: a slot that was given while the server's clock was ahead
// ends as others do, once the server was started with the right time.
func TestSlotOfTheFuture(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.setClock(func() time.Time { return time.Now().Add(365 * 24 * time.Hour) })
		w.restart()
		h := rebooters(w, 1, "web-1")[0]
		h.asks(1)
		if h.poll().Reboot == nil {
			t.Fatal("not permitted")
		}
		w.setClock(time.Now)
		w.restart()
		h.lives(25*time.Minute, nil)
		if h.show().Slot != nil || w.count("reboot.ended") != 1 {
			t.Errorf("it holds %+v", h.show().Slot)
		}
	})
}

// TestRetryAtTheEnd: a retry that comes when the permission is over, and the slot
// not yet given back, is not lost: the host is let reboot as soon as it may.
func TestRetryAtTheEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		h := rebooters(w, 1, "web-1")[0]
		h.asks(1)
		if h.poll().Reboot == nil {
			t.Fatal("not permitted")
		}
		h.says(api.WaitReboot, "hooks.pre_reboot: exit status 1")
		time.Sleep(reboot.Lease + time.Second)
		h.asks(1)
		if d := h.poll(); d.Reboot != nil || h.show().Slot == nil {
			t.Fatalf("it is told %+v", d)
		}
		w.must(w.do("POST", h.url("/retry"), w.op, map[string]int64{"seq": 1}), 200, "")
		for range 3 {
			time.Sleep(time.Minute)
			if h.poll().Reboot != nil {
				return
			}
		}
		t.Errorf("it is told %+v", h.poll().WaitingFor)
	})
}

// TestAnotherBootAsks: a host that was booted and is armed anew – it has lost its
// journal, or is another machine in the place of one that died – does not wait for
// a slot for ever that is its own, of a boot that is gone. One that was booted and
// has not yet found out where it is keeps it.
func TestAnotherBootAsks(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		hosts := rebooters(w, 1, "web-1", "web-2")
		h, two := hosts[0], hosts[1]
		h.asks(1)
		if h.poll().Reboot == nil {
			t.Fatal("not permitted")
		}
		time.Sleep(time.Hour)
		h.boot++
		h.asks(1) // what its journal says of before
		h.poll()
		if sl := h.show().Slot; sl == nil || w.count("reboot.ended") != 0 {
			t.Fatal("it has lost its slot before it could say what became of the boot")
		}
		two.asks(1)
		granted := false
		for range 3 {
			time.Sleep(45 * time.Second)
			h.poll()
			if !granted {
				granted = two.poll().Reboot != nil
			}
		}
		if !granted || h.show().Slot != nil {
			t.Fatalf("the slot of a boot that is gone is held: %+v", h.show().Slot)
		}
		w.must(w.do("GET", "/api/v1/events", w.op, nil), 200, "", "web-1 was booted since, and asks to reboot again (armed, waits for reboot): its reboot slot of the group web is free, and it is in line again in 15m0s")
		two.boot++
		two.ends(api.OK)
		time.Sleep(reboot.Lease)
		if d := h.poll(); d.Reboot == nil {
			t.Errorf("it is told %+v", d.WaitingFor)
		}
	})
}

// TestLineOfTwoChannels: hosts of two channels share a group, and one channel lets
// more of it reboot at a time. Who may not take what is free is not before anybody.
func TestLineOfTwoChannels(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		hosts := rebooters(w, 2, "web-1", "web-2")
		dead, bad := hosts[0], hosts[1]
		head := w.head(1)
		head.Channel, head.Origin = "db", "cache.example.org/db"
		e := w.entry("*", w.system("a"))
		e.Action = "reboot"
		body := api.Promotion{Release: *w.release(head, e), Keys: []string{w.key.Public().String()}, Threshold: 1}
		w.must(w.do("PUT", "/api/v1/channels/db", w.admin, body, "If-Match", channel.ETag(0)), 200, "")
		w.must(w.do("PUT", "/api/v1/channels/db/policy", w.admin, policy.Channel{RebootSlots: 1}), 200, "")
		other := &api.Status{
			Agent: "test", StartID: 100, Counter: 1, Channel: "db", Target: "db-1", BootID: "b0", State: api.Armed, Seq: 1, Action: "reboot",
			Wanted: e.StorePath, Current: e.StorePath, Booted: e.StorePath, Profile: e.StorePath, WaitingFor: &api.Waiting{Kind: api.WaitReboot, Asks: true},
		}
		dead.asks(1)
		bad.asks(1)
		w.must(w.do("PUT", "/api/v1/hosts/db-1/status", w.admin, other), 204, "")
		for _, name := range []string{"web-1", "web-2", "db-1"} {
			w.must(w.do("PATCH", "/api/v1/hosts/"+name, w.op, map[string]any{"labels": map[string]string{"reboot_group": "all"}}), 200, "")
		}
		if dead.poll().Reboot == nil || bad.poll().Reboot == nil {
			t.Fatal("not permitted")
		}
		tries := 0
		bad.lives(2*time.Hour, func(permitted bool) {
			w.must(w.do("GET", "/api/v1/hosts/db-1/desired?channel=db&boot=b0", w.admin, nil), 200, "", `"kind":"slot"`)
			if permitted && bad.show().Slot.Granted.Sub(dead.show().Slot.Granted) > reboot.Lease {
				tries++
			}
		})
		if tries == 0 {
			t.Errorf("there was room for it for hours, and it is told %+v", bad.poll().WaitingFor)
		}
	})
}

// TestAgentsThatFailGiveWay is TestFailingHostGivesWay with real agents: of three
// hosts that share a slot one cannot reboot, since its hook fails; the others end
// well all the same, and it does, too, once the hook is put right.
func TestAgentsThatFailGiveWay(t *testing.T) {
	w := newWorld(t)
	next := sim.System{Path: sim.Path(bootsInto), Reboot: []string{"kernel"}}
	a := newAgents(w, t, 3, next)
	a.hooks = map[effect.HookName]bool{effect.HookPreReboot: true, effect.HookPostSwitch: true}
	bad := a.hosts[0]
	bad.HookFails[effect.HookPreReboot] = 1 << 30
	a.policyIs(policy.Channel{RebootSlots: 1})
	a.release(next.Path, signing.Auto)
	ended := func(h *simHost) bool {
		s, seq := h.state()
		return seq == a.seq && s == api.OK
	}
	for ; w.slot(bad.name) == nil; bad.turn() { // it is the first
		if len(bad.Hooks) > 0 {
			t.Fatal("it reboots without a slot")
		}
	}
	turn := func() {
		t.Helper()
		h := a.hosts[0]
		for _, other := range a.hosts { // the one that is behind
			if other.Clock < h.Clock {
				h = other
			}
		}
		h.turn()
		if n := a.down(); n > 1 {
			t.Fatalf("%d hosts are down", n)
		}
	}
	for turns := 0; !ended(a.hosts[1]) || !ended(a.hosts[2]); turns++ {
		if turns > 5000 {
			t.Fatal("others wait for ever")
		}
		turn()
	}
	if took := a.world.now().Sub(time.Unix(1_800_001_000, 0)); took > time.Hour {
		t.Errorf("the others were done after %s", took)
	}
	for range 2000 { // hours
		turn()
	}
	if s, _ := bad.state(); s != api.Armed || w.count("reboot.unused") != 1 || w.count("reboot.late") != 0 || bad.Reboots != 0 {
		t.Errorf("it is %s after %d reboots; %d alarms, and %d that it is gone", s, bad.Reboots, w.count("reboot.unused"), w.count("reboot.late"))
	}
	bad.HookFails[effect.HookPreReboot] = 0
	a.ask("POST", "/api/v1/hosts/h0/retry", a.op, map[string]int64{"seq": a.seq}, 200)
	begin := a.world.now()
	for turns := 0; !ended(bad); turns++ {
		if turns > 500 {
			t.Fatal("it never ends")
		}
		turn()
	}
	if took := a.world.now().Sub(begin); took > 20*time.Minute {
		t.Errorf("after a retry it took %s", took)
	}
}
