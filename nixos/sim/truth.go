package sim

import (
	"fmt"
	"slices"

	"narwharf/hooks/api"
	"narwharf/signing"
)

// handedOver holds a status against what is.
func (w *World) handedOver(s *api.Status) {
	w.Statuses = append(w.Statuses, s)
	bad := func(format string, args ...any) {
		w.violated("status %s of seq %d: %s", s.State, s.Seq, fmt.Sprintf(format, args...))
	}
	if s.Current != w.Current || s.Booted != w.Booted || s.Profile != w.Profile() || s.BootID != fmt.Sprintf("boot-%d", w.Boot) {
		bad("it says current %s booted %s profile %s %s; true is %s %s %s boot-%d", s.Current, s.Booted, s.Profile, s.BootID, w.Current, w.Booted, w.Profile(), w.Boot)
	}
	if s.StartID < w.lastStart || (s.StartID == w.lastStart && s.Counter <= w.lastCounter) {
		bad("(%d, %d) comes after (%d, %d)", s.StartID, s.Counter, w.lastStart, w.lastCounter)
	}
	w.lastStart, w.lastCounter = s.StartID, s.Counter
	if s.HighestSeq < w.highest {
		bad("the highest seq fell from %d to %d", w.highest, s.HighestSeq)
	}
	w.highest = s.HighestSeq
	if why := Nonsense(s); why != "" {
		bad("%s", why)
	}
}

// Nonsense says what a status says that cannot be, "" if nothing.
func Nonsense(s *api.Status) string {
	test := s.Action == string(signing.Test)
	enforced := slices.ContainsFunc(s.Checks, func(c api.Check) bool { return c.Mode == api.Enforce && !c.OK })
	words := []api.State{api.Rejected, api.Failed, api.Drifted, api.Reverted, api.StageFailed}
	switch {
	case !slices.Contains(api.States, s.State):
		return fmt.Sprintf("%q is no state", s.State)
	case s.State == api.OK && s.Current != s.Wanted:
		return "ok, and runs another system"
	case s.State == api.OK && !test && s.Profile != s.Wanted:
		return "ok, and boots another system"
	case s.State == api.OK && (len(s.NewFailedUnits) > 0 || enforced):
		return "ok, with units or checks that failed"
	case s.State == api.OK && s.Error != "" && s.WaitingFor != nil:
		return "ok, and waits"
	case s.State == api.Testing && s.Current != s.Wanted:
		return "testing what does not run"
	case s.State == api.Probation && s.Current != s.Wanted:
		return "on probation is what does not run"
	case s.State == api.Reverted && s.Wanted != "" && s.Current == s.Wanted:
		return "reverted, and runs it"
	case s.State == api.TestOver && s.Current == s.Wanted && s.Profile == s.Wanted:
		return "the test is over, and runs"
	case s.State == api.Armed && s.Profile != s.Wanted:
		return "armed, and boots another system"
	case s.State == api.WaitingState && s.WaitingFor == nil:
		return "waiting for nothing"
	case slices.Contains(words, s.State) && s.Error == "":
		return "it ended badly, and has no words for it"
	case s.Confirm != "" && s.Unconfirmed:
		return "both confirmed and not"
	}
	return ""
}
