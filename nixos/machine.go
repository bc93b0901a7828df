package nixos

import (
	"fmt"
	"slices"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/window"
	"narwharf/signing"
)

// Rules are what a Machine goes by; the host's own configuration makes them.
type Rules struct {
	Trust    signing.Trust
	System   string // "x86_64-linux"
	StoreDir string
	Agent    string // this agent's version
	MinSeq   int64
	Auto     signing.Action // what the action auto means here; "" is auto

	Minimum        time.Duration // probation lasts at least so long
	Settle         time.Duration // and what fails may take so long to come up
	ConfirmTimeout time.Duration
	Interval       time.Duration // between two looks
	CheckTime      time.Duration // that one round of checks may take

	Hooks        map[HookName]bool // that are configured
	Reboot       RebootAllow
	Windows      window.Schedule // for reboots; none is always
	TestDeadline time.Duration   // after which a test is over; 0: only with a boot
	Jitter       time.Duration   // of downloads, at most
}

// A Machine is the agent's state machine. It is pure: what it knows of the
// world comes with events, and what it wants goes out as effects.
type Machine struct{ Rules Rules }

// Step says what an event makes of a journal, which is not changed itself.
// An event that does not belong to the journal's phase changes nothing.
func (m *Machine) Step(old *Journal, f Facts, ev Event) *Journal {
	j := old.clone()
	switch ev := ev.(type) {
	case Started:
		m.started(j, f)
	case Polled:
		if ev.Desired != nil {
			j.Desired, j.ETag, j.DesiredAt, j.DesiredBoot = ev.Desired, ev.ETag, f.Now, f.BootID
		}
		if resting(j.Attempt) {
			if j.Attempt != nil {
				j.Attempt.Asked = true
			}
			m.consider(j, f)
		}
	default:
		if a := j.Attempt; a != nil {
			m.attempt(j, a, f, ev)
		}
	}
	return j
}

// Effect is what is due: a function of the journal alone, so that it is the
// same after a crash.
func (m *Machine) Effect(j *Journal) Effect {
	a := j.Attempt
	if a == nil {
		return Poll{ETag: j.ETag}
	}
	run := Switch{Run: Run{ID: a.RunID(), Path: a.Path, Action: a.RunAction}}
	if a.Tries > 0 {
		run.Delay = 2 * time.Second
	}
	switch a.Phase {
	case PhasePrepare:
		return Prepare{Closure: a.Close, Root: a.Path, Imported: a.Imported, Suspect: j.Suspect}
	case PhaseRealise:
		return Realise{Closure: a.Close, Root: a.Path, Imported: a.Imported}
	case PhaseInspect:
		return Inspect{Path: a.Path}
	case PhaseAnnounce:
		return Announce{}
	case PhaseSwitch, PhaseDry, PhaseBoot, PhaseCheck:
		return run
	case PhaseUnboot:
		run.Run.Path = a.ProfilePath
		return run
	case PhaseUnswitch:
		run.Run.Path = a.Previous
		return run
	case PhaseObserve:
		delay := m.Rules.Interval
		if !a.Answered {
			delay = 0
		}
		return Observe{Path: a.Path, Delay: delay}
	case PhaseConfirm:
		return Confirm{Path: a.Path, Nonce: a.Nonce}
	case PhaseOwn:
		return AskOwn{}
	case PhaseWitness:
		return Witness{}
	case PhaseProfile:
		return SetProfile{Path: a.Path, Live: !a.ByBoot && !a.Resumed}
	case PhaseUnprofile:
		return ResetProfile{Link: a.ProfileLink, Path: a.ProfilePath, Bad: a.Path}
	case PhaseKeep:
		return Keep{Path: j.Confirmed, Before: j.ConfirmedBefore}
	case PhasePre:
		return a.hook(HookPreSwitch)
	case PhasePost:
		return a.hook(HookPostSwitch)
	case PhasePreReboot:
		return a.hook(HookPreReboot)
	case PhaseReboot:
		return Reboot{}
	case PhaseReady, PhaseRetry, PhaseJitter:
		if a.Phase == PhaseReady && !a.Asked {
			// The grant may be here since before the download, or be gone by now.
			return Poll{ETag: j.ETag, Now: true}
		}
		// What keeps it may be something on the host, of which no server tells.
		return Poll{ETag: j.ETag, For: 15 * time.Second, Until: a.RetryAt}
	}
	if a.Phase == PhaseDone && a.Outcome == api.Armed && !a.Asked {
		// Nothing may be in the way of the reboot; a parked poll would be.
		return Poll{ETag: j.ETag, Now: true}
	}
	if a.TestUntil != 0 || a.Outcome == api.Armed && (len(m.Rules.Windows) > 0 || a.RetryAt != 0) {
		return Poll{ETag: j.ETag, For: 15 * time.Second} // a time comes, by this host's clock
	}
	return Poll{ETag: j.ETag}
}

// resting tells whether a poll is due, and the server's word is acted on.
func resting(a *Attempt) bool {
	if a == nil {
		return true
	}
	switch a.Phase {
	case PhaseReady, PhaseRetry, PhaseJitter, PhaseDone:
		return true
	}
	return false
}

// Settled tells whether nothing is going to happen until the server or a
// person says something new.
func (j *Journal) Settled() bool {
	return j.State != "" && (j.Attempt == nil || j.Attempt.Phase == PhaseDone)
}

// maxTransitions bounds what a host that nobody hears remembers.
const maxTransitions = 256

// enter moves an attempt to a phase and the state that people see with it.
func (m *Machine) enter(j *Journal, f Facts, s api.State, p Phase) {
	a := j.Attempt
	if j.State != s || len(a.Transitions) == 0 {
		a.Transitions = append(a.Transitions, api.Transition{State: s, After: max(f.Now-a.Began, 0)})
		over := max(len(a.Transitions)-maxTransitions, 0)
		a.Transitions = a.Transitions[over:]
		a.Forgotten += over
	}
	j.State, j.Seq, a.Phase = s, a.Seq, p
	j.WaitingFor, j.Error = nil, ""
	switch {
	case s == api.Reverting:
		j.Error = a.Reason
	case s == api.Probation && a.AwayFor != "":
		j.Error = "not confirmed yet: " + a.AwayFor
	}
}

// run enters a phase that runs switch-to-configuration, for the first time.
func (m *Machine) run(j *Journal, f Facts, s api.State, p Phase, action string) {
	m.enter(j, f, s, p)
	j.Attempt.Run++
	j.Attempt.RunAction = action
	j.Attempt.Tries = 0
	j.Attempt.noteRun(m.Effect(j))
}

// noteRun keeps the run for the log.
func (a *Attempt) noteRun(e Effect) {
	if s, ok := e.(Switch); ok {
		a.Runs = append(a.Runs, s.Run)
		a.Runs = a.Runs[max(len(a.Runs)-8, 0):]
	}
}

// finish ends the attempt, once hooks.post_switch has run where it is owed.
func (m *Machine) finish(j *Journal, f Facts, s api.State) {
	a := j.Attempt
	if a.Owed && m.Rules.Hooks[HookPostSwitch] {
		a.After, a.Phase, a.BootID = s, PhasePost, f.BootID
		return
	}
	a.Owed = false
	m.enter(j, f, s, PhaseDone)
	a.Outcome = s
	a.Tries = 0
	a.BootID = f.BootID
	m.measure(a, f, "total", a.Began)
	if s == api.Reverted || s == api.Failed || s == api.Drifted {
		j.Error = a.Reason
	}
	if a.TestUntil = 0; s == api.Testing && m.Rules.TestDeadline > 0 {
		a.TestUntil = f.Now + m.Rules.TestDeadline.Milliseconds()
	}
	if s == api.Armed {
		a.Asked = false
		j.WaitingFor = &api.Waiting{Kind: api.WaitReboot, Detail: rebootText(a.RebootFor)}
		if a.Reason != "" {
			j.WaitingFor.Detail += "; " + a.Reason
		}
	}
}

func rebootText(reasons []string) string {
	if len(reasons) == 0 {
		return "the boot entry is set"
	}
	return fmt.Sprintf("the boot entry is set; a switch is not enough for: %s", join(reasons))
}

// measure notes how long something took on this boot's clock.
func (m *Machine) measure(a *Attempt, f Facts, what string, since int64) {
	if a.BootID != f.BootID || f.Now < since {
		return
	}
	if a.Durations == nil {
		a.Durations = make(map[string]int64)
	}
	a.Durations[what] = f.Now - since
}

// confirm notes that the host is well on path.
func (j *Journal) confirm(path string) {
	if j.Confirmed != path {
		j.ConfirmedBefore, j.Confirmed = j.Confirmed, path
	}
}

func (m *Machine) deny(j *Journal, a *Attempt) {
	j.Denied[a.Entry] = Denial{Seq: a.Seq, Path: a.Path, Reason: a.Reason}
}

// sorted is a copy in order, without doubles.
func sorted(s []string) []string {
	c := slices.Clone(s)
	slices.Sort(c)
	return slices.Compact(c)
}

func join(s []string) string {
	text := ""
	for i, x := range s {
		switch {
		case i == 8:
			return text + fmt.Sprintf(" and %d more", len(s)-i)
		case i > 0:
			text += ", "
		}
		text += x
	}
	return text
}
