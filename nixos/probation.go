package nixos

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"narwharf/hooks/api"
	"narwharf/signing"
)

// probation begins: from now on nothing counts but what is found out from now
// on.
func (m *Machine) probation(j *Journal, a *Attempt, f Facts) {
	a.BootID = f.BootID
	a.ProbationAt = f.Now
	a.Boots++
	a.Failing, a.NewFailed, a.Checks, a.Answered = nil, nil, nil, false
	a.AwayAt, a.AwayFor, a.Confirm, a.ConfirmedBy, a.Unconfirmed = 0, "", "", "", false
	m.enter(j, f, api.Probation, PhaseObserve)
}

// limits of this attempt: the server may make them longer, not shorter.
func (m *Machine) limits(j *Journal) (minimum, confirm time.Duration) {
	minimum, confirm = m.Rules.Minimum, m.Rules.ConfirmTimeout
	if d := j.Desired; d != nil {
		bounded := func(s int64) time.Duration { return time.Duration(min(max(s, 0), 3600)) * time.Second }
		minimum = max(minimum, bounded(d.Policy.ProbationMin))
		confirm = max(confirm, bounded(d.Policy.ConfirmTimeout))
	}
	return minimum, confirm
}

func (m *Machine) observed(j *Journal, a *Attempt, f Facts, ev Observed) {
	if f.Current != a.Path {
		m.drifted(j, a, f, fmt.Sprintf("the running system became %s in probation", f.Current))
		return
	}
	now := make(map[string]string) // what is wrong, and how
	if ev.Err != "" {
		now["the look at the host"] = ev.Err
	} else {
		a.NewFailed = nil
		for _, u := range sorted(ev.Failed) {
			if !slices.Contains(a.Baseline, u) {
				a.NewFailed = append(a.NewFailed, u)
				now["unit "+u] = "failed"
			}
		}
		a.Checks, a.Answered = ev.Checks, true
		for _, c := range ev.Checks {
			if c.Mode == api.Enforce && !c.OK {
				now["check "+c.Name] = c.Detail
			}
		}
	}
	failing := make(map[string]int64)
	var worst []string
	for what, how := range now {
		since, ok := a.Failing[what]
		if !ok {
			since = f.Now
		}
		failing[what] = since
		if f.Now-since >= m.Rules.Settle.Milliseconds() {
			worst = append(worst, strings.TrimSuffix(what+": "+how, ": "))
		}
	}
	a.Failing = failing
	minimum, confirm := m.limits(j)
	last := minimum + 4*m.Rules.Settle + 2*confirm + 4*m.Rules.CheckTime + time.Minute
	switch {
	case len(worst) > 0:
		m.revert(j, a, f, join(sorted(worst)))
	case f.Now-a.ProbationAt > last.Milliseconds():
		m.revert(j, a, f, fmt.Sprintf("probation did not come to an end in %s", last))
	case len(now) > 0 || f.Now-a.ProbationAt < minimum.Milliseconds():
		m.enter(j, f, api.Probation, PhaseObserve)
	default:
		m.enter(j, f, api.Probation, PhaseConfirm)
	}
}

// probed is what the new system's agent came to. Only what worked just before
// the switch can count against the new system.
func (m *Machine) probed(j *Journal, a *Attempt, f Facts, ev Probed) {
	a.ConfirmedBy = ev.By
	if ev.Outcome == ProbeOK {
		a.Confirm, a.AwayAt, a.AwayFor = a.Nonce, 0, ""
		m.pass(j, a, f)
		return
	}
	if a.AwayAt == 0 {
		a.AwayAt = f.Now
	}
	a.AwayFor = fmt.Sprintf("%s: %s", ev.Outcome, ev.Text)
	_, confirm := m.limits(j)
	switch {
	case f.Now-a.AwayAt < confirm.Milliseconds():
		m.enter(j, f, api.Probation, PhaseObserve)
	case ev.Outcome == ProbeBroken:
		m.revert(j, a, f, "the new system's agent does not work, the host would be out of reach: "+ev.Text)
	case !a.Reachable:
		a.Unconfirmed = true
		m.pass(j, a, f)
	case ev.Outcome == ProbeRefused:
		m.enter(j, f, api.Probation, PhaseOwn)
	default:
		m.enter(j, f, api.Probation, PhaseWitness)
	}
}

// asked is what the server makes of the running agent, whose token and
// configuration are those of before. The new system is to blame only where
// that one is heard: a server that has lost its tokens refuses both.
func (m *Machine) asked(j *Journal, a *Attempt, f Facts, ev Asked) {
	switch {
	case ev.OK:
		m.revert(j, a, f, "the server refuses the new system's agent, the host would be out of reach: "+a.AwayFor)
	case ev.Refused:
		a.Unconfirmed = true
		m.pass(j, a, f)
	default:
		m.enter(j, f, api.Probation, PhaseWitness)
	}
}

func (m *Machine) witnessed(j *Journal, a *Attempt, f Facts, ev Witnessed) {
	if !ev.Alive {
		_, confirm := m.limits(j)
		m.revert(j, a, f, fmt.Sprintf("the server was reachable before and is not for %s, and nothing else is (%s)", confirm, ev.Text))
		return
	}
	a.Unconfirmed = true
	m.pass(j, a, f)
}

// pass ends probation well.
func (m *Machine) pass(j *Journal, a *Attempt, f Facts) {
	m.measure(a, f, "probation", a.ProbationAt)
	switch {
	case f.Current != a.Path:
		m.drifted(j, a, f, fmt.Sprintf("the running system became %s in probation", f.Current))
	case a.Action == signing.Test:
		s := done(a, f)
		if s == api.OK {
			j.confirm(a.Path)
		}
		m.finish(j, f, s)
	default:
		m.commit(j, a, f)
	}
}

// revert leads back to the system that ran before, and keeps the entry from
// being tried again.
func (m *Machine) revert(j *Journal, a *Attempt, f Facts, why string) {
	a.Reason = why
	m.deny(j, a)
	switch {
	case a.Previous == "" || a.Previous == a.Path:
		a.Reason += "; no earlier system is known to go back to"
		m.finish(j, f, api.Failed)
	case a.ProfileTouched:
		m.enter(j, f, api.Reverting, PhaseUnprofile)
	default:
		m.unswitch(j, a, f)
	}
}

// unswitch makes the old system the running one, if it is not.
func (m *Machine) unswitch(j *Journal, a *Attempt, f Facts) {
	if !a.Activated && f.Current == a.Previous && !a.Rebooted {
		m.back(j, a, f) // nothing live was touched
		return
	}
	m.run(j, f, api.Reverting, PhaseUnswitch, "test")
}

// unswitched is the end of the old system's `switch-to-configuration test`.
func (m *Machine) unswitched(j *Journal, a *Attempt, f Facts, ev Switched) {
	clean := !ev.Lost && ev.Text == "" && (ev.Exit == exitFine || ev.Exit == exitUnitsFailed)
	switch {
	case clean && f.Current == a.Previous:
		m.back(j, a, f)
	case f.Current == a.Previous:
		a.Reason += fmt.Sprintf("; going back %s, though the old system is the running one", ended(ev))
		m.finish(j, f, api.Failed)
	default:
		a.Reason += fmt.Sprintf("; going back %s, and the running system is %s", ended(ev), f.Current)
		m.finish(j, f, api.Failed)
	}
}

// back is the end of a way back: the old system runs.
func (m *Machine) back(j *Journal, a *Attempt, f Facts) {
	switch {
	case a.BootLost:
		m.finish(j, f, api.Failed)
	case a.TestEnds:
		a.TestEnds = false
		a.Note, a.Reason = a.Reason, ""
		m.finish(j, f, api.TestOver)
	default:
		if a.Leaving {
			j.Confirmed, j.ConfirmedBefore = a.Previous, ""
		}
		m.finish(j, f, api.Reverted)
	}
}
