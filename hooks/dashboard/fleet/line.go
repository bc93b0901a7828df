package fleet

import (
	"cmp"
	"fmt"
	"strings"

	"narwharf/hooks/api"
	"narwharf/hooks/dashboard/condition"
	"narwharf/hooks/dashboard/frame"
)

// line is a host in the table.
type line struct {
	*api.Host
	Channel string
	Kind    condition.Condition
}

// Word is how it is.
func (l *line) Word() string { return l.Kind.String() }

// Tone is the class of Word.
func (l *line) Tone() string { return l.Kind.Tone() }

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
	case st != nil && st.Error != "" && l.Kind <= condition.Reverted:
		first, _, _ := strings.Cut(st.Error, "\n")
		return first
	case l.Hold != nil:
		return "held by " + l.Hold.By + ": " + l.Hold.Reason
	case st != nil && st.Pause != nil:
		return "paused on the host: " + st.Pause.Reason
	case l.WaitingFor != nil:
		return strings.TrimPrefix(l.WaitingFor.Text(), "waits: ")
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
