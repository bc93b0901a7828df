package machine

import (
	"fmt"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos/effect"
	"narwharf/nixos/journal"
)

// start is the event in which a crash, a power cut or a reboot shows. What was
// under way on this boot goes on by itself, since effects can be begun again;
// the table has what another boot makes of it. Where that led an attempt that is
// done is found out with the first poll: a host repeats its last report until then.
func start(t *turn) {
	j, a, f := t.j, t.a, t.f
	j.StartID = max(j.StartID+1, f.Wall.Unix())
	if len(j.Unsynced) > 0 && j.UnsyncedBoot != f.BootID {
		j.Suspect = journal.Set(j.Suspect, j.Unsynced)
		j.Unsynced = nil
	}
	if a == nil || a.BootID == f.BootID || a.Phase == journal.Done {
		return
	}
	a.Began = f.Now // the other boot's clock is gone
	t.follow(table[a.Phase].afterBoot(t))
}

// sameAfterBoot is for what is bound to no boot.
func sameAfterBoot(t *turn) arrow {
	t.a.BootID, t.a.RetryAt = t.f.BootID, 0
	return arrow{}
}

// prepareAgain looks at what came before the boot.
func prepareAgain(t *turn) arrow {
	sameAfterBoot(t)
	return to(journal.Prepare)
}

// bootedWhileDrained is a boot that came before the switch was begun, or at the
// beginning of a way back.
func bootedWhileDrained(t *turn) arrow {
	a := t.a
	a.BootID = t.f.BootID
	switch {
	case a.ByDirective || a.TestEnds:
		return goBackNow(t)
	case a.PostOwed:
		return holdBack(t, "the host was rebooted while it was drained", 0)
	}
	return staged()
}

func dryAgain(t *turn) arrow {
	t.a.BootID = t.f.BootID
	return runs(journal.Dry, "dry-activate")
}

// bootedOnTrial is a boot that came while a system was on trial.
func bootedOnTrial(t *turn) arrow {
	a, f := t.a, t.f
	switch {
	case a.Rebooted && f.Booted == a.Path && a.Boots < 3:
		return beginProbation(t) // on trial is that it boots; it did, again
	case a.Rebooted:
		return revert(t, fmt.Sprintf("the host rebooted %d times in probation and runs %s", a.Boots, f.Current))
	case f.Current == a.Path && f.Profile == a.Path:
		return takeAsItIs(t) // it was the boot entry's system all along
	}
	a.Reason = "the host rebooted while the system was on trial"
	t.j.Deny()
	return finish(t, api.Reverted)
}

// bootedWhileCommitted: probation is passed. The commit is finished, and its end
// says what runs.
func bootedWhileCommitted(t *turn) arrow {
	t.a.BootID, t.a.Resumed = t.f.BootID, true
	return commit(t)
}

func revertAgain(t *turn) arrow {
	t.a.BootID = t.f.BootID
	if t.a.ProfileTouched {
		return to(journal.ResetProfile)
	}
	return switchBack(t)
}

// bootedBeforePost is a boot that came when all was over but a hook.
func bootedBeforePost(t *turn) arrow {
	a := t.a
	switch {
	case a.After == api.Armed:
		a.Outcome, a.After = api.Armed, ""
		return armedAgain(t)
	case a.After == api.Testing && t.f.Current != a.Path:
		a.After = api.TestOver
	}
	a.BootID = t.f.BootID
	return arrow{}
}

// armedAgain is an armed host that was booted. It keeps the other boot's ID, by
// which bootedAtRest finds out where the boot led.
func armedAgain(t *turn) arrow {
	t.a.Phase = journal.Done
	return arrow{}
}

// bootedAtRest is a boot of a host that waited for one, or of one that does not
// outlive it.
func bootedAtRest(t *turn) arrow {
	a, f := t.a, t.f
	switch {
	case a.Outcome == api.Testing && f.Profile == a.Path && f.Current == a.Path:
		return takeAsItIs(t)
	case a.Outcome == api.Testing:
		a.Began = f.Now
		return finish(t, api.TestOver)
	case a.Outcome != api.Armed:
		a.BootID = f.BootID
		return arrow{}
	}
	a.Began = f.Now
	a.Previous = a.ProfilePath // what ran by a test before is gone with that boot
	if f.Booted == a.Path && f.Current == a.Path {
		a.Rebooted = true
		return beginProbation(t)
	}
	a.BootID = f.BootID
	return revert(t, fmt.Sprintf("after the reboot the host runs %s: the boot entry did not take, or the machine fell back", f.Current))
}

// rebootRetry is after how long a reboot that did not happen is tried again.
const rebootRetry = 10 * time.Minute

// beginReboot of an armed host.
func beginReboot(t *turn) arrow {
	a := t.a
	a.Reason, a.RetryAt = "", 0
	if t.rules.Hooks[effect.HookPreReboot] {
		a.PostOwed = true
		return reboots(journal.PreReboot)
	}
	return reboots(journal.Reboot)
}

func reboots(p journal.Phase) arrow {
	return arrow{phase: p, waiting: &api.Waiting{Kind: api.WaitReboot, Detail: "it reboots now"}}
}

// stillUp is that the reboot did not end this boot.
func stillUp(t *turn, ev effect.StillUp) arrow { return notRebooted(t, ev.Err, rebootRetry) }

// notRebooted is that a reboot did not come about.
func notRebooted(t *turn, why string, again time.Duration) arrow {
	t.a.Reason = why
	t.a.RetryAt = t.f.Now + again.Milliseconds()
	return finish(t, api.Armed)
}
