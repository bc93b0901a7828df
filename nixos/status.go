package nixos

import (
	"reflect"
	"slices"

	"narwharf/hooks/api"
	"narwharf/nixos/effect"
	"narwharf/nixos/journal"
	"narwharf/signing"
)

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
		State: j.State, Seq: j.Seq, Current: f.Current, Booted: f.Booted, Profile: f.Profile, Confirmed: j.Confirmed,
		HighestSeq: seen.Seq, Head: seen.Pointer, DirectiveSerial: seen.Directive, NeedReboot: len(f.NeedReboot) > 0, NeedRebootFor: f.NeedReboot,
		WaitingFor: j.WaitingFor, Error: j.Error, Pause: f.Pause,
		CurrentGeneration: f.CurrentGen, BootGeneration: f.Generation, ConfigAge: f.CurrentAge,
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
	if s.Error == "" {
		s.Error = t.Note
	}
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
		s.State, s.Error = api.Drifted, "somebody else set the system profile to "+f.Profile
	}
	return s
}
