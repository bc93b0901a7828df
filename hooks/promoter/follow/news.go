package follow

import (
	"fmt"

	"narwharf/hooks/rollout"
)

// News says of each roll-out that it is shown what is another than before, a line for each.
type News struct {
	state rollout.State
	waves map[string]string
	hosts map[string]string
}

// Of are the lines.
func (n *News) Of(s *rollout.Summary) (lines []string) {
	if n.waves == nil {
		n.waves, n.hosts = make(map[string]string), make(map[string]string)
	}
	if s.State != n.state {
		line := string(s.State)
		if s.Why != "" {
			line += ": " + s.Why
		}
		lines, n.state = append(lines, line), s.State
	}
	for i := range s.Waves {
		w := &s.Waves[i]
		if w.State == rollout.WaveAhead {
			continue
		}
		if text := Wave(w); n.waves[w.Name] != text {
			n.waves[w.Name] = text
			lines = append(lines, w.Name+": "+text)
		}
	}
	for _, list := range [][]rollout.HostLine{s.Flight, s.Faults} {
		for _, h := range list {
			text := h.Phase
			if h.Fault != "" {
				text = string(h.Fault)
			}
			if n.hosts[h.Host] != text {
				n.hosts[h.Host] = text
				lines = append(lines, h.Host+": "+text)
			}
		}
	}
	return lines
}

// Wave is a wave in a few words.
func Wave(w *rollout.WaveSummary) string {
	text := fmt.Sprintf("%s, %d of %d well", w.State, w.Well, w.Size)
	if w.State == rollout.WaveOpen && w.Open > 0 {
		text += fmt.Sprintf(", %d to go", w.Open)
	}
	if w.Bad > 0 {
		text += fmt.Sprintf(", %d bad", w.Bad)
	}
	if w.Aside > 0 {
		text += fmt.Sprintf(", %d aside", w.Aside)
	}
	switch w.State {
	case rollout.WaveBaking:
		text += " until " + w.Bakes.Local().Format("15:04:05")
	case rollout.WaveApproval:
		text += ": it waits for narwharf rollout advance"
	}
	for _, said := range []string{w.Approved, w.Skipped} {
		if said != "" {
			text += " (" + said + ")"
		}
	}
	return text
}
