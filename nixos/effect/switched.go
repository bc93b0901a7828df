package effect

import "fmt"

// Exit codes of switch-to-configuration; see docs/agent.md.
const (
	ExitFine        = 0
	ExitUnitsFailed = 4 // the system is switched: probation decides
	ExitReboot      = 100
)

func (ev Switched) ended() bool { return !ev.Lost && ev.Text == "" }

// Exited tells whether the run ended by itself with a code.
func (ev Switched) Exited(code int) bool { return ev.ended() && ev.Exit == code }

// SwitchedTo tells whether it switched to the system, whatever its units did.
func (ev Switched) SwitchedTo() bool { return ev.Exited(ExitFine) || ev.Exited(ExitUnitsFailed) }

// Code is the exit code, nil if the run did not end by itself.
func (ev Switched) Code() *int {
	if !ev.ended() {
		return nil
	}
	return &ev.Exit
}

// String says how the run ended.
func (ev Switched) String() string {
	switch {
	case ev.Lost:
		return "ended without a result"
	case ev.Text != "":
		return "ended with " + ev.Text
	case ev.Last != "":
		return fmt.Sprintf("exited with %d (%s)", ev.Exit, ev.Last)
	}
	return fmt.Sprintf("exited with %d", ev.Exit)
}
