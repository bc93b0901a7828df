package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"narwharf/hooks/api"
	"narwharf/hooks/api/alarm"
	"narwharf/hooks/audit"
	"narwharf/hooks/dashboard/condition"
	"narwharf/hooks/dashboard/frame"
	"narwharf/hooks/host"
	"narwharf/hooks/rollout"
	"narwharf/hooks/rollout/driver"
	"narwharf/signing/access/scope"
)

// summary is what the overview shows.
type summary struct {
	Wrong    []wrong
	More     int // alarms that are not in Wrong
	Channels []channel
	Facts    []Fact
	Hosts    int
}

// wrong is something that somebody has to look at.
type wrong struct {
	Tag, Tone, Text, Link string
	Alarm                 *alarm.Alarm
}

// channel is one with what its hosts do.
type channel struct {
	*api.Channel
	Run   *rollout.Summary
	Hosts int
	Kinds [condition.Count]int
	// MayPause: its roll-out goes on, and who looks may stop it.
	MayPause bool
}

const mostAlarms = 50

func (m *room) overview(r *frame.Request) (*frame.Page, error) {
	var alarms struct {
		Alarms []alarm.Alarm `json:"alarms"`
	}
	var rollouts struct {
		Rollouts []rollout.Summary `json:"rollouts"`
	}
	var channels struct {
		Channels []*api.Channel `json:"channels"`
	}
	var asks struct {
		Asks []api.Ask `json:"asks"`
	}
	s := new(summary)
	for path, into := range map[string]any{"/api/v1/alarms": &alarms, "/api/v1/rollouts": &rollouts, "/api/v1/channels": &channels, "/api/v1/asks": &asks} {
		if err := r.Get(path, into); err != nil {
			return nil, err
		}
	}
	if m.health != nil {
		s.Facts = m.health(r.Context())
	}
	see := sees(r)
	for _, c := range channels.Channels {
		if see(c.Channel) && !c.Deleted {
			s.Channels = append(s.Channels, channel{Channel: c})
		}
	}
	at := func(name string) *channel {
		i, ok := slices.BinarySearchFunc(s.Channels, name, func(c channel, name string) int { return compare(c.Channel.Channel, name) })
		if !ok {
			return new(channel)
		}
		return &s.Channels[i]
	}
	now := r.Now()
	m.hosts.Glance(see, func(d *host.Described) {
		c := at(d.Channel)
		s.Hosts++
		c.Hosts++
		c.Kinds[condition.Of(&d.Host, now)]++
	})
	for i := range rollouts.Rollouts {
		at(rollouts.Rollouts[i].Channel).Run = &rollouts.Rollouts[i]
	}
	s.wrongs(alarms.Alarms)
	s.asks(asks.Asks)
	slices.SortStableFunc(s.Wrong, func(a, b wrong) int { return cmp.Compare(a.Tone, b.Tone) }) // bad, warn
	for i := range s.Channels {
		c := &s.Channels[i]
		c.MayPause = c.Run != nil && (c.Run.State == rollout.Running || c.Run.State == rollout.Planned) && r.Can(scope.Operate, c.Channel.Channel)
	}
	topics := []string{audit.Events, audit.HostsOf(""), driver.Topic("")}
	return &frame.Page{Title: "Overview", Body: "overview", Data: s, Bad: len(s.Wrong) + s.More, Fragments: []string{"overview-now", "overview-channels", "overview-server"}, Topics: topics}, nil
}

// wrongs lists what somebody has to look at, the worst first.
func (s *summary) wrongs(alarms []alarm.Alarm) {
	for _, f := range s.Facts {
		if f.Bad {
			s.Wrong = append(s.Wrong, wrong{Tag: f.Name, Tone: "bad", Text: f.Text})
		}
	}
	for i := range s.Channels {
		c := &s.Channels[i]
		link := "/ui/channels/" + c.Channel.Channel
		if run := c.Run; run != nil && (run.State == rollout.Halted || run.State == rollout.Aborting) {
			s.Wrong = append(s.Wrong, wrong{Tag: string(run.State), Tone: "bad", Text: strings.TrimSuffix(fmt.Sprintf("%s, release %d: %s", run.Channel, run.Seq, run.Why), ": "), Link: link})
		} else if run != nil && (run.State == rollout.Paused || asksYes(run)) {
			tag := "approval"
			if run.State == rollout.Paused {
				tag = string(run.State)
			}
			s.Wrong = append(s.Wrong, wrong{Tag: tag, Tone: "warn", Text: strings.TrimSuffix(fmt.Sprintf("%s, release %d waits for a person: %s", run.Channel, run.Seq, run.Why), ": "), Link: link})
		}
		for k := condition.Failed; k <= condition.Drifted; k++ {
			if n := c.Kinds[k]; n > 0 {
				s.Wrong = append(s.Wrong, wrong{Tag: k.String(), Tone: k.Tone(), Text: fmt.Sprintf("%s: %d of %d hosts", c.Channel.Channel, n, c.Hosts), Link: c.those(k)})
			}
		}
	}
	for i := range alarms {
		if i == mostAlarms {
			s.More = len(alarms) - i
			break
		}
		a := &alarms[i]
		if run := s.runOf(a.Channel); strings.HasPrefix(a.Kind, "rollout.") && run != nil && run.State == rollout.Halted && run.Seq == a.Seq {
			continue // it stands above
		}
		w := wrong{Tag: a.Kind, Tone: "bad", Text: a.Text, Link: fmt.Sprintf("/ui/alarms#alarm-%d", a.ID), Alarm: a}
		if a.Taken != nil {
			w.Tone = "warn"
		}
		s.Wrong = append(s.Wrong, w)
	}
}

// asks says that machines ask to be hosts.
func (s *summary) asks(list []api.Ask) {
	n := 0
	for i := range list {
		if list[i].RefusedBy == "" {
			n++
		}
	}
	text := fmt.Sprintf("%d machines ask to be hosts by their SSH keys", n)
	if n == 1 {
		text = "1 machine asks to be a host by its SSH key"
	}
	if n > 0 {
		s.Wrong = append(s.Wrong, wrong{Tag: "asks", Tone: "warn", Text: text, Link: "/ui/asks"})
	}
}

// runOf is the roll-out of a channel, nil if none is known.
func (s *summary) runOf(name string) *rollout.Summary {
	for i := range s.Channels {
		if s.Channels[i].Channel.Channel == name {
			return s.Channels[i].Run
		}
	}
	return nil
}

// Tone is how the worst of it looks.
func (s *summary) Tone() string {
	if s.More > 0 || slices.ContainsFunc(s.Wrong, func(w wrong) bool { return w.Tone == "bad" }) {
		return "bad"
	}
	return "warn"
}

// asksYes tells whether a roll-out waits for somebody's yes.
func asksYes(s *rollout.Summary) bool {
	return slices.ContainsFunc(s.Waves, func(w rollout.WaveSummary) bool { return w.State == rollout.WaveApproval })
}

// Counts are the hosts of a channel by how they are.
func (c *channel) Counts() (list []choice) {
	for k, n := range c.Kinds {
		if k := condition.Condition(k); n > 0 {
			list = append(list, choice{Word: k.String(), N: n, Tone: k.Tone(), Link: c.those(k)})
		}
	}
	return list
}

// those is where its hosts are listed that are in a condition.
func (c *channel) those(k condition.Condition) string {
	return fmt.Sprintf("/ui/hosts?channel=%s&state=%s", c.Channel.Channel, query(k.String()))
}

// Tone is the class of its roll-out's state.
func (c *channel) Tone() string {
	switch c.Run.State {
	case rollout.Completed:
		return "good"
	case rollout.Halted, rollout.Aborting, rollout.Aborted:
		return "bad"
	case rollout.Paused:
		return "warn"
	}
	return "busy"
}

// Parts are the widths of the bar of its roll-out, of 100.
func (c *channel) Parts() (list []part) {
	total := max(c.Run.Total, 1)
	at := 0.0
	for _, p := range []part{{Class: "w", Width: float64(c.Run.Well)}, {Class: "a", Width: float64(c.Run.Armed)}, {Class: "f", Width: float64(c.Run.InFlight)}, {Class: "b", Width: float64(c.Run.Bad)}} {
		p.Width, p.At = min(p.Width*100/float64(total), 100-at), at
		if at += p.Width; p.Width > 0 {
			list = append(list, p)
		}
	}
	return list
}

// part is a piece of a bar.
type part struct {
	Class     string
	At, Width float64
}
