package fleet

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/dashboard/frame"
)

// kind is how a host is, in a word: the worst that is true of it.
type kind int

// The kinds, the worst first.
const (
	failed kind = iota
	conflict
	reverted
	late // its reboot
	drifted
	offline
	busy
	armed
	held
	waiting
	strange // it has no part in the release, or never reported
	well
	kinds
)

var kindWords = [kinds]string{"failed", "two machines", "reverted", "late to reboot", "drifted", "offline", "at work", "reboot", "held", "waiting", "not in release", "well"}

var kindTones = [kinds]string{"bad", "bad", "bad", "bad", "warn", "warn", "busy", "warn", "", "", "", "good"}

// offlineAfter is when a host that is not heard of counts as one of which somebody should know.
const offlineAfter = 10 * time.Minute

// kindOf is how a host is.
func kindOf(h *api.Host, now time.Time) kind {
	st := h.Status
	switch {
	case len(h.Conflict) > 0:
		return conflict
	case st == nil:
		return strange
	}
	current := st.Seq == h.WantedSeq
	switch {
	case st.State == api.Failed || st.State == api.Rejected || st.State == api.StageFailed && current:
		return failed
	case (st.State == api.Reverted || st.State == api.Reverting) && current:
		return reverted
	case h.Slot != nil && h.Slot.Overdue:
		return late
	case st.State == api.Drifted:
		return drifted
	case !h.Online && now.Sub(h.LastSeen) > offlineAfter:
		return offline
	case st.State == api.Draining || st.State == api.Activating || st.State == api.Probation || st.State == api.Committing || st.State == api.Verifying || st.State == api.Staging:
		return busy
	case st.State == api.Armed || st.NeedReboot:
		return armed
	case h.Hold != nil || st.Pause != nil:
		return held
	case h.Converged || current && st.State.Final() && st.State != api.NotInRelease:
		return well
	case h.Wanted == "" || st.State == api.NotInRelease:
		return strange
	}
	return waiting
}

// line is a host in the table.
type line struct {
	*api.Host
	Channel string
	Kind    kind
}

// Word is how it is.
func (l *line) Word() string { return kindWords[l.Kind] }

// Tone is the class of Word.
func (l *line) Tone() string { return kindTones[l.Kind] }

// State is what its agent says.
func (l *line) State() api.State {
	if l.Status == nil {
		return ""
	}
	return l.Status.State
}

// Version is the name of the system that it runs.
func (l *line) Version() string {
	if l.Status == nil || l.Status.Current == "" {
		return ""
	}
	return frame.Name(l.Status.Current)
}

// Seq is the release that it is at.
func (l *line) Seq() int64 {
	if l.Status == nil {
		return 0
	}
	return l.Status.Seq
}

// Why is what it waits for, or what went wrong.
func (l *line) Why() string {
	st := l.Status
	switch {
	case len(l.Conflict) > 0:
		return fmt.Sprintf("%d other machines claim its name", len(l.Conflict))
	case st != nil && st.Error != "" && l.Kind <= reverted:
		first, _, _ := strings.Cut(st.Error, "\n")
		return first
	case l.Hold != nil:
		return "held by " + l.Hold.By + ": " + l.Hold.Reason
	case st != nil && st.Pause != nil:
		return "paused on the host: " + st.Pause.Reason
	case l.WaitingFor != nil:
		return l.WaitingFor.Text()
	case st != nil && st.NeedReboot:
		return "needs a reboot for " + strings.Join(st.NeedRebootFor, ", ")
	}
	return ""
}

// Labelled is its labels in a line.
func (l *line) Labelled() string {
	var words []string
	for k, v := range l.Labels {
		words = append(words, k+"="+v)
	}
	return strings.Join(sorted(words), " ")
}

// before orders hosts by a column.
func before(column string) func(a, b *line) int {
	name := func(a, b *line) int { return strings.Compare(a.Host.Host, b.Host.Host) }
	by := func(f func(a, b *line) int) func(a, b *line) int {
		return func(a, b *line) int { return cmp.Or(f(a, b), name(a, b)) }
	}
	switch column {
	case "host":
		return name
	case "channel":
		return by(func(a, b *line) int { return strings.Compare(a.Channel, b.Channel) })
	case "version":
		return by(func(a, b *line) int { return strings.Compare(a.Version(), b.Version()) })
	case "release":
		return by(func(a, b *line) int { return cmp.Compare(a.Seq(), b.Seq()) })
	case "seen":
		return by(func(a, b *line) int { return a.LastSeen.Compare(b.LastSeen) })
	}
	return by(func(a, b *line) int { return cmp.Or(int(a.Kind-b.Kind), a.LastSeen.Compare(b.LastSeen)) })
}
