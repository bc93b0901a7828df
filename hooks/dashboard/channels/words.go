package channels

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"narwharf/hooks/api"
	"narwharf/hooks/rollout"
	"narwharf/narinfo/clip"
)

// gate is what a roll-out waits for now, in words with numbers, and how that looks.
func gate(s *rollout.Summary) (text, tone string) {
	why := func(text string) string {
		if s.Why != "" {
			text += ": " + s.Why
		}
		return text
	}
	switch s.State {
	case rollout.Completed:
		tone = "good"
		if s.Bad > 0 {
			tone = "warn"
		}
		return why(fmt.Sprintf("Release %d has completed: %d of %d hosts run it", s.Seq, s.Well, s.Total)), tone
	case rollout.Halted:
		return why(fmt.Sprintf("Halted at %d of %d hosts: nobody new begins", s.Well, s.Total)), "bad"
	case rollout.Aborting:
		return why("Aborting: hosts go back to what they ran before"), "bad"
	case rollout.Aborted:
		return why("Aborted"), "bad"
	case rollout.Paused:
		return why(fmt.Sprintf("Paused at %d of %d hosts: nobody new begins", s.Well, s.Total)), "warn"
	case rollout.Superseded, rollout.Queued, rollout.Planned:
		return why(map[rollout.State]string{rollout.Superseded: "Another release came before it was over", rollout.Queued: "It waits for the one before", rollout.Planned: "No wave is open yet"}[s.State]), ""
	}
	for i := len(s.Waves) - 1; i >= 0; i-- {
		w := &s.Waves[i]
		if text, tone := waveText(w); w.State != rollout.WaveAhead {
			name := fmt.Sprintf("Wave %d of %d", i+1, len(s.Waves))
			if w.Name != fmt.Sprintf("wave %d", i+1) {
				name += " (" + w.Name + ")"
			}
			if w.State == rollout.WavePassed || w.State == rollout.WaveSkipped {
				tone = "busy" // the next one opens in a moment
			}
			return name + ": " + text, tone
		}
	}
	return why("It runs"), "busy"
}

// waveText is where a wave is, and how that looks.
func waveText(w *rollout.WaveSummary) (text, tone string) {
	counts := fmt.Sprintf("%d of %d well", w.Well, w.Size)
	for _, c := range []struct {
		n    int
		word string
	}{{w.Open, "to go"}, {w.Bad, "ended badly"}, {w.Aside, "not counted"}} {
		if c.n > 0 {
			counts += fmt.Sprintf(", %d %s", c.n, c.word)
		}
	}
	switch w.State {
	case rollout.WaveAhead:
		return "not open yet", ""
	case rollout.WaveOpen:
		text, tone = counts, "busy"
	case rollout.WaveBaking:
		text, tone = counts+"; it bakes until "+w.Bakes.UTC().Format("15:04:05 UTC"), "busy"
	case rollout.WaveApproval:
		text, tone = counts+"; it waits for somebody's yes", "warn"
	case rollout.WavePassed:
		text, tone = counts, "good"
	case rollout.WaveSkipped:
		text, tone = counts+"; skipped", "warn"
	}
	if w.Bad > 0 {
		tone = "bad"
	}
	for _, said := range []string{w.Approved, w.Skipped} {
		if said != "" {
			text += " (" + said + ")"
		}
	}
	return text, tone
}

// Text is what they wait for, behind their number.
func (w waits) Text() string {
	if text := waitWords[w.Kind]; text != "" {
		return text
	}
	return "for " + string(w.Kind)
}

var waitWords = map[api.WaitKind]string{
	api.WaitWave: "for their wave", api.WaitBake: "for the bake", api.WaitWindow: "for their window", api.WaitSlot: "for a reboot slot", api.WaitBudget: "for a budget", api.WaitAfter: "for other hosts",
	api.WaitHold: "held", api.WaitPaused: "paused", api.WaitOffline: "offline", api.WaitInhibited: "inhibited on the host", api.WaitQuarantine: "since the system is in quarantine",
	api.WaitNotInRelease: "not in the release", api.WaitRetry: "for a retry", api.WaitReboot: "for a reboot", api.WaitExpired: "since the release has expired", api.WaitCheck: "for a check",
	api.WaitApproval: "for somebody's yes", api.WaitFreeze: "for the end of the freeze",
}

// cause is why hosts ended badly, and which.
type cause struct {
	Text  string
	Fault string
	Hosts []string // the first ones
	More  int
	n     int
}

const (
	mostCauses = 200 // hosts that are asked why
	namedHosts = 12  // of a cause
)

// causes groups the hosts that ended badly by what they said.
func (m *room) causes(s *shown, cells []rollout.Cell) {
	by := make(map[string]*cause)
	asked := 0
	for _, c := range cells {
		if c.State != rollout.CellBad && c.State != rollout.CellBack {
			continue
		}
		if asked++; asked > mostCauses {
			s.More++
			continue
		}
		d, err := m.Hosts.Describe(c.Host)
		if err != nil || d.Status == nil || d.Status.Seq != s.Seq() {
			d = nil
		}
		text, fault := "it has not said why", ""
		if d != nil {
			text, fault = causeOf(d.Status), string(d.Status.State)
		}
		if c.State == rollout.CellBack && (d == nil || text == "") {
			continue // it was asked to
		}
		key := fault + "\x00" + general(text)
		if by[key] == nil {
			by[key] = &cause{Text: text, Fault: fault}
		}
		k := by[key]
		if k.n++; len(k.Hosts) < namedHosts {
			k.Hosts = append(k.Hosts, c.Host)
		} else {
			k.More++
		}
	}
	for _, k := range by {
		s.Causes = append(s.Causes, *k)
	}
	slices.SortFunc(s.Causes, func(a, b cause) int { return cmp.Or(b.n-a.n, cmp.Compare(a.Text, b.Text)) })
}

// N is how many hosts it is about.
func (c *cause) N() int { return c.n }

// causeOf is why a host ended badly, in its words.
func causeOf(st *api.Status) string {
	var words []string
	for _, c := range st.Checks {
		if !c.OK && c.Mode == api.Enforce {
			words = append(words, fmt.Sprintf("the check %s failed: %s", c.Name, c.Detail))
		}
	}
	if len(st.NewFailedUnits) > 0 {
		words = append(words, "failed units: "+strings.Join(st.NewFailedUnits[:min(len(st.NewFailedUnits), 8)], ", "))
	}
	if first, _, _ := strings.Cut(strings.TrimSpace(st.Error), "\n"); first != "" && len(words) == 0 {
		words = append(words, first)
	}
	if len(words) == 0 && st.SwitchExit != nil && *st.SwitchExit != 0 {
		words = append(words, fmt.Sprintf("switch-to-configuration ended with %d", *st.SwitchExit))
	}
	return clip.Line(strings.Join(words, "; "), 300)
}

var varies = regexp.MustCompile(`[a-z0-9]{32}-|[0-9]+`)

// general is a text without what differs from host to host.
func general(text string) string { return varies.ReplaceAllString(text, "…") }
