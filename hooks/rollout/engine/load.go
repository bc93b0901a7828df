package engine

import (
	"fmt"
	"maps"
	"time"

	"narwharf/hooks/rollout"
)

// Snapshot is what an engine is loaded from: the rows, and what is known of hosts and
// people now.
type Snapshot struct {
	Now         time.Time
	Channels    []*rollout.Channel
	Rollouts    []*rollout.Rollout // at least those that Channels name
	Hosts       []*rollout.Host
	Quarantines []*rollout.Quarantine

	Levels   []*rollout.Level
	Away     map[string]time.Time // hosts that are not heard of; nil: of nobody is anything known
	Policies []rollout.PolicySet
	Closed   []string // channels whose windows are closed
	Limits   rollout.Limits
}

// Load fills an engine that New made. Nothing is decided before the first Step. A row
// that cannot be is an error: it would be a decision that nobody made.
func (e *Engine) Load(s *Snapshot) error {
	e.Now = s.Now
	for _, q := range s.Quarantines {
		e.Quarantine[q.Key()] = q
	}
	for _, p := range s.Policies {
		c := e.Channel(p.Channel)
		c.Policy, c.Reboots = p.Policy, p.Reboots
	}
	for _, name := range s.Closed {
		e.Channel(name).Closed = true
	}
	s.Limits.Holds = maps.Clone(s.Limits.Holds) // those whose time is over go
	e.SetLimits(s.Limits)
	for _, row := range s.Channels {
		e.Channel(row.Name).Row = *row
	}
	for _, row := range s.Rollouts {
		if c := e.Channel(row.Channel); c.Row.Seq == row.Seq {
			if err := checkRun(row); err != nil {
				return err
			}
			e.SetRun(c, row)
			e.wasOff(c)
		}
	}
	for _, c := range e.Order {
		if c.Row.Seq != 0 && c.Run == nil {
			return fmt.Errorf("channel %s: the row of its roll-out %d is missing", c.Row.Name, c.Row.Seq)
		}
	}
	return e.loadHosts(s)
}

func (e *Engine) loadHosts(s *Snapshot) error {
	rows := make(map[string]*rollout.Host, len(s.Hosts))
	for _, row := range s.Hosts {
		if err := checkHost(row); err != nil {
			return err
		}
		rows[row.Name] = row
	}
	for _, l := range s.Levels {
		away := e.Began
		if s.Away != nil {
			away = s.Away[l.Host]
		}
		e.Roster.Load(rows[l.Host], l, away)
	}
	for _, l := range s.Levels {
		e.Loaded(e.Hosts[l.Host])
	}
	return nil
}

// checkHost refuses a row that no engine writes.
func checkHost(r *rollout.Host) error {
	bad := func(what string) error { return fmt.Errorf("the row of host %s: %s", r.Name, what) }
	switch {
	case r.V > rollout.Version:
		return bad(fmt.Sprintf("version %d is of a newer narwharf", r.V))
	case r.Name == "" || r.Channel == "":
		return bad("it names no host or no channel")
	case r.Phase != rollout.Untouched && r.Seq == 0:
		return bad(fmt.Sprintf("it is %s, of no release", r.Phase))
	case r.Phase == rollout.Bad && r.Fault == "":
		return bad("it ended badly, and nothing says how")
	case (r.Phase == rollout.Granted || r.Phase == rollout.Withdrawn) && r.Until.IsZero():
		return bad("its grant has no end")
	case r.Wave > 0 && r.WaveOf == 0:
		return bad("it is in a wave of no roll-out")
	}
	return nil
}

func checkRun(r *rollout.Rollout) error {
	bad := func(what string) error { return fmt.Errorf("the row of release %d of %s: %s", r.Seq, r.Channel, what) }
	switch {
	case r.V > rollout.Version:
		return bad(fmt.Sprintf("version %d is of a newer narwharf", r.V))
	case r.Policy == nil:
		return bad("it has no policy")
	case len(r.Waves) > len(r.Policy.All()):
		return bad(fmt.Sprintf("%d waves were opened, and the policy has %d", len(r.Waves), len(r.Policy.All())))
	}
	for i, w := range r.Waves[:max(len(r.Waves)-1, 0)] {
		if w.Passed.IsZero() {
			return bad(fmt.Sprintf("wave %d has not passed, and the next is open", i+1))
		}
	}
	return nil
}
