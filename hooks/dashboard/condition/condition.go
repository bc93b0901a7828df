// Package condition says how a host is, in a word: the worst that is true of it.
package condition

import (
	"time"

	"narwharf/hooks/api"
)

// Condition is how a host is.
type Condition int

// The conditions, the worst first.
const (
	Failed Condition = iota
	Conflict
	Reverted
	Late // its reboot
	Drifted
	Offline
	Busy
	Armed
	Held
	Waiting
	Silent  // it never reported
	Strange // it has no part in the release
	Well
	Count // of them
)

var words = [Count]string{"failed", "two machines", "reverted", "late to reboot", "drifted", "offline", "at work", "reboot", "held", "waiting", "never reported", "not in release", "well"}

var tones = [Count]string{"bad", "bad", "bad", "bad", "warn", "warn", "busy", "warn", "", "", "", "", "good"}

// cells are the letters of rollout.CellState.
const cells = "bbbbhofahqohw"

// String is the word.
func (c Condition) String() string { return words[c] }

// Tone is the class in which it is shown: "bad", "warn", "busy", "good" or "".
func (c Condition) Tone() string { return tones[c] }

// Cell is the letter by which it is drawn.
func (c Condition) Cell() byte { return cells[c] }

// Bad tells whether somebody has to look at the host.
func (c Condition) Bad() bool { return c <= Late }

// offlineAfter is when a host that is not heard of counts as one of which somebody should know.
const offlineAfter = 10 * time.Minute

// Of is how a host is.
func Of(h *api.Host, now time.Time) Condition {
	st := h.Status
	switch {
	case len(h.Conflict) > 0:
		return Conflict
	case st == nil:
		return Silent
	}
	current := st.Seq == h.WantedSeq
	switch {
	case st.State == api.Failed || st.State == api.Rejected || st.State == api.StageFailed && current:
		return Failed
	case (st.State == api.Reverted || st.State == api.Reverting) && current:
		return Reverted
	case h.Slot != nil && h.Slot.Overdue:
		return Late
	case st.State == api.Drifted:
		return Drifted
	case !h.Online && now.Sub(h.LastSeen) > offlineAfter:
		return Offline
	case st.State == api.Draining || st.State == api.Activating || st.State == api.Probation || st.State == api.Committing || st.State == api.Verifying || st.State == api.Staging:
		return Busy
	case st.State == api.Armed || st.NeedReboot:
		return Armed
	case h.Hold != nil || st.Pause != nil:
		return Held
	case h.Converged || current && st.State.Final() && st.State != api.NotInRelease:
		return Well
	case h.Wanted == "" || st.State == api.NotInRelease:
		return Strange
	}
	return Waiting
}
