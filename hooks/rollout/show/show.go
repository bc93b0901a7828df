// Package show makes of a roll-out what its readers are shown.
package show

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/rollout"
	"narwharf/hooks/rollout/roster"
	"narwharf/narinfo/clip"
)

// OfRow is a roll-out of which the row alone is known.
func OfRow(row *rollout.Rollout) *rollout.Summary {
	if row == nil {
		return nil
	}
	s := &rollout.Summary{
		Channel: row.Channel, Seq: row.Seq, Rev: row.Rev, State: row.State, Why: row.Why, Rollback: row.Rollback, Now: row.Now,
		Force: row.Force, Created: row.Created, Ended: row.Ended, Policy: row.Policy, Waves: []rollout.WaveSummary{},
	}
	for i, spec := range row.Policy.All() {
		w := rollout.WaveSummary{Name: row.Policy.WaveText(i), State: rollout.WaveAhead, Approve: spec.Approve}
		if i < len(row.Waves) {
			ofWave(&w, row, i)
		}
		s.Waves = append(s.Waves, w)
	}
	return s
}

func ofWave(w *rollout.WaveSummary, row *rollout.Rollout, i int) {
	is := &row.Waves[i]
	w.Size, w.Opened, w.Passed, w.Approved, w.Skipped, w.Checks = is.Size, is.Opened, is.Passed, is.Approved, is.Skipped, maps.Clone(is.Checks)
	if !is.Met.IsZero() {
		w.Bakes = is.Met.Add(row.Policy.Baking(i, row.Rollback))
	}
	switch {
	case is.Skipped != "" && !is.Passed.IsZero():
		w.State = rollout.WaveSkipped
	case !is.Passed.IsZero():
		w.State = rollout.WavePassed
	case !is.Met.IsZero():
		w.State = rollout.WaveBaking
	default:
		w.State = rollout.WaveOpen
	}
}

// Of is a channel's roll-out with what is counted of it at a time; the channel has one.
func Of(c *roster.Channel, now time.Time) *rollout.Summary {
	run := c.Run
	s := OfRow(run.Row)
	s.Present, s.LastWell, s.Total, s.InFlight, s.Bad = true, c.Row.LastWell(), run.Total, c.Flight, run.Faults
	if c.Row.Queued != nil {
		s.Queued = c.Row.Queued.Seq
	}
	for i, n := range run.Waves {
		w := &s.Waves[i]
		w.Well, w.Bad, w.Open, w.Aside = n[roster.Well], n[roster.Bad], n[roster.Open], n[roster.Aside]
		if spec := run.Row.Policy.All()[i]; w.State == rollout.WaveBaking && spec.Approve && w.Approved == "" && !now.Before(w.Bakes) {
			w.State = rollout.WaveApproval
		}
	}
	for _, h := range c.Hosts {
		if h.Counted.Total && h.Counted.Away {
			s.Offline++
		}
		if h.Row.Seq != run.Row.Seq {
			continue
		}
		switch h.Row.Phase {
		case rollout.Well:
			s.Well++
		case rollout.Armed:
			s.Armed++
		case rollout.Reverting, rollout.Back:
			s.Back++
		case rollout.Left:
			s.Left++
		}
	}
	return s
}

// maxLines bounds each list of hosts.
const maxLines = 20

// Hosts adds single hosts: those that ended badly, those that are on their way, and why the
// others wait. It keeps the whole within its bound.
func Hosts(s *rollout.Summary, c *roster.Channel, why func(host string) (api.WaitKind, string)) {
	s.Waits = make(map[api.WaitKind]int)
	add := func(list *[]rollout.HostLine, h *roster.Host) {
		line := rollout.HostLine{Host: h.Row.Name, Phase: h.Row.Phase.String(), Fault: h.Row.Fault}
		if h.Row.WaveOf == s.Seq {
			line.Wave = int(h.Row.Wave)
		}
		*list = append(*list, line)
	}
	for _, h := range c.Hosts {
		of := h.Row.Seq == s.Seq
		switch {
		case of && h.Row.Fault != "":
			add(&s.Faults, h)
		case h.Row.Phase.InFlight():
			add(&s.Flight, h)
		case h.Counted.Must:
			if kind, _ := why(h.Row.Name); kind != "" {
				s.Waits[kind]++
			}
		}
	}
	for _, list := range []*[]rollout.HostLine{&s.Faults, &s.Flight} {
		slices.SortFunc(*list, func(a, b rollout.HostLine) int { return cmp.Compare(a.Host, b.Host) })
		if len(*list) > maxLines {
			*list, s.More = (*list)[:maxLines], true
		}
	}
	fit(s)
}

// maxSize bounds a summary as JSON.
const maxSize = 16 << 10

// fit leaves out what a summary can be read without, as far as it has to.
func fit(s *rollout.Summary) {
	for _, cut := range []func(){
		func() {},
		func() { s.Policy = nil },
		func() {
			for i := range s.Waves {
				for name, c := range s.Waves[i].Checks {
					c.Detail = clip.Text(c.Detail, 80)
					s.Waves[i].Checks[name] = c
				}
			}
		},
		func() {
			for i := range s.Waves {
				if s.Waves[i].State == rollout.WavePassed {
					s.Waves[i].Checks = nil
				}
			}
		},
		func() { s.Faults, s.Flight, s.More = nil, nil, true },
	} {
		cut()
		if text, err := json.Marshal(s); err == nil && len(text) <= maxSize {
			return
		}
	}
}
