package nixos

import (
	"fmt"
	"time"

	"narwharf/hooks/api"
)

// hook is the effect of a hook that is due.
func (a *Attempt) hook(name HookName) RunHook {
	return RunHook{Hook: name, Delay: time.Duration(a.PostTries) * 10 * time.Second, Env: []string{
		"NARWHARF_ATTEMPT=" + a.ID, fmt.Sprintf("NARWHARF_SEQ=%d", a.Seq), "NARWHARF_ACTION=" + string(a.Action),
		"NARWHARF_PATH=" + a.Path, "NARWHARF_PREVIOUS=" + a.Previous, "NARWHARF_STATE=" + string(a.After),
	}}
}

// postTries is how often hooks.post_switch may fail.
const postTries = 4

// drain begins what comes right before a live switch. From here on
// hooks.post_switch is owed, however the attempt goes on.
func (m *Machine) drain(j *Journal, a *Attempt, f Facts) {
	a.Owed = m.Rules.Hooks[HookPreSwitch] || m.Rules.Hooks[HookPostSwitch]
	if m.Rules.Hooks[HookPreSwitch] {
		m.enter(j, f, api.Draining, PhasePre)
		return
	}
	m.enter(j, f, api.Draining, PhaseAnnounce)
}

// holdBack is that nothing was changed, and that it is tried again.
func (m *Machine) holdBack(j *Journal, a *Attempt, f Facts, why string, again time.Duration) {
	a.Reason = why
	a.BootID = f.BootID
	a.RetryAt = f.Now + again.Milliseconds()
	if a.Owed && m.Rules.Hooks[HookPostSwitch] {
		m.enter(j, f, api.Draining, PhasePost)
		a.After = api.WaitingState
		return
	}
	a.Owed = false
	m.enter(j, f, api.WaitingState, PhaseReady)
	j.WaitingFor = &api.Waiting{Kind: api.WaitInhibited, Detail: why}
}

// hooked is the end of a hook. One that comes before something stops it; one
// that comes after changes nothing of the outcome.
func (m *Machine) hooked(j *Journal, a *Attempt, f Facts, ev Hooked) {
	switch a.Phase {
	case PhasePre:
		if a.Leaving || a.TestEnds { // a way back is not stopped by it
			m.wayBack(j, a, f)
			return
		}
		if ev.Err != "" {
			a.HookTries++
			m.holdBack(j, a, f, "hooks.pre_switch: "+ev.Err, backOff(a.HookTries+1))
			return
		}
		m.enter(j, f, api.Draining, PhaseAnnounce)
	case PhasePreReboot:
		if ev.Err != "" {
			a.HookTries++
			m.notRebooted(j, a, f, "hooks.pre_reboot: "+ev.Err, backOff(a.HookTries+1))
			return
		}
		if f.Profile != a.Path { // a person's: ended says so
			m.notRebooted(j, a, f, "", 0)
			return
		}
		if why := m.mayReboot(j, a, f); why != nil { // it took too long
			m.notRebooted(j, a, f, why.Detail, 0)
			return
		}
		m.enter(j, f, api.Armed, PhaseReboot)
		j.WaitingFor = &api.Waiting{Kind: api.WaitReboot, Detail: "it reboots now"}
	case PhasePost:
		if a.PostTries++; ev.Err != "" && a.PostTries < postTries {
			return // again: a host should not stay drained for a hiccup
		}
		s := a.After
		a.Owed, a.After, a.PostTries = false, "", 0
		if ev.Err != "" {
			a.Note = fmt.Sprintf("hooks.post_switch failed %d times: %s", postTries, ev.Err)
		}
		switch s {
		case api.WaitingState:
			m.enter(j, f, s, PhaseReady)
			j.WaitingFor = &api.Waiting{Kind: api.WaitInhibited, Detail: a.Reason}
		case api.OK:
			m.enter(j, f, s, PhaseKeep)
		default:
			m.finish(j, f, s)
		}
	}
}
