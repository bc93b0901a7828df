package nixos

import (
	"bytes"
	"crypto/sha256"
	"fmt"

	"narwharf/hooks/api"
	"narwharf/signing"
)

// consider acts on the server's last word and the host's facts while nothing
// is under way. It is level-triggered: it says the same of the same however
// often it is asked.
func (m *Machine) consider(j *Journal, f Facts) {
	j.Alarm = ""
	if m.rebooted(j, f) {
		return
	}
	d := j.Desired
	switch {
	case d == nil:
		m.settle(j, f)
	case d.Pointer == nil && d.Seq == 0:
		j.State, j.Seq, j.WaitingFor, j.Error = api.Idle, 0, nil, ""
	case d.Pointer == nil:
		j.State, j.Seq, j.Error = api.NotInRelease, d.Seq, ""
		j.WaitingFor = &api.Waiting{Kind: api.WaitNotInRelease, Detail: fmt.Sprintf("release %d has no entry for %q", d.Seq, m.Rules.Trust.Target)}
	default:
		m.verify(j, f, d)
	}
}

// seenKey is under which Journal.Seen has what this host follows.
func (r *Rules) seenKey() string { return r.Trust.Origin + " " + r.Trust.Channel }

// verify takes or refuses a pointer.
func (m *Machine) verify(j *Journal, f Facts, d *api.Desired) {
	head, entry, err := d.Pointer.Verify(m.Rules.Trust)
	if err != nil {
		m.reject(j, d.Seq, err.Error(), false)
		return
	}
	seen := j.Seen[m.Rules.seenKey()]
	floor := max(seen.Seq, m.Rules.MinSeq)
	switch {
	case head.Seq < seen.Seq:
		// A restored backup, or a replay. What was accepted stays.
		m.settle(j, f)
		j.Alarm = fmt.Sprintf("the server shows seq %d, this host has accepted %d: the server is stale", head.Seq, seen.Seq)
		return
	case head.Seq == seen.Seq && !bytes.Equal(head0(seen.Pointer), head0(d.Pointer)):
		m.reject(j, head.Seq, fmt.Sprintf("two releases have seq %d: the promoter's key signed both, find out who used it", head.Seq), true)
		return
	case head.Seq < m.Rules.MinSeq:
		m.reject(j, head.Seq, fmt.Sprintf("seq %d is lower than min_seq %d", head.Seq, m.Rules.MinSeq), true)
		return
	case floor > 0 && head.Seq-floor > signing.MaxSeqJump:
		m.reject(j, head.Seq, fmt.Sprintf("seq %d is more than %d above %d: if that is right, set min_seq", head.Seq, signing.MaxSeqJump, floor), true)
		return
	case entry.System != m.Rules.System:
		m.reject(j, head.Seq, fmt.Sprintf("the entry is for %s, this host is %s", entry.System, m.Rules.System), false)
		return
	case entry.StoreDir() != m.Rules.StoreDir:
		m.reject(j, head.Seq, fmt.Sprintf("the entry's system is in %s, this host's store is %s", entry.StoreDir(), m.Rules.StoreDir), false)
		return
	}
	if head.Seq > seen.Seq {
		j.Seen[m.Rules.seenKey()] = Seen{Seq: head.Seq, Pointer: d.Pointer}
	}
	m.accepted(j, f, head, entry, d)
}

func head0(p *signing.Pointer) []byte {
	if p == nil || p.Head == nil {
		return nil
	}
	return p.Head.Payload
}

func (m *Machine) reject(j *Journal, seq int64, why string, alarm bool) {
	j.State, j.Seq, j.WaitingFor, j.Error = api.Rejected, seq, nil, why
	if alarm {
		j.Alarm = why
	}
}

// accepted goes on with the attempt that a pointer is about, or begins it.
func (m *Machine) accepted(j *Journal, f Facts, head *signing.Head, entry *signing.Entry, d *api.Desired) {
	digest := signing.Digest(sha256.Sum256(d.Pointer.Entry)).String()
	a := j.Attempt
	same := a != nil && a.Seq == head.Seq && a.Entry == digest
	directive := j.newDirective(d, m.Rules.seenKey(), f)
	if directive == directiveRetry {
		delete(j.Denied, digest)
		if same && a.Phase == PhaseDone && a.Outcome == api.Armed {
			a.RetryAt, a.HookTries = 0, 0 // what failed there is the reboot
		}
		if same && (a.Phase == PhaseRetry || a.Phase == PhaseDone) && a.Outcome != api.OK && a.Outcome != api.Armed {
			same = false
		}
	}
	if !same {
		m.begin(j, f, head, entry, digest)
	}
	if directive == directiveRevert {
		m.leave(j, f)
	}
	m.settle(j, f)
	if directive == directivePaused && j.Error == "" && j.WaitingFor == nil {
		j.WaitingFor = &api.Waiting{Kind: api.WaitPaused, Detail: fmt.Sprintf("the server asks to leave release %d; paused on the host by %s: %s", head.Seq, f.Pause.By, f.Pause.Reason)}
	}
	if directive == directiveOld && resting(j.Attempt) {
		text := oldText(d.Directive, j.Seen[m.Rules.seenKey()].Directive)
		if j.Error != "" {
			text = j.Error + "; " + text
		}
		j.Error = text
	}
}

// begin makes the attempt, and ends it at once where there is nothing to do.
func (m *Machine) begin(j *Journal, f Facts, head *signing.Head, entry *signing.Entry, digest string) {
	a := &Attempt{
		ID: attemptID(f), Nonce: f.Random[12:], Seq: head.Seq, Entry: digest, Path: entry.StorePath, Close: entry.Closure,
		System: entry.System, Action: entry.Action, BootID: f.BootID, Began: f.Now,
	}
	if head.Expires != nil {
		a.Expire = head.Expires.Unix()
	}
	if a.Action == signing.Auto && m.Rules.Auto != "" {
		a.Action = m.Rules.Auto
	}
	j.Attempt = a
	j.State = api.Verifying
	a.Transitions = append(a.Transitions, api.Transition{State: api.Verifying})
	switch denied, ok := j.Denied[digest]; {
	case unchanged(a, f):
		m.adopt(j, a, f)
	case ok:
		a.Reason = fmt.Sprintf("this entry failed here as seq %d (%s); narwharf host retry makes the host try again", denied.Seq, denied.Reason)
		m.finish(j, f, api.Reverted)
	default:
		m.enter(j, f, api.Staging, PhasePrepare)
	}
}

// attemptID begins with the time, so that a server can tell old from new.
func attemptID(f Facts) string { return fmt.Sprintf("%09x%s", f.Wall.Unix(), f.Random[:12]) }

// unchanged tells whether the host is already what the entry asks for.
func unchanged(a *Attempt, f Facts) bool {
	return f.Current == a.Path && (a.Action == signing.Test || f.Profile == a.Path)
}

// adopt ends an attempt whose system the host runs without our doing: it was
// so before, or a person did it. What the attempt found out is of before.
func (m *Machine) adopt(j *Journal, a *Attempt, f Facts) {
	a.Failing, a.NewFailed, a.Checks, a.SwitchExit, a.Reason = nil, nil, nil, nil, ""
	a.Confirm, a.Unconfirmed = "", false
	s := done(a, f)
	if s == api.OK {
		j.confirm(a.Path)
	}
	m.finish(j, f, s)
}

// done is the state of a host that runs the attempt's path.
func done(a *Attempt, f Facts) api.State {
	if f.Profile == a.Path {
		return api.OK
	}
	return api.Testing
}

// settle says where the attempt is, by the facts of this moment.
func (m *Machine) settle(j *Journal, f Facts) {
	a := j.Attempt
	if a == nil {
		j.State, j.Seq, j.WaitingFor, j.Error = api.Idle, 0, nil, ""
		return
	}
	switch a.Phase {
	case PhaseReady:
		m.gate(j, a, f)
	case PhaseRetry:
		j.State, j.Seq = api.StageFailed, a.Seq
		j.Error = a.Reason
		if f.Now >= a.RetryAt || a.BootID != f.BootID {
			m.enter(j, f, api.Staging, PhasePrepare)
		}
	case PhaseJitter:
		j.State, j.Seq, j.Error = api.Staging, a.Seq, ""
		if f.Now >= a.RetryAt || a.BootID != f.BootID {
			a.RetryAt = 0
			m.enter(j, f, api.Staging, PhaseRealise)
		}
	case PhaseDone:
		m.ended(j, a, f)
	}
}

// ended declares the end of an attempt anew, since the host may have been
// changed by somebody else.
func (m *Machine) ended(j *Journal, a *Attempt, f Facts) {
	if a.Outcome != api.OK && unchanged(a, f) && done(a, f) == api.OK {
		m.adopt(j, a, f)
	}
	s, why := a.Outcome, a.Reason
	var waiting *api.Waiting
	drift := func(what, is string) {
		s, why = api.Drifted, fmt.Sprintf("%s is %s and not %s: somebody else changed it; it is left so until the next release", what, is, a.Path)
	}
	switch a.Outcome {
	case api.OK:
		if f.Current != a.Path {
			drift("the running system", f.Current)
		} else if f.Profile != a.Path {
			drift("the system profile", f.Profile)
		}
	case api.Testing:
		if f.Current != a.Path {
			drift("the running system", f.Current)
		} else if a.TestUntil != 0 && f.Now >= a.TestUntil && f.Pause == nil {
			m.endTest(j, a, f)
			return
		}
	case api.Armed:
		if f.Profile != a.Path {
			drift("the system profile", f.Profile)
		} else if waiting = m.mayReboot(j, a, f); waiting == nil {
			m.reboot(j, a, f)
			return
		} else {
			why = "" // waiting has it
		}
	case api.Reverted:
		if f.Current == a.Path {
			s, why = api.Drifted, fmt.Sprintf("somebody else switched the host to %s, which did not pass here (%s)", a.Path, a.Reason)
			break
		}
		waiting = &api.Waiting{Kind: api.WaitRetry, Detail: "the entry is not tried again until a retry, or a release with another one"}
	}
	j.State, j.Seq, j.Error, j.WaitingFor = s, a.Seq, why, waiting
}

// gate holds a staged system back, or lets it go.
func (m *Machine) gate(j *Journal, a *Attempt, f Facts) {
	d := j.Desired
	wait := func(kind api.WaitKind, detail string) {
		m.enter(j, f, api.WaitingState, PhaseReady)
		j.WaitingFor = &api.Waiting{Kind: kind, Detail: detail}
	}
	switch {
	case unchanged(a, f):
		m.adopt(j, a, f)
	case a.Expire != 0 && f.Wall.Unix() >= a.Expire:
		wait(api.WaitExpired, "the release's time is over, by this host's clock")
	case f.Pause != nil:
		wait(api.WaitPaused, fmt.Sprintf("paused on the host by %s: %s", f.Pause.By, f.Pause.Reason))
	case d == nil:
		wait(api.WaitOffline, "the server has not answered since the agent started")
	case d.Hold != nil:
		wait(api.WaitHold, fmt.Sprintf("held by %s: %s", d.Hold.By, d.Hold.Reason))
	case tooOld(m.Rules.Agent, d.MinAgent) != "":
		wait(api.WaitInhibited, tooOld(m.Rules.Agent, d.MinAgent))
	case d.Grant != nil && d.Grant.Seq == a.Seq && !j.valid(d.Grant, a.Seq, f):
		j.askAnew()
		wait(api.WaitWave, "the grant's lease ran out before it was used: the server is asked again")
	case !j.valid(d.Grant, a.Seq, f):
		w := api.Waiting{Kind: api.WaitWave, Detail: "the server has not granted it"}
		if d.WaitingFor != nil {
			w = *d.WaitingFor
		}
		wait(w.Kind, w.Detail)
	case f.Now < a.RetryAt && a.BootID == f.BootID:
		wait(api.WaitInhibited, a.Reason)
	default:
		a.BootID = f.BootID
		m.enter(j, f, api.Draining, PhaseInspect)
	}
}
