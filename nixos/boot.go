package nixos

import (
	"fmt"
	"slices"
	"time"

	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/signing"
)

// started is the event in which a crash, a power cut or a reboot shows. What
// was under way on this boot goes on by itself, since effects can be begun
// again; here is what a new boot makes of it.
func (m *Machine) started(j *Journal, f Facts) {
	j.StartID = max(j.StartID+1, f.Wall.Unix())
	if len(j.Unsynced) > 0 && j.UnsyncedBoot != f.BootID {
		j.Suspect = union(j.Suspect, j.Unsynced)
		j.Unsynced = nil
	}
	a := j.Attempt
	if a == nil || a.BootID == f.BootID || a.Phase == PhaseDone {
		return
	}
	a.Began = f.Now // the other boot's clock is gone
	switch a.Phase {
	case PhaseSwitch, PhaseObserve, PhaseConfirm, PhaseOwn, PhaseWitness:
		m.bootedInProbation(j, a, f)
	case PhaseDry:
		a.BootID = f.BootID
		m.run(j, f, api.Activating, PhaseDry, "dry-activate")
	case PhaseProfile, PhaseBoot:
		// Probation is passed: finish, and let the end say what runs.
		a.BootID = f.BootID
		a.Resumed = true
		m.commit(j, a, f)
	case PhaseUnprofile, PhaseUnboot, PhaseUnswitch:
		a.BootID = f.BootID
		if a.ProfileTouched {
			m.enter(j, f, api.Reverting, PhaseUnprofile)
		} else {
			m.unswitch(j, a, f)
		}
	case PhasePreReboot, PhaseReboot:
		a.Phase = PhaseDone // armed, and rebooted finds out where it led
	case PhasePost:
		m.bootedBeforePost(a, f)
	case PhaseInspect, PhaseCheck, PhasePre, PhaseAnnounce:
		a.BootID = f.BootID
		if a.Leaving || a.TestEnds {
			m.wayBack(j, a, f)
			return
		}
		if a.Owed {
			m.holdBack(j, a, f, "the host was rebooted while it was drained", 0)
			return
		}
		m.enter(j, f, api.Staged, PhaseReady)
	case PhaseJitter, PhaseRealise:
		a.BootID, a.RetryAt = f.BootID, 0
		m.enter(j, f, api.Staging, PhasePrepare) // what came before the boot has to be looked at
	default: // staging and waiting are bound to no boot
		a.BootID = f.BootID
		a.RetryAt = 0
	}
}

// bootedInProbation is a boot that came while a system was on trial.
func (m *Machine) bootedInProbation(j *Journal, a *Attempt, f Facts) {
	switch {
	case a.Rebooted && f.Booted == a.Path && a.Boots < 3:
		m.probation(j, a, f) // on trial is that it boots; it did, again
	case a.Rebooted:
		m.revert(j, a, f, fmt.Sprintf("the host rebooted %d times in probation and runs %s", a.Boots, f.Current))
	case f.Current == a.Path && f.Profile == a.Path:
		// It was the boot entry's system all along.
		m.adopt(j, a, f)
	default:
		a.Reason = "the host rebooted while the system was on trial"
		m.deny(j, a)
		m.finish(j, f, api.Reverted)
	}
}

// bootedBeforePost is a boot that came when all was over but a hook.
func (m *Machine) bootedBeforePost(a *Attempt, f Facts) {
	switch {
	case a.After == api.Armed:
		a.Phase, a.Outcome, a.After = PhaseDone, api.Armed, "" // and rebooted finds out where the boot led
		return
	case a.After == api.Testing && f.Current != a.Path:
		a.After = api.TestOver
	}
	a.BootID = f.BootID
}

// rebooted finds that a host which waited for a boot, or would not survive
// one, was booted. True means that the attempt goes on.
func (m *Machine) rebooted(j *Journal, f Facts) bool {
	a := j.Attempt
	if a == nil || a.Phase != PhaseDone || a.BootID == f.BootID {
		return false
	}
	switch {
	case a.Outcome == api.Testing && f.Profile == a.Path && f.Current == a.Path:
		m.adopt(j, a, f)
	case a.Outcome == api.Testing:
		a.Began = f.Now
		m.finish(j, f, api.TestOver)
	case a.Outcome == api.Armed && f.Booted == a.Path && f.Current == a.Path:
		a.Began = f.Now
		a.Rebooted = true
		a.Previous = a.ProfilePath
		m.probation(j, a, f)
		return true
	case a.Outcome == api.Armed:
		a.Began = f.Now
		a.BootID = f.BootID
		a.Previous = a.ProfilePath // what ran by a test before is gone with that boot
		m.revert(j, a, f, fmt.Sprintf("after the reboot the host runs %s: the boot entry did not take, or the machine fell back", f.Current))
		return true
	default:
		a.BootID = f.BootID
	}
	return false
}

// union is sorted and without doubles.
func union(a, b []narinfo.Path) []narinfo.Path {
	u := slices.Concat(a, b)
	slices.Sort(u)
	return slices.Compact(u)
}

// RebootAllow says who may reboot the host for a release.
type RebootAllow string

// Who may.
const (
	RebootServer RebootAllow = "server" // the server's permission is needed
	RebootAlways RebootAllow = "always" // at once, within the windows
	RebootNever  RebootAllow = "never"  // people alone
)

// rebootRetry is after how long a reboot that did not happen is tried again.
const rebootRetry = 10 * time.Minute

// mayReboot says why an armed host is not rebooted now, nil if it may be. The
// server can forbid, and permit what the host's own configuration leaves to
// it.
func (m *Machine) mayReboot(j *Journal, a *Attempt, f Facts) *api.Waiting {
	d := j.Desired
	wait := func(kind api.WaitKind, format string, args ...any) *api.Waiting {
		return &api.Waiting{Kind: kind, Detail: rebootText(a.RebootFor) + "; " + fmt.Sprintf(format, args...)}
	}
	asks := func(kind api.WaitKind, detail string) *api.Waiting {
		w := wait(kind, "%s", detail)
		w.Asks = true // nothing but the server's word is missing
		return w
	}
	open, opens := m.Rules.Windows.State(f.Wall)
	switch {
	case a.Action != signing.Auto && a.Action != signing.Reboot:
		return wait(api.WaitReboot, "the action %s leaves the reboot to people", a.Action)
	case m.Rules.Reboot == RebootNever:
		return wait(api.WaitReboot, "reboot.allow is never: a person has to do it")
	case a.Expire != 0 && f.Wall.Unix() >= a.Expire:
		return wait(api.WaitExpired, "the release's time is over, by this host's clock")
	case f.Pause != nil:
		return wait(api.WaitPaused, "paused on the host by %s: %s", f.Pause.By, f.Pause.Reason)
	case d != nil && d.Hold != nil:
		return wait(api.WaitHold, "held by %s: %s", d.Hold.By, d.Hold.Reason)
	case d != nil && tooOld(m.Rules.Agent, d.MinAgent) != "":
		return wait(api.WaitInhibited, "%s", tooOld(m.Rules.Agent, d.MinAgent))
	case f.Now < a.RetryAt && a.BootID == f.BootID:
		return wait(api.WaitReboot, "%s", a.Reason)
	case !open:
		return wait(api.WaitWindow, "reboot.windows: %s", m.Rules.Windows.Opens(opens))
	case m.Rules.Reboot == RebootAlways:
		return nil
	case d != nil && d.Reboot != nil && d.Reboot.Seq == a.Seq && !j.valid(d.Reboot, a.Seq, f):
		j.askAnew()
		return asks(api.WaitReboot, "the permission's lease ran out before it was used: the server is asked again")
	case d == nil || !j.valid(d.Reboot, a.Seq, f):
		if d != nil && d.WaitingFor != nil {
			return asks(d.WaitingFor.Kind, d.WaitingFor.Detail)
		}
		return asks(api.WaitReboot, "the server has not permitted it")
	}
	return nil
}

// reboot begins it.
func (m *Machine) reboot(j *Journal, a *Attempt, f Facts) {
	a.Reason, a.RetryAt = "", 0
	if m.Rules.Hooks[HookPreReboot] {
		a.Owed = true
		m.enter(j, f, api.Armed, PhasePreReboot)
	} else {
		m.enter(j, f, api.Armed, PhaseReboot)
	}
	j.WaitingFor = &api.Waiting{Kind: api.WaitReboot, Detail: "it reboots now"}
}

// notRebooted is that a reboot did not come about.
func (m *Machine) notRebooted(j *Journal, a *Attempt, f Facts, why string, again time.Duration) {
	a.Reason = why
	a.RetryAt = f.Now + again.Milliseconds()
	m.finish(j, f, api.Armed)
}
