package machine

import (
	"cmp"
	"fmt"

	"narwharf/hooks/api"
	"narwharf/nixos/desired"
	"narwharf/nixos/effect"
	"narwharf/nixos/journal"
	"narwharf/nixos/probation"
	"narwharf/signing"
)

// reconcile acts on the server's last answer and the host's facts while nothing is under
// way. It is level-triggered: it says the same of the same however often it is asked.
func reconcile(t *turn) {
	j := t.j
	j.Alarm = ""
	if a := t.a; a != nil {
		a.Asked = true
		if a.Phase == journal.Done && a.BootID != t.f.BootID {
			a.DriftAt = 0 // of another clock
			armed := a.Outcome == api.Armed
			t.follow(table[journal.Done].afterBoot(t))
			if armed { // the attempt goes on
				return
			}
		}
	}
	v := desired.Judge(&t.rules.Rules, j, t.f.Wall)
	j.KeepKeys(t.rules.Channel(), v.Keys)
	switch v.Finding {
	case desired.NoneYet:
		t.declare(api.Idle, 0, nil, "")
	case desired.Excluded:
		detail := fmt.Sprintf("release %d has no entry for %q", v.Seq, t.rules.Trust.Target)
		t.declare(api.NotInRelease, v.Seq, &api.Waiting{Kind: api.WaitNotInRelease, Detail: detail}, "")
	case desired.Refused:
		t.declare(api.Rejected, v.Seq, nil, v.Why)
	case desired.Unheard, desired.Stale:
		t.rest()
	case desired.Walking: // the next poll leads farther
		j.Seen[t.rules.Channel()] = journal.Seen{Seq: v.Walked}
		j.ETag = ""
		t.rest()
	case desired.Accepted:
		t.accept(v)
	}
	if v.Alarm {
		j.Alarm = v.Why
	}
}

// accept goes on with the attempt that a release is about, or begins it, and
// obeys the server's directive about it.
func (t *turn) accept(v desired.Verdict) {
	j, a := t.j, t.a
	channel := t.rules.Channel()
	if v.Seq > j.Seen[channel].Seq {
		j.Seen[channel] = journal.Seen{Seq: v.Seq, Pointer: j.Desired.Pointer}
	}
	same := a != nil && a.Seq == v.Seq && a.Entry == v.Digest
	order := desired.OrderOf(&t.rules.Rules, j, t.f.Pause != nil)
	switch order {
	case desired.Obeyed, desired.Retry, desired.Revert:
		j.Obey(channel, j.Desired.Directive)
	}
	if order == desired.Retry {
		t.countRetry(v)
		delete(j.Denied, v.Digest)
		same = same && !obeyRetry(a)
	}
	if !same || a.DriftAt != 0 && t.f.Now-a.DriftAt >= t.rules.Drift.Milliseconds() {
		t.follow(t.begin(v))
	}
	if order == desired.Revert {
		t.follow(obeyRevert(t))
	}
	t.rest()
	explain(t, order)
}

// countRetry counts a retry that may activate, or boot, something again: nobody signed it.
func (t *turn) countRetry(v desired.Verdict) {
	_, denied := t.j.Denied[v.Digest]
	if channel := t.rules.Channel(); denied || t.a != nil && t.a.Outcome == api.Armed {
		seen := t.j.Seen[channel]
		seen.Retries++
		t.j.Seen[channel] = seen
	}
}

// obeyRetry tells whether another attempt at the same entry is to be begun. Where
// an armed host's reboot failed it is the reboot that is tried again, at once.
func obeyRetry(a *journal.Attempt) (another bool) {
	if a.Phase == journal.Done && a.Outcome == api.Armed {
		a.RetryAt, a.HookTries = 0, 0
	}
	return (a.Phase == journal.Retry || a.Phase == journal.Done) && a.Outcome != api.OK && a.Outcome != api.Armed
}

// explain says why a directive was not obeyed.
func explain(t *turn, o desired.Order) {
	j, d := t.j, t.j.Desired.Directive
	switch {
	case o == desired.Paused && j.Error == "" && j.WaitingFor == nil:
		p := t.f.Pause
		j.WaitingFor = &api.Waiting{Kind: api.WaitPaused, Detail: fmt.Sprintf("the server asks to leave release %d; paused on the host by %s: %s", d.Seq, p.By, p.Reason)}
	case Resting(t.a):
		text := o.Refusal(&t.rules.Rules, d, j.Seen[t.rules.Channel()].Directive)
		if j.Error != "" && text != "" {
			text = "; " + text
		}
		j.Error += text
	}
}

// rest says where the host stands, by the facts of this moment.
func (t *turn) rest() {
	if t.a == nil {
		t.declare(api.Idle, 0, nil, "")
		return
	}
	if look := table[t.a.Phase].atRest; look != nil {
		t.follow(look(t))
	}
	t.noteDrift()
}

// noteDrift notes since when the host is not what its entry says, where it goes back by itself.
// What did not pass here is no way back.
func (t *turn) noteDrift() {
	a := t.a
	switch {
	case t.rules.Drift == 0 || t.j.State != api.Drifted || a.Phase != journal.Done || a.Outcome == api.Reverted:
		a.DriftAt = 0
	case a.DriftAt == 0:
		a.DriftAt = t.f.Now
	}
}

// untilWhen says how long a host stays what somebody else made it.
func (t *turn) untilWhen() string {
	if t.rules.Drift > 0 {
		return fmt.Sprintf("after %s it goes back to its entry", t.rules.Drift)
	}
	return "it is left so until the next release"
}

// begin makes the attempt at an entry, and ends it at once where there is
// nothing to do.
func (t *turn) begin(v desired.Verdict) arrow {
	j, f := t.j, t.f
	a := &journal.Attempt{
		ID: attemptID(f), Nonce: f.Random[12:], Seq: v.Seq, Entry: v.Digest, Path: v.Entry.StorePath, Closure: v.Entry.Closure,
		System: v.Entry.System, Action: v.Entry.Action, Last: v.Entry.Last, Expire: v.Expires, BootID: f.BootID, Began: f.Now,
	}
	if a.Action == signing.Auto && t.rules.Auto != "" {
		a.Action = t.rules.Auto
	}
	a.NoteTransition(api.Verifying, f.Now)
	stuck := t.a != nil && t.a.Phase == journal.Done && t.a.Outcome == api.Failed
	t.a, j.Attempt, j.State = a, a, api.Verifying
	switch denied, ok := j.Denied[v.Digest]; {
	case inPlace(a, f):
		return takeAsItIs(t)
	case ok:
		a.Reason = fmt.Sprintf("this entry failed here as seq %d (%s); narwharf host retry makes the host try again", denied.Seq, denied.Reason)
		if stuck { // nothing has put right what the way back left
			return finish(t, api.Failed)
		}
		return finish(t, api.Reverted)
	}
	return to(journal.Prepare)
}

// attemptID begins with the time, so that a server can tell old from new.
func attemptID(f effect.Facts) string { return fmt.Sprintf("%09x%s", f.Wall.Unix(), f.Random[:12]) }

// inPlace tells whether the host is already what the entry asks for.
func inPlace(a *journal.Attempt, f effect.Facts) bool {
	return f.Current == a.Path && (a.Action == signing.Test || f.Profile == a.Path)
}

// takeAsItIs ends an attempt whose system the host runs without our doing: it
// was so before, or a person did it. What the attempt found out is of before.
func takeAsItIs(t *turn) arrow {
	a := t.a
	a.Findings, a.SwitchExit, a.Reason = journal.Findings{}, nil, ""
	return finish(t, runningWell(t))
}

// runningWell is the state of a host that runs the attempt's path and is well.
func runningWell(t *turn) api.State {
	if t.f.Profile != t.a.Path {
		return api.Testing
	}
	t.j.Confirm(t.a.Path)
	return api.OK
}

// outcome declares the end of an attempt anew, since the host may have been
// changed by somebody else.
func outcome(t *turn) arrow {
	a, f := t.a, t.f
	if a.Outcome != api.OK && f.Current == a.Path && f.Profile == a.Path {
		return takeAsItIs(t)
	}
	if a.TestUntil != 0 {
		probation.StopClocks(a, f, 0)
	}
	switch a.Outcome {
	case api.OK:
		if f.Current != a.Path {
			return t.changed("the running system", f.Current)
		}
		if f.Profile != a.Path {
			return t.changed("the system profile", f.Profile)
		}
	case api.Testing:
		switch {
		case f.Current != a.Path:
			return t.changed("the running system", f.Current)
		case a.TestUntil != 0 && f.Now >= a.TestUntil && f.Pause == nil:
			return endTest(t)
		}
	case api.Armed:
		if f.Profile != a.Path {
			return t.changed("the system profile", f.Profile)
		}
		if w := t.wait(desired.AdmitReboot(&t.rules.Rules, t.j, f)); w != nil {
			return t.stay(api.Armed, w, "")
		}
		return beginReboot(t)
	case api.Reverted:
		if f.Current == a.Path {
			return t.stay(api.Drifted, nil, fmt.Sprintf("somebody else switched the host to %s, which did not pass here (%s)", a.Path, a.Reason))
		}
		retry := &api.Waiting{Kind: api.WaitRetry, Detail: "the entry is not tried again until a retry, or a release with another one"}
		return t.stay(api.Reverted, retry, a.Reason)
	}
	return t.stay(a.Outcome, nil, a.Reason)
}

// changed is that something is not of the attempt's system any more.
func (t *turn) changed(what, is string) arrow {
	if is == "" {
		is = cmp.Or(t.f.ProfileFault, "none")
	}
	return t.stay(api.Drifted, nil, fmt.Sprintf("%s is %s and not %s: somebody else changed it; %s", what, is, t.a.Path, t.untilWhen()))
}
