package machine

import (
	"fmt"
	"time"

	"narwharf/hooks/api"
	"narwharf/narinfo/clip"
	"narwharf/nixos/desired"
	"narwharf/nixos/effect"
	"narwharf/nixos/journal"
	"narwharf/signing"
)

// ready lets a staged system go, or says what holds it back.
func ready(t *turn) arrow {
	if inPlace(t.a, t.f) {
		return takeAsItIs(t)
	}
	if w := t.wait(desired.Admit(&t.rules.Rules, t.j, t.f)); w != nil {
		return arrow{phase: journal.Ready, state: api.WaitingState, waiting: w}
	}
	t.a.BootID = t.f.BootID
	return to(journal.Inspect)
}

// inspected decides by what the host is like how the system is to be started,
// and notes what may be gone back to.
func inspected(t *turn, ev effect.Inspected) arrow {
	a, f := t.a, t.f
	a.RebootFor = journal.Set(ev.RebootFor, ev.Inhibited)
	live := a.Action == signing.Switch || a.Action == signing.Test
	switch {
	case ev.Err != "":
		return holdBack(t, ev.Err, 30*time.Second)
	case ev.Busy != "":
		return holdBack(t, ev.Busy, 10*time.Second)
	case live && len(ev.Inhibited) > 0:
		return holdBack(t, fmt.Sprintf("a switch is inhibited (%s): promote it with the action auto, boot or reboot", clip.List(ev.Inhibited)), 30*time.Second)
	}
	a.BootID = f.BootID
	a.Reason, a.RetryAt = "", 0
	if want := t.rules.Specialisation; ev.Specialisation {
		a.Specialisation = want
	} else if want != "" {
		a.Note = fmt.Sprintf("the system has no specialisation %q, which activation.specialisation asks for: it is taken without", want)
	}
	a.Baseline = journal.Set(ev.Failed)
	noteWayBack(t)
	a.ByBoot = a.Action == signing.Boot || a.Action == signing.Reboot || (a.Action == signing.Auto && len(a.RebootFor) > 0)
	if f.Current == a.Path {
		a.ByBoot = false // it runs already: it can be put on probation now
	}
	switch {
	case a.Action == signing.DryActivate:
		return runs(journal.Dry, "dry-activate")
	case a.ByBoot:
		return to(journal.Announce)
	case ev.CanCheck && f.Current != a.Path:
		return runs(journal.Check, "check")
	}
	return drain(t)
}

// noteWayBack notes which system and which generation a revert leads to.
func noteWayBack(t *turn) {
	a, f := t.a, t.f
	a.Previous = f.Current
	if a.Previous == a.Path { // already live, by a test or a person
		a.Previous = t.j.Confirmed
		if a.Previous == "" || a.Previous == a.Path {
			a.Previous = f.Profile
		}
	}
	a.ProfileLink, a.ProfilePath, a.ProfileTouched = f.ProfileLink, f.Profile, false
	if f.Profile == a.Path || f.Profile == "" { // no generation to go back to: it gets a new one
		a.ProfileLink, a.ProfilePath = "", a.Previous
	}
}

// checked is the end of `switch-to-configuration check`, which runs what the
// system wants to know before it is switched to. As system.autoUpgrade does,
// auto takes a failure for "not without a boot".
func checked(t *turn, ev effect.Switched) arrow {
	a := t.a
	switch {
	case ev.Exited(effect.ExitFine):
		return drain(t)
	case ev.Code() != nil && a.Action == signing.Auto:
		a.ByBoot = true
		a.RebootFor = journal.Set(append(a.RebootFor, "switch-to-configuration check"))
		return to(journal.Announce)
	}
	return holdBack(t, fmt.Sprintf("switch-to-configuration check %s: it is tried again", ev), time.Minute)
}

// drain begins what comes right before a live switch. From here on
// hooks.post_switch is owed, however the attempt goes on.
func drain(t *turn) arrow {
	hooks := t.rules.Hooks
	t.a.PostOwed = hooks[effect.HookPreSwitch] || hooks[effect.HookPostSwitch]
	if hooks[effect.HookPreSwitch] {
		return to(journal.PreSwitch)
	}
	return to(journal.Announce)
}

// holdBack is that nothing was changed, and that it is tried again.
func holdBack(t *turn, why string, again time.Duration) arrow {
	a, f := t.a, t.f
	a.Reason, a.BootID = why, f.BootID
	a.RetryAt = f.Now + again.Milliseconds()
	w := postFirst(t, waitingAgain(a))
	if w.phase == journal.PostSwitch {
		w.state = api.Draining
	}
	return w
}

// waitingAgain is a staged system that something on the host holds back.
func waitingAgain(a *journal.Attempt) arrow {
	return arrow{phase: journal.Ready, state: api.WaitingState, waiting: &api.Waiting{Kind: api.WaitInhibited, Detail: a.Reason}}
}

// announced begins what cannot be called back. What it knows of the server is
// from right before the switch.
func announced(t *turn, ev effect.Announced) arrow {
	a := t.a
	a.Reachable = ev.OK
	if !desired.Granted(t.j, t.f) {
		t.j.ETag = "" // the server is asked anew
		a.Asked = false
		a.HookTries++
		return holdBack(t, "the grant's lease ran out while the host was drained", backOff(a.HookTries))
	}
	if a.ByBoot {
		return commit(t)
	}
	a.Findings = journal.Findings{} // nothing that was found out before counts for the new system
	a.ProbationAt = t.f.Now         // until the switch has ended
	a.Activated = true
	return runs(journal.Switch, "test")
}

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
