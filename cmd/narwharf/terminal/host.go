package terminal

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"narwharf/hooks/api"
	"narwharf/narinfo/clip"
)

// NoInstance is how --instance names an agent that says none.
const NoInstance = "none"

// Host is for people: one line a fact, those that are not there left out.
func Host(out io.Writer, h *api.Host) {
	line := func(name, format string, args ...any) {
		if text := fmt.Sprintf(format, args...); text != "" {
			fmt.Fprintf(out, "%-11s %s\n", name, clip.Line(text, maxWords))
		}
	}
	line("host", "%s", h.Host)
	for _, text := range IdentityLines(h) {
		line("machine", "%s", text)
	}
	line("seen", "%s", seenText(h, "polls now"))
	var labels []string
	for k, v := range h.Labels {
		labels = append(labels, k+"="+v)
	}
	slices.Sort(labels)
	line("labels", "%s", strings.Join(labels, " "))
	if h.Hold != nil {
		line("held", "%s", holdText(h.Hold))
	}
	if h.Wanted != "" {
		line("wanted", "seq %d, %s", h.WantedSeq, h.Wanted)
	}
	if h.WaitingFor != nil {
		line("waiting", "%s", strings.TrimPrefix(h.WaitingFor.Text(), "waits: "))
	}
	if sl := h.Slot; sl != nil {
		overdue := ""
		if sl.Overdue {
			overdue = ", and is overdue: no end of it was reported"
		}
		line("slot", "may reboot for seq %d since %s, in a slot of the group %s%s", sl.Seq, api.TimeText(sl.Granted), sl.Group, overdue)
	}
	if h.Directive != nil {
		line("asked to", "%s seq %d%s", h.Directive.Type, h.Directive.Seq, obeyedText(h))
	}
	st := h.Status
	if st == nil {
		line("state", "never reported")
		return
	}
	line("channel", "%s, target %s", st.Channel, st.Target)
	line("state", "%s, seq %d, reported %s", st.State, st.Seq, api.TimeText(h.Reported))
	line("error", "%s", st.Error)
	line("current", "%s", st.Current)
	line("booted", "%s", st.Booted)
	line("profile", "%s", st.Profile)
	if st.NeedReboot {
		line("reboot", "needed (%s)", strings.Join(st.NeedRebootFor, ", "))
	}
	for _, ch := range st.Checks {
		word := "well"
		if !ch.OK {
			word = "not well"
		}
		line("check", "%s is %s %s", ch.Name, word, ch.Detail)
	}
	line("agent", "%s, boot %s", st.Agent, st.BootID)
}

// obeyedText says what the host made of its directive, where it counts them.
func obeyedText(h *api.Host) string {
	d, st := h.Directive, h.Status
	switch {
	case st == nil || d.Serial == 0 || st.HighestSeq != d.Seq || st.DirectiveSerial < d.Serial:
		return ""
	case st.DirectiveSerial == d.Serial:
		return ", which it has obeyed"
	}
	return ", which is older than what it has obeyed: it stays as it is; say it again if it is meant"
}

func holdText(h *api.Hold) string {
	text := h.Reason + ", by " + h.By
	if h.Until != nil {
		text += ", until " + api.TimeText(*h.Until)
	}
	return text
}

// IdentityLines say which machine a host is, and who else claims to be it.
func IdentityLines(h *api.Host) (lines []string) {
	if id := h.Identity; id != nil {
		text := instanceName(id.Instance) + ", since " + api.TimeText(id.Since)
		if id.Was != "" {
			text += ", was " + id.Was
		}
		lines = append(lines, text)
		if id.Cloned {
			lines = append(lines, "CLONED: two machines take turns with this instance")
		}
	}
	for _, c := range h.Conflict {
		lines = append(lines, fmt.Sprintf("REFUSED: %s, from %s, since %s", instanceName(c.Instance), c.Address, api.TimeText(c.Since)))
	}
	return lines
}

// identityNotes are what of it belongs in a list of hosts.
func identityNotes(h *api.Host) (notes []string) {
	if len(h.Conflict) > 0 {
		notes = append(notes, fmt.Sprintf("%d other machines claim the name (narwharf host show %s)", len(h.Conflict), h.Host))
	}
	if h.Identity != nil && h.Identity.Cloned {
		notes = append(notes, "cloned: two machines take turns")
	}
	if h.Identity != nil && h.Identity.Was != "" {
		notes = append(notes, "was "+h.Identity.Was)
	}
	return notes
}

// seenText says when a host was last heard of, or that it is there.
func seenText(h *api.Host, now string) string {
	switch {
	case h.Online:
		return now
	case h.LastSeen.IsZero():
		return "never"
	}
	return api.TimeText(h.LastSeen)
}

func instanceName(instance string) string {
	if instance == "" {
		return NoInstance
	}
	return instance
}

// Hosts is a table of hosts, one line each.
func Hosts(out io.Writer, hosts []api.Host) error {
	if len(hosts) == 0 {
		_, err := fmt.Fprintln(out, "no host has reported yet")
		return err
	}
	return Table(out, "HOST\tSEEN\tSTATE\tSEQ\tWANTED\tCURRENT\tNOTES", func(row func(...any)) {
		for _, h := range hosts {
			st := cmp.Or(h.Status, new(api.Status))
			row(h.Host, seenText(&h, "now"), StateOf(&h), st.Seq, h.WantedSeq, st.Current, strings.Join(notes(&h, st), "; "))
		}
	})
}

// notes is what else there is to say of a host.
func notes(h *api.Host, st *api.Status) []string {
	list := identityNotes(h)
	if st.NeedReboot {
		list = append(list, "needs a reboot ("+strings.Join(st.NeedRebootFor, ", ")+")")
	}
	if st.Error != "" {
		list = append(list, st.Error)
	}
	if st.Pause != nil {
		list = append(list, "paused: "+holdText(st.Pause))
	}
	if h.Hold != nil {
		list = append(list, "held: "+holdText(h.Hold))
	}
	if h.Slot != nil && h.Slot.Overdue {
		list = append(list, "its reboot is overdue: no end of it was reported")
	}
	if h.WaitingFor != nil {
		list = append(list, h.WaitingFor.Text())
	}
	return list
}

// StateOf is a host's state in words, with what keeps it there: "ok", "offline (ok)",
// "held (waiting)".
func StateOf(h *api.Host) Cell {
	state, mood := "never reported", Busy
	if st := h.Status; st != nil {
		state = string(st.State)
		switch st.State {
		case api.OK, api.Testing, api.DryRunDone:
			mood = Good
		case api.Reverted, api.Failed, api.Rejected, api.StageFailed, api.Drifted:
			if mood = Bad; h.Asked {
				mood = Plain
			}
		case api.Idle, api.NotInRelease, api.TestOver:
			mood = Plain
		}
	}
	var more []string
	if !h.Online {
		if more = append(more, "offline"); mood != Bad {
			mood = Dim
		}
	}
	if h.Hold != nil {
		more = append(more, "held")
	}
	if h.Status != nil && h.Status.Pause != nil {
		more = append(more, "paused")
	}
	if len(more) == 0 {
		return Cell{state, mood}
	}
	if mood == Good {
		mood = Busy
	}
	return Cell{fmt.Sprintf("%s (%s)", strings.Join(more, ", "), state), mood}
}

// Asks is a table of keys with which machines ask to be hosts.
func Asks(out io.Writer, asks []api.Ask) error {
	if len(asks) == 0 {
		_, err := fmt.Fprintln(out, "no machine asks to be a host")
		return err
	}
	return Table(out, "HOST\tCHANNEL\tKEY\tFROM\tSINCE\tREFUSED BY", func(row func(cells ...any)) {
		for _, a := range asks {
			row(a.Host, a.Channel, a.Key, a.Address, a.Since.UTC().Format("2006-01-02 15:04"), Unknown(a.RefusedBy))
		}
	})
}

// Asking lists the keys with which machines ask to be a host.
func Asking(h *api.Host) string {
	lines := make([]string, 0, len(h.Asks)+1)
	for _, a := range h.Asks {
		lines = append(lines, fmt.Sprintf("%s asks for %s with the key %s, from %s, since %s", a.Host, a.Channel, a.Key, a.Address, a.Since.UTC().Format("2006-01-02 15:04:05")))
	}
	return strings.Join(append(lines, "if that is the key on its console: narwharf host approve "+h.Host+" --key "+h.Asks[0].Key), "\n    ")
}
