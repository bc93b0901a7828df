package roster

import (
	"fmt"

	"narwharf/hooks/api"
	"narwharf/hooks/rollout"
)

// MayReboot tells whether a host that is armed may reboot into its release now: "" if
// it may, or what it has to wait for, with words for people. Windows and reboot slots
// are not looked at: who hands out slots does that. When an answer's Wait of an armed
// host becomes another it is woken; for room in a budget it has to be asked again. A
// host that is not known here may.
func (e *Roster) MayReboot(name string) (kind api.WaitKind, detail string) {
	h := e.Hosts[name]
	if h == nil {
		return "", ""
	}
	if kind, detail = e.notNow(h); kind == "" && !h.Counted.Taken && h.Class.full() {
		return api.WaitBudget, "as many hosts of a budget are unavailable as may be"
	}
	return kind, detail
}

// notNow is why a host may not reboot, but for budgets: it stays the same while others
// move.
func (e *Roster) notNow(h *Host) (kind api.WaitKind, detail string) {
	l := &h.Level
	switch {
	case l.Held:
		return api.WaitHold, "it is held"
	case h.Class.held:
		return api.WaitHold, h.Class.hold
	case l.Paused:
		return api.WaitPaused, "it is paused on the host"
	case e.Frozen():
		return api.WaitFreeze, e.Limits.Freeze.Reason
	case h.ch.Run == nil:
		return "", ""
	}
	run := h.ch.Run
	which := e.Case(h)
	switch entry := which.Entry(l.Seq); {
	case entry != nil && e.Quarantined(run, entry):
		return api.WaitQuarantine, "its system is in quarantine"
	case l.Seq == run.Row.Seq:
		return goesOn(run.Row)
	case l.Seq != h.ch.Row.Newest():
		return api.WaitWave, fmt.Sprintf("release %d did not complete, and is not the last", l.Seq)
	}
	return "", ""
}

// goesOn is why nobody reboots into the release of a roll-out.
func goesOn(row *rollout.Rollout) (kind api.WaitKind, detail string) {
	switch row.State {
	case rollout.Planned, rollout.Running, rollout.Completed:
		return "", ""
	case rollout.Paused, rollout.Halted:
		return api.WaitPaused, fmt.Sprintf("release %d is %s: %s", row.Seq, row.State, row.Why)
	}
	return api.WaitWave, fmt.Sprintf("release %d is %s", row.Seq, row.State)
}
