package hooks

import (
	"strings"
	"testing"
	"time"

	"narwharf/hooks/api"
)

// TestNoAlarmOfARestart: a server that begins has heard of nobody. It gives a host
// whose time is over the time to ask, before it says that it is gone.
func TestNoAlarmOfARestart(t *testing.T) {
	for name, up := range map[string]bool{"up": true, "gone": false} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				h := rebooters(w, 1, "web-1")[0]
				h.asks(1)
				if h.poll().Reboot == nil {
					t.Fatal("not permitted")
				}
				for range 31 {
					h.says(api.WaitReboot, "hooks.pre_reboot: exit status 1")
					time.Sleep(30 * time.Second)
				}
				w.restart() // after 15 minutes and a half
				time.Sleep(time.Minute)
				for range 5 {
					if up {
						h.poll()
					}
					time.Sleep(time.Minute)
				}
				if late := w.count("reboot.late"); (late == 0) != up || late > 1 {
					t.Errorf("%d alarms that it has not come back", late)
				}
			})
		})
	}
}

// TestUpAndSilent: a host that says that it is there, and neither reboots nor asks
// – its hook hangs, and has hours for it – holds its slot, and is an alarm, once.
func TestUpAndSilent(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		hosts := rebooters(w, 1, "web-1", "web-2")
		h, two := hosts[0], hosts[1]
		h.asks(1)
		if h.poll().Reboot == nil {
			t.Fatal("not permitted")
		}
		for i := range 2 * 60 {
			h.says(api.WaitReboot, "it reboots now")
			time.Sleep(30 * time.Second)
			if i == 2*20 && w.count("reboot.late") != 0 {
				t.Error("an alarm of a host that may still end by itself")
			}
		}
		if w.count("reboot.late") != 1 || !h.show().Slot.Overdue {
			t.Fatalf("%d alarms of a host that holds its slot for an hour", w.count("reboot.late"))
		}
		w.must(w.do("GET", "/api/v1/events", w.op, nil), 200, "", "web-1 was let reboot for seq 1", "is up, and neither reboots nor asks (its last word: armed, waits for reboot: it reboots now)")
		if body := w.do("GET", "/api/v1/events", w.op, nil).body; strings.Contains(body, "has not come back") {
			t.Errorf("it says that it is gone: %s", body)
		}
		// It asks at last, and all is as it would have been.
		h.says(api.WaitReboot, "hooks.pre_reboot: signal: killed")
		two.asks(1)
		if h.poll(); two.poll().Reboot == nil || h.show().Slot != nil {
			t.Error("its slot is not free")
		}
	})
}
