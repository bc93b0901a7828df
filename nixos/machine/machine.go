// Package machine is the agent's state machine, and pure: it imports nothing that
// reads a file, a clock or a network. Step makes of a journal and an event another
// journal; Effect says what a journal wants done.
//
// table has a row for each phase of an attempt: the state that people see, the
// effect that is due, where its event leads, what it means that the host was
// booted meanwhile, and, in a phase in which nothing is under way, what the
// host's facts come to. The functions in a row change what the attempt knows and
// return an arrow; turn.follow goes there, and nothing else does.
//
// While an attempt rests, reconcile holds what the server wants against what the
// host is. It acts on the decisions of package desired.
//
// Since the effect that is due follows from the journal alone, starting again
// after a crash needs no code of its own: the same effect is begun again.
package machine

import (
	"slices"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos/desired"
	"narwharf/nixos/effect"
	"narwharf/nixos/journal"
	"narwharf/nixos/probation"
	"narwharf/signing"
)

// Rules are what a Machine goes by; the host's own configuration makes them.
type Rules struct {
	desired.Rules
	Auto signing.Action // what the action auto means here; "" is auto

	// Specialisation is the one that live switches lead to, "" if none.
	Specialisation string
	// Drift is after how long a host that somebody else changed goes back; 0: never.
	Drift time.Duration

	Probation probation.Rules
	Interval  time.Duration // between two looks
	CheckTime time.Duration // that one round of checks may take

	Hooks        map[effect.HookName]bool // that are configured
	TestDeadline time.Duration            // after which a test is over; 0: only with a boot
	Jitter       time.Duration            // of downloads, at most
}

// A Machine is the agent's state machine, and pure: events come in, effects go out.
type Machine struct{ Rules Rules }

// Step says what an event makes of a journal: nothing, if it is none of the journal's phase.
func (m *Machine) Step(old *journal.Journal, f effect.Facts, ev effect.Event) *journal.Journal {
	j := old.Clone()
	t := &turn{rules: &m.Rules, j: j, a: j.Attempt, f: f}
	switch ev := ev.(type) {
	case effect.Started:
		start(t)
	case effect.Polled:
		j.Hear(ev.Desired, ev.ETag, f.Now, f.BootID)
		if Resting(t.a) {
			reconcile(t)
		}
	default:
		if t.a == nil || table[t.a.Phase].on == nil {
			break
		}
		if state := table[t.a.Phase].state; state == api.Probation {
			probation.StopClocks(t.a, f, m.Rules.Interval+m.Rules.CheckTime+time.Minute)
		} else if state == api.Reverting { // whose runs may be long
			probation.StopClocks(t.a, f, 0)
		}
		t.follow(table[t.a.Phase].on(t, ev))
	}
	return j
}

// Effect is what is due: a function of the journal alone, so that it is the
// same after a crash.
func (m *Machine) Effect(j *journal.Journal) effect.Effect {
	if j.Attempt == nil {
		return effect.Poll{ETag: j.ETag}
	}
	return table[j.Attempt.Phase].effect(&m.Rules, j, j.Attempt)
}

// Accepted is the highest release that the host has accepted of its channel.
func (m *Machine) Accepted(j *journal.Journal) journal.Seen { return j.Seen[m.Rules.Channel()] }

// Have is what the host knows of its channel, from where on it takes a release.
func (m *Machine) Have(j *journal.Journal) api.Have {
	return api.Have{Seq: max(m.Accepted(j).Seq, m.Rules.MinSeq), Keys: m.Rules.Ring(j).Version}
}

// Resting tells whether a poll is due, and the server's word is acted on.
func Resting(a *journal.Attempt) bool { return a == nil || table[a.Phase].atRest != nil }

// A turn is one step in the making: the journal as it becomes, and the host as
// it is.
type turn struct {
	rules *Rules
	j     *journal.Journal
	a     *journal.Attempt // of j
	f     effect.Facts
}

// An arrow leads an attempt to a phase. The zero arrow leaves it in its own.
type arrow struct {
	phase   journal.Phase
	state   api.State // that people see with it; "" is the table's
	run     string    // the action of a run of switch-to-configuration that begins with the phase
	rerun   bool      // no other phase: the run that is due is begun again under a new number
	waiting *api.Waiting
	err     string
}

func to(p journal.Phase) arrow { return arrow{phase: p} }

// runs leads to a phase that runs switch-to-configuration.
func runs(p journal.Phase, action string) arrow { return arrow{phase: p, run: action} }

func finish(t *turn, s api.State) arrow {
	return postFirst(t, arrow{phase: journal.Done, state: s})
}

// drift ends it because somebody else changed the host meanwhile.
func drift(t *turn, why string) arrow {
	t.a.Reason = why + ": somebody else did that; " + t.untilWhen()
	return finish(t, api.Drifted)
}

// follow is the one place where an attempt comes to another phase.
func (t *turn) follow(w arrow) {
	a := t.a
	switch {
	case w.rerun:
		beginRun(a)
		return
	case w.phase == "":
		return
	}
	a.Phase, a.BackTries, a.BackAt = w.phase, 0, 0
	if w.state == "" {
		w.state = table[w.phase].state
	}
	if w.state != "" {
		t.show(w)
	}
	if w.run != "" {
		a.RunAction, a.Tries = w.run, 0
		beginRun(a)
	}
	if w.phase == journal.Done {
		t.conclude(w)
	}
}

// show is the state that people see from now on.
func (t *turn) show(w arrow) {
	j, a := t.j, t.a
	if j.State != w.state || len(a.Transitions) == 0 {
		a.NoteTransition(w.state, t.f.Now)
	}
	t.declare(w.state, a.Seq, w.waiting, w.err)
	switch {
	case w.state == api.Reverting:
		j.Error = a.Reason
	case w.state == api.Probation && a.AwayFor != "":
		j.Error = "not confirmed yet: " + a.AwayFor
	}
}

// declare says what the host is, which is no transition of an attempt.
func (t *turn) declare(s api.State, seq int64, waiting *api.Waiting, err string) {
	t.j.State, t.j.Seq, t.j.WaitingFor, t.j.Error = s, seq, waiting, err
}

// stay leaves the attempt in its phase, and declares what the host is now.
func (t *turn) stay(s api.State, waiting *api.Waiting, err string) arrow {
	t.declare(s, t.a.Seq, waiting, err)
	return arrow{}
}

// conclude notes how an attempt ended.
func (t *turn) conclude(w arrow) {
	j, a, f := t.j, t.a, t.f
	a.Outcome, a.Tries, a.BootID = w.state, 0, f.BootID
	t.measure("total", a.Began)
	a.TestUntil = 0
	switch w.state {
	case api.Reverted, api.Failed, api.Drifted:
		j.Error = a.Reason
	case api.Testing:
		if t.rules.TestDeadline > 0 {
			a.TestUntil, a.LookedAt, a.Slept = f.Now+t.rules.TestDeadline.Milliseconds(), f.Now, f.Slept
		}
	case api.Armed:
		a.Asked = false
		detail := desired.RebootText(a.RebootFor)
		if a.Reason != "" {
			detail += "; " + a.Reason
		}
		j.WaitingFor = &api.Waiting{Kind: api.WaitReboot, Detail: detail}
	}
}

// beginRun gives the run that is due its number, and notes it for the log, which has the
// first two and the last six.
func beginRun(a *journal.Attempt) {
	a.Run++
	a.Runs = append(a.Runs, effect.RunOf(a))
	if len(a.Runs) > 8 {
		a.Runs = slices.Delete(a.Runs, 2, 3)
	}
}

// wait is what people see of a wait.
func (t *turn) wait(w *desired.Wait) *api.Waiting {
	if w == nil {
		return nil
	}
	if w.Anew {
		t.j.ETag = ""
	}
	return &w.Waiting
}

// measure notes how long something took, if it began on this boot's clock.
func (t *turn) measure(what string, since int64) {
	a, f := t.a, t.f
	if a.BootID != f.BootID || f.Now < since {
		return
	}
	if a.Durations == nil {
		a.Durations = make(map[string]int64)
	}
	a.Durations[what] = f.Now - since
}
