package promoter

import (
	"io"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"narwharf/hooks/api"
)

// Of the six bug classes of hooks/bugs_test.go two are also those of whoever
// waits: that a roll-out is over must have been said by every host that is there,
// and about this seq.

const waitedFor = 7

func anyHosts(rt *rapid.T) (hosts []api.Host) {
	for i := range rapid.IntRange(0, 4).Draw(rt, "hosts") {
		h := api.Host{Host: string(rune('a' + i)), Online: rapid.Bool().Draw(rt, "online"), WantedSeq: waitedFor}
		if rapid.IntRange(0, 4).Draw(rt, "wanted") > 0 {
			h.Wanted = "/nix/store/a"
		}
		if rapid.IntRange(0, 4).Draw(rt, "reported") > 0 {
			h.Status = &api.Status{State: rapid.SampledFrom(api.States).Draw(rt, "state"), Seq: rapid.Int64Range(waitedFor-2, waitedFor).Draw(rt, "seq")}
		}
		hosts = append(hosts, h)
	}
	return hosts
}

func newWait(hosts []api.Host) (w *waiter, over time.Time) {
	start := time.Now()
	p := &Promoter{Options: Options{Channel: "web"}, out: io.Discard}
	return &waiter{p: p, seq: waitedFor, offline: time.Minute, start: start, hosts: hosts, printed: make(map[string]string)}, start.Add(time.Minute)
}

// goodEnds are the states in which an attempt ended well.
var goodEnds = map[api.State]bool{api.OK: true, api.Armed: true, api.Testing: true, api.TestOver: true, api.DryRunDone: true, api.NotInRelease: true}

// Class 4: completed means that every host that is there said so.
func TestClass4CompletedIsSaid(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w, over := newWait(anyHosts(rt))
		done, outcome := w.look(over)
		if !done {
			return
		}
		for _, h := range w.hosts {
			if h.Wanted == "" {
				continue
			}
			said := h.Status != nil && h.Status.Seq == waitedFor
			if h.Online && !said {
				rt.Fatalf("%s, and %s said nothing about it", outcome, h.Host)
			}
			// What was said stays true when the host is gone.
			if said && (h.Online || h.Status.State.Final()) && outcome == Completed && !goodEnds[h.Status.State] {
				rt.Fatalf("completed, and %s is %s", h.Host, h.Status.State)
			}
		}
	})
}

// Class 5: hosts that said nothing, or are not there, are waited for as long as
// they may come; and who said all is not waited for at all.
func TestClass5SilenceIsWaitedFor(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w, over := newWait(anyHosts(rt))
		silent, open := len(w.hosts) == 0, false
		for _, h := range w.hosts {
			if h.Wanted == "" {
				continue
			}
			if h.Status == nil || h.Status.Seq < waitedFor {
				silent = true
			} else if !h.Status.State.Final() {
				open = true
			}
		}
		done, _ := w.look(over.Add(-time.Second))
		if done == (silent || open) {
			rt.Fatalf("done %v, silent %v, under way %v: %+v", done, silent, open, w.hosts)
		}
	})
}

// TestWaitForReboots: with the action reboot an armed host is not done, and one
// that is down by permission is not offline.
func TestWaitForReboots(t *testing.T) {
	armed := func(action string) *api.Status {
		return &api.Status{State: api.Armed, Seq: waitedFor, Action: action, WaitingFor: &api.Waiting{Kind: api.WaitReboot, Asks: true}}
	}
	byPerson, forSlot := &api.Waiting{Kind: api.WaitReboot}, &api.Waiting{Kind: api.WaitSlot, Detail: "web-2 may reboot now"}
	itself := &api.Status{State: api.Armed, Seq: waitedFor, Action: "boot", WaitingFor: byPerson}
	slot := &api.Slot{Group: "web", Seq: waitedFor}
	for _, c := range []struct {
		name  string
		h     api.Host
		state hostState
		line  string
	}{
		{"a person will reboot it", api.Host{Online: true, Status: itself}, hostArmed, "armed: boots it at the next reboot"},
		{"nobody permits it", api.Host{Online: true, Status: armed("auto"), WaitingFor: byPerson}, hostArmed, "armed: boots it at the next reboot"},
		{"waits for a slot", api.Host{Online: true, Status: armed("reboot"), WaitingFor: forSlot}, hostWaits, "armed, waits: slot (web-2 may reboot now)"},
		{"waits by auto", api.Host{Online: true, Status: armed("auto"), WaitingFor: forSlot}, hostWaits, "armed, waits: slot (web-2 may reboot now)"},
		{"is permitted by auto", api.Host{Online: true, Status: armed("auto"), Slot: slot}, hostWaits, "armed"},
		{"reboots", api.Host{Status: armed("reboot"), Slot: slot}, hostWaits, "armed, reboots"},
		{"does not come back", api.Host{Status: armed("reboot"), Slot: &api.Slot{Overdue: true}}, hostOffline, "offline since"},
		{"was gone without a word", api.Host{Status: armed("reboot")}, hostOffline, "offline since"},
		{"came back", api.Host{Online: true, Slot: slot, Status: &api.Status{State: api.Probation, Seq: waitedFor}}, hostWaits, "probation"},
		{"came back badly and is gone", api.Host{Status: &api.Status{State: api.Reverted, Seq: waitedFor, Error: "no disk"}}, hostReverted, "reverted: no disk"},
	} {
		c.h.Wanted, c.h.WantedSeq = "/nix/store/a", waitedFor
		w, over := newWait(nil)
		if line, state := w.judge(c.h, over); state != c.state || !strings.Contains(line, c.line) {
			t.Errorf("%s: %d, %q", c.name, state, line)
		}
	}
}
