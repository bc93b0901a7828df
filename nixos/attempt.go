package nixos

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/signing"
)

// attempt is an event of something that was under way.
func (m *Machine) attempt(j *Journal, a *Attempt, f Facts, ev Event) {
	switch ev := ev.(type) {
	case Prepared:
		if a.Phase == PhasePrepare {
			m.prepared(j, a, f, ev)
		}
	case Realised:
		if a.Phase == PhaseRealise {
			m.realised(j, a, f, ev)
		}
	case Inspected:
		if a.Phase == PhaseInspect {
			m.inspected(j, a, f, ev)
		}
	case Announced:
		if a.Phase == PhaseAnnounce {
			a.Reachable = ev.OK
			m.act(j, a, f)
		}
	case Switched:
		m.switched(j, a, f, ev)
	case Observed:
		if a.Phase == PhaseObserve {
			m.observed(j, a, f, ev)
		}
	case Probed:
		if a.Phase == PhaseConfirm {
			m.probed(j, a, f, ev)
		}
	case Asked:
		if a.Phase == PhaseOwn {
			m.asked(j, a, f, ev)
		}
	case Witnessed:
		if a.Phase == PhaseWitness {
			m.witnessed(j, a, f, ev)
		}
	case ProfileSet:
		m.profileSet(j, a, f, ev)
	case Hooked:
		m.hooked(j, a, f, ev)
	case StillUp:
		if a.Phase == PhaseReboot {
			m.notRebooted(j, a, f, ev.Err, rebootRetry)
		}
	case Kept:
		if a.Phase == PhaseKeep {
			if ev.Err == "" {
				j.ConfirmedRoot = j.Confirmed
			}
			m.end(j, a, f)
		}
	}
}

// backOff is 5 s, doubling to 5 min.
func backOff(tries int) time.Duration {
	return min(5*time.Second<<min(tries-1, 10), 5*time.Minute)
}

func (m *Machine) stageFailed(j *Journal, a *Attempt, f Facts, why string, reject bool) {
	a.Reason = why
	if reject {
		m.deny(j, a)
		m.finish(j, f, api.Rejected)
		j.Error = why
		return
	}
	a.Tries++
	a.BootID = f.BootID
	a.RetryAt = f.Now + backOff(a.Tries).Milliseconds()
	m.enter(j, f, api.StageFailed, PhaseRetry)
	j.Error = why
}

func (m *Machine) prepared(j *Journal, a *Attempt, f Facts, ev Prepared) {
	a.Differs = ev.Differs
	j.Suspect = slices.DeleteFunc(j.Suspect, func(p narinfo.Path) bool { return slices.Contains(ev.Verified, p) })
	if ev.Err != "" {
		m.stageFailed(j, a, f, ev.Err, ev.Reject)
		return
	}
	j.Unsynced, j.UnsyncedBoot = union(j.Unsynced, ev.Missing), f.BootID
	// What an interrupted staging brought in is this attempt's too.
	a.Fetched += ev.Bytes
	a.Imported = union(a.Imported, ev.Missing)
	if m.Rules.Jitter > 0 && len(ev.Missing) > 0 && !a.Jittered {
		a.Jittered, a.BootID = true, f.BootID
		a.RetryAt = f.Now + jitter(f.Random, m.Rules.Jitter).Milliseconds()
		m.enter(j, f, api.Staging, PhaseJitter)
		return
	}
	m.enter(j, f, api.Staging, PhaseRealise)
}

func (m *Machine) realised(j *Journal, a *Attempt, f Facts, ev Realised) {
	if ev.Err != "" {
		m.stageFailed(j, a, f, ev.Err, ev.Reject)
		return
	}
	a.Differs = ev.Differs
	a.Imported, a.Tries, a.RetryAt, a.Reason = nil, 0, 0, ""
	a.Staged, a.Asked = true, false
	j.Unsynced, j.UnsyncedBoot = nil, "" // the store was synced
	m.measure(a, f, "stage", a.Began)
	m.enter(j, f, api.Staged, PhaseReady)
}

func (m *Machine) inspected(j *Journal, a *Attempt, f Facts, ev Inspected) {
	a.RebootFor = sorted(append(slices.Clone(ev.RebootFor), ev.Inhibited...))
	live := a.Action == signing.Switch || a.Action == signing.Test
	switch {
	case ev.Err != "":
		m.holdBack(j, a, f, ev.Err, 30*time.Second)
		return
	case ev.Busy != "":
		m.holdBack(j, a, f, ev.Busy, 10*time.Second)
		return
	case live && len(ev.Inhibited) > 0:
		m.holdBack(j, a, f, fmt.Sprintf("a switch is inhibited (%s): promote it with the action auto, boot or reboot", join(ev.Inhibited)), 30*time.Second)
		return
	}
	a.BootID = f.BootID
	a.Reason, a.RetryAt = "", 0
	a.Baseline = sorted(ev.Failed)
	a.Previous = f.Current
	if a.Previous == a.Path { // already live, by a test or a person
		a.Previous = j.Confirmed
		if a.Previous == "" || a.Previous == a.Path {
			a.Previous = f.Profile
		}
	}
	a.ProfileLink, a.ProfilePath, a.ProfileTouched = f.ProfileLink, f.Profile, false
	if f.Profile == a.Path || f.Profile == "" { // no generation to go back to: it gets a new one
		a.ProfileLink, a.ProfilePath = "", a.Previous
	}
	a.ByBoot = a.Action == signing.Boot || a.Action == signing.Reboot || (a.Action == signing.Auto && len(a.RebootFor) > 0)
	if f.Current == a.Path {
		a.ByBoot = false // it runs already: it can be put on probation now
	}
	switch {
	case a.Action == signing.DryActivate:
		m.run(j, f, api.Activating, PhaseDry, "dry-activate")
	case a.ByBoot:
		m.enter(j, f, api.Draining, PhaseAnnounce)
	case ev.CanCheck && f.Current != a.Path:
		m.run(j, f, api.Draining, PhaseCheck, "check")
	default:
		m.drain(j, a, f)
	}
}

// checked is the end of `switch-to-configuration check`, which runs what the
// system wants to know before it is switched to. As system.autoUpgrade does,
// auto takes a failure for "not without a boot".
func (m *Machine) checked(j *Journal, a *Attempt, f Facts, ev Switched) {
	clean := !ev.Lost && ev.Text == ""
	switch {
	case clean && ev.Exit == exitFine:
		m.drain(j, a, f)
	case clean && a.Action == signing.Auto:
		a.ByBoot = true
		a.RebootFor = sorted(append(a.RebootFor, "switch-to-configuration check"))
		m.enter(j, f, api.Draining, PhaseAnnounce)
	default:
		m.holdBack(j, a, f, fmt.Sprintf("switch-to-configuration check %s: it is tried again", ended(ev)), time.Minute)
	}
}

// act begins what cannot be called back.
func (m *Machine) act(j *Journal, a *Attempt, f Facts) {
	if d := j.Desired; d == nil || !j.valid(d.Grant, a.Seq, f) {
		j.askAnew()
		a.Asked = false
		a.HookTries++
		m.holdBack(j, a, f, "the grant's lease ran out while the host was drained", backOff(a.HookTries))
		return
	}
	if a.ByBoot {
		m.commit(j, a, f)
		return
	}
	// Nothing that was found out before may count for the new system.
	a.Failing, a.NewFailed, a.Checks, a.Answered, a.Confirm, a.Unconfirmed = nil, nil, nil, false, "", false
	a.ProbationAt = f.Now // until the switch has ended
	a.Activated = true
	m.run(j, f, api.Activating, PhaseSwitch, "test")
}

func (m *Machine) switched(j *Journal, a *Attempt, f Facts, ev Switched) {
	if ev.Busy != "" {
		m.notSwitched(j, a, f, ev.Busy)
		return
	}
	if ev.Lost && a.Lost < 3 && (a.Phase == PhaseCheck || a.Phase == PhaseBoot || a.Phase == PhaseUnboot || a.Phase == PhaseUnswitch) {
		a.Lost++
		a.Run++ // these may be run again; an activation may not
		a.noteRun(m.Effect(j))
		return
	}
	switch a.Phase {
	case PhaseCheck:
		m.checked(j, a, f, ev)
	case PhaseSwitch:
		m.activated(j, a, f, ev)
	case PhaseDry:
		a.SwitchExit = exitOf(ev)
		if ev.Lost || ev.Text != "" || ev.Exit != 0 {
			a.Reason = "dry-activate " + ended(ev)
		}
		m.finish(j, f, api.DryRunDone)
		j.Error = a.Reason
	case PhaseBoot:
		m.booted(j, a, f, ev)
	case PhaseUnboot:
		if ev.Exit != 0 || ev.Lost || ev.Text != "" {
			// What boots is not known; what runs can still be put right.
			a.BootLost = true
			a.Reason += fmt.Sprintf("; the old system's boot entry could not be written again (%s)", ended(ev))
		}
		m.unswitch(j, a, f)
	case PhaseUnswitch:
		m.unswitched(j, a, f, ev)
	}
}

// notSwitched is that a run could not be begun.
func (m *Machine) notSwitched(j *Journal, a *Attempt, f Facts, why string) {
	switch a.Phase {
	case PhaseCheck, PhaseSwitch, PhaseDry:
		// Nothing happened yet: back to waiting.
		a.Activated = false
		m.holdBack(j, a, f, why, 10*time.Second)
	case PhaseBoot, PhaseUnboot, PhaseUnswitch:
		a.Tries++
		if a.Tries < 150 { // five minutes
			return
		}
		if a.Phase == PhaseBoot {
			m.revert(j, a, f, "switch-to-configuration boot could not be run: "+why)
			return
		}
		a.Reason += "; the way back could not be run: " + why
		m.finish(j, f, api.Failed)
	}
}

func exitOf(ev Switched) *int {
	if ev.Lost || ev.Text != "" {
		return nil
	}
	return &ev.Exit
}

func ended(ev Switched) string {
	switch {
	case ev.Lost:
		return "ended without a result"
	case ev.Text != "":
		return "ended with " + ev.Text
	}
	if ev.Last != "" {
		return fmt.Sprintf("exited with %d (%s)", ev.Exit, ev.Last)
	}
	return fmt.Sprintf("exited with %d", ev.Exit)
}

// Exit codes of switch-to-configuration; see docs/agent.md.
const (
	exitFine        = 0
	exitUnitsFailed = 4 // the system is switched: probation decides
	exitReboot      = 100
)

// activated is the end of `switch-to-configuration test`.
func (m *Machine) activated(j *Journal, a *Attempt, f Facts, ev Switched) {
	a.SwitchExit = exitOf(ev)
	m.measure(a, f, "activate", a.ProbationAt)
	clean := !ev.Lost && ev.Text == ""
	switch {
	case clean && ev.Exit == exitReboot && a.Action == signing.Auto && f.Current == a.Previous:
		a.ByBoot = true
		a.RebootFor = sorted(append(a.RebootFor, "init-interface-version"))
		m.commit(j, a, f)
	case clean && (ev.Exit == exitFine || ev.Exit == exitUnitsFailed) && f.Current == a.Path:
		m.probation(j, a, f)
	case clean && (ev.Exit == exitFine || ev.Exit == exitUnitsFailed):
		m.revert(j, a, f, fmt.Sprintf("switch-to-configuration %s, but the running system is %s", ended(ev), f.Current))
	default:
		m.revert(j, a, f, "switch-to-configuration "+ended(ev))
	}
}

// booted is the end of `switch-to-configuration boot`.
func (m *Machine) booted(j *Journal, a *Attempt, f Facts, ev Switched) {
	if a.ByBoot && !a.Rebooted {
		a.SwitchExit = exitOf(ev)
	}
	if ev.Lost || ev.Text != "" || ev.Exit != 0 {
		m.revert(j, a, f, "the boot entry could not be written: switch-to-configuration "+ended(ev))
		return
	}
	m.measure(a, f, "commit", a.CommitAt)
	switch {
	case f.Profile != a.Path:
		m.drifted(j, a, f, fmt.Sprintf("the system profile was changed to %s while this one was committed", f.Profile))
	case a.ByBoot && !a.Rebooted && f.Current == a.Path:
		// It was booted, or a person switched to it, before this was known.
		a.Rebooted = true
		m.probation(j, a, f)
	case f.Current == a.Path:
		j.confirm(a.Path)
		if a.Owed && m.Rules.Hooks[HookPostSwitch] {
			a.After, a.Phase = api.OK, PhasePost
			return
		}
		a.Owed = false
		m.enter(j, f, api.OK, PhaseKeep)
	case a.ByBoot || a.Resumed: // or power was lost before the boot entry was there
		m.finish(j, f, api.Armed)
	default:
		m.drifted(j, a, f, fmt.Sprintf("the running system was changed to %s while this one was committed", f.Current))
	}
}

// commit makes the system the one that boots.
func (m *Machine) commit(j *Journal, a *Attempt, f Facts) {
	a.CommitAt = f.Now
	a.ProfileTouched = true
	m.enter(j, f, api.Committing, PhaseProfile)
}

// end is a commit that is done.
func (m *Machine) end(j *Journal, a *Attempt, f Facts) {
	if f.Current != a.Path {
		m.drifted(j, a, f, fmt.Sprintf("the running system was changed to %s", f.Current))
		return
	}
	m.finish(j, f, api.OK)
}

func (m *Machine) drifted(j *Journal, a *Attempt, f Facts, why string) {
	a.Reason = why + ": somebody else did that; it is left so until the next release"
	m.finish(j, f, api.Drifted)
}

func (m *Machine) profileSet(j *Journal, a *Attempt, f Facts, ev ProfileSet) {
	switch {
	case a.Phase == PhaseProfile && ev.Drifted:
		m.drifted(j, a, f, fmt.Sprintf("the running system became %s in probation", f.Current))
	case a.Phase == PhaseProfile && ev.Err != "":
		m.revert(j, a, f, "the system profile could not be set: "+ev.Err)
	case a.Phase == PhaseProfile:
		m.run(j, f, api.Committing, PhaseBoot, "boot")
	case a.Phase == PhaseUnprofile && ev.Err != "":
		a.Reason += "; the system profile could not be set back: " + ev.Err
		m.finish(j, f, api.Failed)
	case a.Phase == PhaseUnprofile:
		m.run(j, f, api.Reverting, PhaseUnboot, "boot")
	}
}

// jitter is a part of the whole that is any host's own; random is hex digits.
func jitter(random string, whole time.Duration) time.Duration {
	n, err := strconv.ParseUint(random[:8], 16, 64)
	if err != nil {
		return 0
	}
	return time.Duration(float64(whole) * float64(n) / (1 << 32))
}
