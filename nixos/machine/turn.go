package machine

import (
	"narwharf/hooks/api"
	"narwharf/nixos/desired"
	"narwharf/nixos/effect"
	"narwharf/nixos/journal"
)

// A turn is one step in the making: the journal as it becomes, and the host as
// it is.
type turn struct {
	rules *Rules
	j     *journal.Journal
	a     *journal.Attempt // of j
	f     effect.Facts
}

func (m *Machine) turn(j *journal.Journal, f effect.Facts) *turn {
	return &turn{rules: &m.Rules, j: j, a: j.Attempt, f: f}
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

// finish ends the attempt.
func finish(t *turn, s api.State) arrow {
	return postFirst(t, arrow{phase: journal.Done, state: s})
}

// drift ends it because somebody else changed the host meanwhile.
func drift(t *turn, why string) arrow {
	t.a.Reason = why + ": somebody else did that; it is left so until the next release"
	return finish(t, api.Drifted)
}

// follow is the one place where an attempt comes to another phase.
func (t *turn) follow(w arrow) {
	a := t.a
	switch {
	case w.rerun:
		a.Run++
		t.noteRun()
		return
	case w.phase == "":
		return
	}
	a.Phase = w.phase
	if w.state == "" {
		w.state = table[w.phase].state
	}
	if w.state != "" {
		t.show(w)
	}
	if w.run != "" {
		a.Run, a.RunAction, a.Tries = a.Run+1, w.run, 0
		t.noteRun()
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
			a.TestUntil = f.Now + t.rules.TestDeadline.Milliseconds()
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

func (t *turn) noteRun() {
	if s, ok := table[t.a.Phase].effect(t.rules, t.j).(effect.Switch); ok {
		t.a.NoteRun(s.Run)
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

// measure notes how long something took on this boot's clock.
func (t *turn) measure(what string, since int64) {
	t.a.Measure(what, since, t.f.Now, t.f.BootID)
}
