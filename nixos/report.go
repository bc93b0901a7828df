package nixos

import (
	"cmp"
	"context"
	"reflect"
	"slices"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos/desired"
	"narwharf/nixos/effect"
	"narwharf/nixos/journal"
	"narwharf/nixos/machine"
	"narwharf/signing"
)

// repeatAfter is when a host at rest repeats a report that says nothing new: a server that
// was restored from a backup may have forgotten it.
const repeatAfter = time.Hour

// keepAlive is the same while something is under way. The host does not poll then, and the
// server takes one that it has not heard of for 90 s for gone.
const keepAlive = 30 * time.Second

// whileReporting does work that may take long and that asks nothing of the agent, and
// reports meanwhile that the host is there.
func (a *Agent) whileReporting(ctx context.Context, work func() effect.Event) effect.Event {
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(keepAlive)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if f, err := a.facts(ctx); err == nil {
					a.reported = nil
					a.report(ctx, f)
				}
			case <-over:
				return
			}
		}
	}()
	defer func() {
		close(over)
		<-ended
	}()
	return work()
}

// report hands the status over if it is another than before.
func (a *Agent) report(ctx context.Context, f effect.Facts) {
	s := a.status(f)
	repeat := repeatAfter
	if !machine.Resting(a.journal.Attempt) {
		repeat = keepAlive
	}
	if a.reported != nil && sameStatus(a.reported, s) && f.Now-a.reportedAt < repeat.Milliseconds() {
		return
	}
	a.reportedAt = f.Now
	a.number(s)
	a.reported = s
	a.Host.Report(ctx, s)
	if a.Observe != nil {
		a.Observe(s, a.journal)
	}
}

// reportNow finds out whether the server can be reached now, so that nobody
// blames the new system if it cannot.
func (a *Agent) reportNow(ctx context.Context) error {
	f, err := a.facts(ctx)
	if err != nil {
		return err
	}
	s := a.status(f)
	a.number(s)
	err = a.Host.ReportNow(ctx, s)
	if err == nil {
		a.reported = s
	}
	return err
}

// A sentReport is how many transitions of an attempt the server knows once it has taken the
// report with that counter.
type sentReport struct {
	counter int64
	attempt string
	upTo    int
}

// number gives a report its place among those of this start.
func (a *Agent) number(s *api.Status) {
	a.counter++
	s.Counter = a.counter
	r := sentReport{counter: a.counter, attempt: s.Attempt}
	if t := a.journal.Attempt; t != nil && t.ID == s.Attempt {
		r.upTo = t.Forgotten + len(t.Transitions)
	}
	a.sent = append(a.sent, r)
	a.sent = a.sent[max(len(a.sent)-journal.MaxTransitions, 0):]
}

// unacknowledged are the transitions that the server may not know. A new process does not
// know what the server has, and sends them again.
func (a *Agent) unacknowledged(t *journal.Attempt) []api.Transition {
	taken := a.Host.Delivered()
	for len(a.sent) > 0 && a.sent[0].counter <= taken {
		a.acknowledged, a.sent = a.sent[0], a.sent[1:]
	}
	if a.acknowledged.attempt != t.ID {
		return slices.Clone(t.Transitions)
	}
	return slices.Clone(t.Transitions[min(max(a.acknowledged.upTo-t.Forgotten, 0), len(t.Transitions)):])
}

// sameStatus compares all but what changes by itself.
func sameStatus(a, b *api.Status) bool {
	x, y := *a, *b
	x.Counter, y.Counter = 0, 0
	x.ConfigAge, y.ConfigAge = 0, 0
	x.Transitions, y.Transitions = nil, nil // a new one shows in the state; fewer were acknowledged
	x.Checks, y.Checks = untimed(a.Checks), untimed(b.Checks)
	return reflect.DeepEqual(x, y)
}

func untimed(checks []api.Check) []api.Check {
	c := slices.Clone(checks)
	for i := range c {
		c[i].Duration = 0
	}
	return c
}

// status is the whole truth, by the facts of this moment.
func (a *Agent) status(f effect.Facts) *api.Status {
	j, r := a.journal, a.Machine.Rules
	seen := a.Machine.Accepted(j)
	s := &api.Status{
		Agent: a.Version, StartID: j.StartID,
		Channel: r.Trust.Channel, Target: r.Trust.Target, System: r.System, BootID: f.BootID,
		State: j.State, Seq: j.Seq, Current: f.Current, Specialisation: f.Specialisation, Booted: cmp.Or(f.BootedTo, f.Booted), Profile: f.Profile, Confirmed: j.Confirmed,
		HighestSeq: seen.Seq, KeysVersion: a.Machine.Have(j).Keys, Head: seen.Pointer, DirectiveSerial: seen.Directive, LetGo: j.HasLetGo(), NeedReboot: len(f.NeedReboot) > 0, NeedRebootFor: f.NeedReboot,
		WaitingFor: j.WaitingFor, Error: j.Error, Pause: f.Pause,
		CurrentGeneration: f.CurrentGen, BootGeneration: f.Generation, ConfigAge: f.CurrentAge,
	}
	if o := r.Directives; o != "" {
		s.Directives = &api.Directives{Obey: string(o), RetriesLeft: max(0, r.Retries-seen.Retries)}
		if o == desired.ObeyNever {
			s.Directives.RetriesLeft = 0
		}
	}
	if j.Alarm != "" {
		s.Error = j.Alarm
	}
	if a.saveError != "" {
		s.Error = "no step further: " + a.saveError
	}
	t := j.Attempt
	if t == nil || t.Seq != j.Seq {
		return s
	}
	s.Attempt, s.Entry, s.Action, s.Wanted, s.Previous = t.ID, t.Entry, string(t.Action), t.Path, t.Previous
	s.SwitchExit, s.NewFailedUnits, s.Checks = t.SwitchExit, t.NewFailed, t.Checks
	s.Confirm, s.Unconfirmed, s.Differs = t.Confirm, t.Unconfirmed, t.Differs
	s.Durations, s.Fetched, s.Transitions = t.Durations, t.Fetched, a.unacknowledged(t)
	s.Error = cmp.Or(s.Error, t.Note, f.ProfileFault)
	if s.State == api.Armed {
		s.NeedReboot = true
		s.NeedRebootFor = journal.Set(f.NeedReboot, t.RebootFor)
	}
	switch wrong := f.Current != t.Path; {
	case s.State == api.Testing && wrong, s.State == api.OK && wrong, s.State == api.Probation && wrong, s.State == api.Reverted && !wrong, s.State == api.TestOver && !wrong && f.Profile == t.Path:
		// It changed since the last event; the next one will find that, too.
		s.State, s.Error, s.WaitingFor = api.Drifted, "somebody else switched the host to "+f.Current, nil
	case s.State == api.OK && t.Action != signing.Test && f.Profile != t.Path, s.State == api.Armed && f.Profile != t.Path:
		s.WaitingFor = nil
		s.State, s.Error = api.Drifted, "somebody else set the system profile to "+cmp.Or(f.Profile, f.ProfileFault)
	}
	return s
}
