package machine

import (
	"fmt"

	"narwharf/hooks/api"
	"narwharf/nixos/desired"
	"narwharf/nixos/effect"
	"narwharf/nixos/journal"
)

// preSwitched is the end of hooks.pre_switch. Where it fails there is no switch,
// but a way back is gone all the same.
func preSwitched(t *turn, ev effect.Hooked) arrow {
	a := t.a
	switch {
	case a.ByDirective || a.TestEnds:
		return goBackNow(t)
	case ev.Err != "":
		a.HookTries++
		return holdBack(t, "hooks.pre_switch: "+ev.Err, backOff(a.HookTries+1))
	}
	return to(journal.Announce)
}

// preRebooted is the end of hooks.pre_reboot. Where it fails there is no reboot.
func preRebooted(t *turn, ev effect.Hooked) arrow {
	a := t.a
	if ev.Err != "" {
		a.HookTries++
		return notRebooted(t, "hooks.pre_reboot: "+ev.Err, backOff(a.HookTries+1))
	}
	if t.f.Profile != a.Path { // a person's: outcome says so
		return notRebooted(t, "", 0)
	}
	if w := t.wait(desired.AdmitReboot(&t.rules.Rules, t.j, t.f)); w != nil { // it took too long
		return notRebooted(t, w.Detail, 0)
	}
	return reboots(journal.Reboot)
}

// maxPostTries is how often hooks.post_switch may fail.
const maxPostTries = 4

// postFirst leads on by way of hooks.post_switch, where that is owed.
func postFirst(t *turn, then arrow) arrow {
	a := t.a
	if a.PostOwed && t.rules.Hooks[effect.HookPostSwitch] {
		a.After, a.BootID = then.state, t.f.BootID
		return to(journal.PostSwitch)
	}
	a.PostOwed = false
	return then
}

// postSwitched is the end of hooks.post_switch, which changes nothing of the
// outcome.
func postSwitched(t *turn, ev effect.Hooked) arrow {
	a := t.a
	if a.PostTries++; ev.Err != "" && a.PostTries < maxPostTries {
		return arrow{} // again: a host should not stay drained for a hiccup
	}
	after := a.After
	a.PostOwed, a.After, a.PostTries = false, "", 0
	if ev.Err != "" {
		a.Note = fmt.Sprintf("hooks.post_switch failed %d times: %s", maxPostTries, ev.Err)
	}
	switch after {
	case api.WaitingState:
		return waitingAgain(a)
	case api.OK:
		return to(journal.Protect)
	}
	return finish(t, after)
}
