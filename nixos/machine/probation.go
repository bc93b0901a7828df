package machine

import (
	"fmt"
	"time"

	"narwharf/narinfo/clip"
	"narwharf/nixos/effect"
	"narwharf/nixos/journal"
	"narwharf/nixos/probation"
	"narwharf/signing"
)

// beginProbation: nothing counts but what is found out from now on.
func beginProbation(t *turn) arrow {
	a := t.a
	a.BootID, a.ProbationAt, a.LookedAt, a.Slept = t.f.BootID, t.f.Now, t.f.Now, t.f.Slept
	a.Boots++
	a.Findings = journal.Findings{}
	return to(journal.Observe)
}

// observed is one look at units and checks.
func observed(t *turn, ev effect.Observed) arrow {
	a, f := t.a, t.f
	if f.Current != a.Path {
		return switchedInProbation(t)
	}
	bad, waits := probation.Look(&t.rules.Probation, a, f.Now, ev)
	minimum, confirm := t.rules.Limits(t.j.Desired)
	last := minimum + 4*t.rules.Probation.Settle + 2*confirm + 4*t.rules.CheckTime + time.Minute
	switch {
	case len(bad) > 0:
		return revert(t, clip.List(journal.Set(bad)))
	case f.Now-a.ProbationAt > last.Milliseconds():
		return revert(t, fmt.Sprintf("probation did not come to an end in %s", last))
	case waits || f.Now-a.ProbationAt < minimum.Milliseconds():
		return to(journal.Observe)
	}
	return to(journal.Confirm)
}

// probed is what the new system's agent came to. Only what worked just before
// the switch can count against the new system.
func probed(t *turn, ev effect.Probed) arrow {
	a, f := t.a, t.f
	a.ConfirmedBy = ev.By
	if ev.Outcome == effect.ProbeOK {
		a.Confirm, a.AwayAt, a.AwayFor = a.Nonce, 0, ""
		return pass(t)
	}
	if a.AwayAt == 0 {
		a.AwayAt = f.Now
	}
	a.AwayFor = fmt.Sprintf("%s: %s", ev.Outcome, ev.Text)
	_, confirm := t.rules.Limits(t.j.Desired)
	switch {
	case f.Now-a.AwayAt < confirm.Milliseconds():
		return to(journal.Observe)
	case ev.Outcome == effect.ProbeBroken:
		return revert(t, "the new system's agent does not work, the host would be out of reach: "+ev.Text)
	case !a.Reachable:
		return passUnconfirmed(t)
	case ev.Outcome == effect.ProbeRefused:
		return to(journal.AskOwn)
	}
	return to(journal.Witness)
}

// asked is what the server makes of the running agent, whose token and
// configuration are those of before. The new system is to blame only where
// that one is heard: a server that has lost its tokens refuses both.
func asked(t *turn, ev effect.Asked) arrow {
	switch {
	case ev.OK:
		return revert(t, "the server refuses the new system's agent, the host would be out of reach: "+t.a.AwayFor)
	case ev.Refused:
		return passUnconfirmed(t)
	}
	return to(journal.Witness)
}

// witnessed tells whether it is the host that is cut off.
func witnessed(t *turn, ev effect.Witnessed) arrow {
	if ev.Alive {
		return passUnconfirmed(t)
	}
	_, confirm := t.rules.Limits(t.j.Desired)
	return revert(t, fmt.Sprintf("the server was reachable before and is not for %s, and nothing else is (%s)", confirm, ev.Text))
}

func passUnconfirmed(t *turn) arrow {
	t.a.Unconfirmed = true
	return pass(t)
}

// pass ends probation well.
func pass(t *turn) arrow {
	a := t.a
	t.measure("probation", a.ProbationAt)
	switch {
	case t.f.Current != a.Path:
		return switchedInProbation(t)
	case a.Action == signing.Test:
		return finish(t, runningWell(t))
	}
	return commit(t)
}

func switchedInProbation(t *turn) arrow {
	return drift(t, fmt.Sprintf("the running system became %s in probation", t.f.Current))
}
