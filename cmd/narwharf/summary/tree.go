package summary

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"narwharf/hooks/promoter/follow"
	"narwharf/hooks/rollout"
	"narwharf/narinfo/clip"
)

// Tree is a roll-out as a tree: its waves, and beneath them who is on his way, who ended badly, and
// why others wait.
func Tree(s *rollout.Summary, now time.Time) (lines []string) {
	add := func(format string, args ...any) {
		lines = append(lines, clip.Line(fmt.Sprintf(format, args...), maxWords))
	}
	add("%s", head(s, now))
	if s.Why != "" {
		add("  %s", s.Why)
	}
	for i := range s.Waves {
		branch := "├"
		if i == len(s.Waves)-1 {
			branch = "└"
		}
		w := &s.Waves[i]
		text := string(w.State)
		if w.State != rollout.WaveAhead {
			text = follow.Wave(w)
		}
		add("%s %-12s %s", branch, w.Name, text)
		for _, name := range slices.Sorted(maps.Keys(w.Checks)) {
			word := "no"
			if w.Checks[name].OK {
				word = "yes"
			}
			add("│   check %s: %s %s", name, word, w.Checks[name].Detail)
		}
	}
	list := func(name string, hosts []rollout.HostLine) {
		for i, h := range hosts {
			if i > 0 {
				name = ""
			}
			text := h.Phase
			if h.Fault != "" {
				text = string(h.Fault)
				if h.Phase != rollout.Bad.String() {
					text += ", " + h.Phase
				}
			}
			add("  %-12s %s: %s", name, h.Host, text)
		}
	}
	if s.Present {
		add("  %-12s %s", "hosts", follow.Line(&rollout.Summary{Total: s.Total, Well: s.Well, InFlight: s.InFlight, Armed: s.Armed, Bad: s.Bad, Back: s.Back, Left: s.Left, Offline: s.Offline, Waits: s.Waits}))
	}
	list("on their way", s.Flight)
	list("ended badly", s.Faults)
	if s.More {
		add("  … and more hosts: narwharf hosts %s", s.Channel)
	}
	if s.Queued != 0 {
		add("  %-12s release %d", "then", s.Queued)
	}
	if next := Next(s); next != "" {
		add("  %-12s %s", "next", next)
	}
	return lines
}

// head is the line above the tree.
func head(s *rollout.Summary, now time.Time) string {
	end := now
	if !s.Ended.IsZero() {
		end = s.Ended
	}
	text := fmt.Sprintf("%s  release %d  %s", s.Channel, s.Seq, strings.ToUpper(string(s.State)))
	if !s.Created.IsZero() {
		text += "  " + end.Sub(s.Created).Truncate(time.Second).String()
	}
	for _, flag := range []struct {
		on   bool
		name string
	}{{s.Rollback, "rollback"}, {s.Now, "--now"}, {s.Force, "--force"}} {
		if flag.on {
			text += "  " + flag.name
		}
	}
	return text
}

// Next is what to type about a roll-out that waits for a person, "" if it does not.
func Next(s *rollout.Summary) string {
	switch s.State {
	case rollout.Halted:
		return fmt.Sprintf("narwharf rollout retry|resume|abort %s, or promote a fix", s.Channel)
	case rollout.Paused:
		return fmt.Sprintf("narwharf rollout resume|abort %s", s.Channel)
	case rollout.Running:
		for i := range s.Waves {
			if s.Waves[i].State == rollout.WaveApproval {
				return fmt.Sprintf("narwharf rollout advance %s --reason …", s.Channel)
			}
		}
	}
	return ""
}
