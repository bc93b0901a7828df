package engine_test

import (
	"fmt"
	"maps"
	"reflect"
	"slices"

	"narwharf/hooks/api"
	"narwharf/hooks/rollout"
	"narwharf/hooks/rollout/engine"
	"narwharf/hooks/rollout/roster"
)

// invariants are held after every step.
func (m *model) invariants(out *rollout.Changes) {
	m.steps++
	if m.steps%4 == 0 {
		m.rowsAreStored()
	}
	m.wakesAreRight(out)
	m.grantsAreRight(out)
	m.wavesPassRight(out)
	m.thereComeFirst(out)
	m.agentsHavePlaces()
	for name, h := range m.e.Hosts {
		m.byRule[name] = h.Level.Confirmed == "" && h.Row.Phase == rollout.Untouched
	}
	if m.steps%16 == 0 {
		m.reloadIsTheSame()
	}
	if !out.Next.IsZero() && !out.Next.After(m.now) {
		m.rt.Fatalf("at %s the engine wants to be called at %s", m.now, out.Next)
	}
}

// What was returned to be stored is all that has changed.
func (m *model) rowsAreStored() {
	for _, c := range m.e.Order {
		if is := text(c.Row); m.chans[c.Row.Name] != is && m.chans[c.Row.Name] != "" {
			m.rt.Fatalf("the row of channel %s is\n%s, and stored is\n%s", c.Row.Name, is, m.chans[c.Row.Name])
		}
		if c.Run != nil {
			key := fmt.Sprintf("%s-%d", c.Row.Name, c.Run.Row.Seq)
			if is := text(c.Run.Row); m.runs[key] != is {
				m.rt.Fatalf("the row of roll-out %s is\n%s, and stored is\n%s", key, is, m.runs[key])
			}
		}
	}
	for name, h := range m.e.Hosts {
		if is := text(h.Row); m.hosts[name] != is && (m.hosts[name] != "" || h.Row.Phase != 0) {
			m.rt.Fatalf("the row of host %s is\n%s, and stored is\n%s", name, is, m.hosts[name])
		}
	}
}

// Who is told something else is woken; nobody is shown less than it has accepted.
func (m *model) wakesAreRight(out *rollout.Changes) {
	for _, name := range m.names {
		if m.e.Hosts[name] == nil {
			continue
		}
		is := m.e.Answer(name, m.now)
		is.Lease = 0
		was, known := m.answers[name]
		woken := slices.Contains(out.Wake, name)
		if row := m.row(name); row.Phase == rollout.Well && !row.Until.IsZero() && !m.now.Before(row.Until) {
			was.Grant = is.Grant // its lease is over, and it hears of that with its next poll
		}
		if known && is != was && !woken {
			m.rt.Fatalf("%s is told %+v after %+v, and not woken: %s", name, is, was, text(out))
		}
		m.answers[name] = is
		l := m.e.Hosts[name].Level
		if is.Seq < l.HighestSeq {
			m.rt.Fatalf("%s has accepted %d and is shown %d", name, l.HighestSeq, is.Seq)
		}
	}
}

// hostsOf are a channel's, with what is stored of them.
func (m *model) hostsOf(channel string) (hosts []*roster.Host) {
	for _, name := range sorted(m.e.Hosts) {
		if h := m.e.Hosts[name]; h.Level.Channel == channel {
			hosts = append(hosts, h)
		}
	}
	return hosts
}

// naive counts what matters to grants, from rows and levels alone.
func (m *model) naive(channel string) (flight, total int) {
	run := m.e.Channels[channel].Run
	for _, h := range m.hostsOf(channel) {
		if inFlight(h.Row.Phase) {
			flight++
		}
		entry := run.Release.Entry(h.Level.Target)
		touched := h.Row.Seq == run.Row.Seq && h.Row.Phase != rollout.Untouched
		elsewhere := false
		if entry != nil && inFlight(h.Row.Phase) && h.Row.Seq != run.Row.Seq {
			old := m.release(channel, h.Row.Seq)
			elsewhere = old == nil || old.Entry(h.Level.Target) == nil || old.Entry(h.Level.Target).Path != entry.Path
		}
		fresh := h.Level.Confirmed == "" && m.e.Channels[channel].Row.Newest() != 0 && m.e.Channels[channel].Row.Newest() >= h.Level.HighestSeq && h.Row.Phase == rollout.Untouched &&
			m.release(channel, m.e.Channels[channel].Row.Newest()).Entry(h.Level.Target) != nil
		changes := entry != nil && (h.Level.Current != entry.Path || h.Level.Profile != entry.Path)
		if touched || !fresh && (changes || elsewhere) {
			total++
		}
	}
	return flight, total
}

func (m *model) grantsAreRight(out *rollout.Changes) {
	for _, d := range out.Decisions {
		if d.Kind != "granted" && d.Kind != "revert" {
			continue
		}
		h := m.e.Hosts[d.Host]
		c := m.e.Channels[d.Channel]
		run := c.Run
		if h.Row.Seq != d.Seq {
			continue // something else has become of it since, in this step
		}
		if d.Kind == "revert" {
			if run.Row.Seq != d.Seq || run.Row.Revert == "" {
				m.rt.Fatalf("%s is to leave %d, and the roll-out is %s", d.Host, d.Seq, text(run.Row))
			}
			continue
		}
		m.grantIsRight(c, h, d)
	}
}

func (m *model) grantIsRight(c *roster.Channel, h *roster.Host, d rollout.Decision) {
	run := c.Run
	flight, total := m.naive(d.Channel)
	limit := run.Row.Policy.Concurrency(total, run.Row.Rollback)
	late := run.Row.State == rollout.Completed
	key := fmt.Sprintf("%s %d %s", d.Channel, d.Seq, d.Host)
	frozen := m.limits.Freeze != nil && m.now.Before(m.limits.Freeze.Until)
	switch {
	case h.Level.Paused, h.Level.Held:
		m.rt.Fatalf("%s is held or paused, and granted", d.Host)
	case frozen || m.closed[d.Channel]:
		m.rt.Fatalf("%s is granted in a freeze, or outside of the windows", d.Host)
	case d.Seq != run.Row.Seq:
		m.rt.Fatalf("%s is granted %d, and the roll-out is %d", d.Host, d.Seq, run.Row.Seq)
	case run.Row.State != rollout.Running && !late:
		m.rt.Fatalf("%s is granted, and the roll-out is %s: %s\n%s", d.Host, run.Row.State, text(run.Row), text(m.last.Decisions))
	case flight > limit && !late:
		m.rt.Fatalf("%d hosts are in flight after a grant, and %d may be, of %d", flight, limit, total)
	case late && flight > 1:
		m.rt.Fatalf("%d late hosts are in flight", flight)
	case !late && (h.Row.WaveOf != d.Seq || h.Row.Wave < 1 || int(h.Row.Wave) > len(run.Row.Waves)):
		m.rt.Fatalf("%s is granted, and is in no open wave", d.Host)
	case m.wasBad[key] != "" && !m.retried[fmt.Sprintf("%s %d", d.Channel, d.Seq)]:
		m.rt.Fatalf("%s ended %s with %d, and is granted it again without a retry", d.Host, m.wasBad[key], d.Seq)
	}
	m.budgetsAreKept(h)
	m.afterIsKept(c, h)
	if q := m.quarantine[run.Release.Entry(h.Level.Target).Key()]; q != "" && !run.Row.Now && !run.Row.Force {
		m.rt.Fatalf("%s is granted what is in quarantine: %s", d.Host, q)
	}
}

// thereComeFirst: who is not heard of at the moment is picked for a wave, and granted, after
// those that are.
func (m *model) thereComeFirst(out *rollout.Changes) {
	for _, d := range out.Decisions {
		c := m.e.Channels[d.Channel]
		if c == nil || c.Run == nil || c.Run.Row.Seq != d.Seq {
			continue
		}
		switch d.Kind {
		case "wave":
			m.waveIsThere(c, d.Wave)
		case "granted":
			if h := m.e.Hosts[d.Host]; !h.Away.IsZero() && h.Row.Phase == rollout.Granted && h.Row.Seq == d.Seq {
				m.nobodyIsPassedOver(c, h)
			}
		}
	}
}

// waveIsThere: a wave has hosts that are not heard of only if all others that it could take are in it.
func (m *model) waveIsThere(c *roster.Channel, wave int) {
	run, away, left := c.Run, "", ""
	spec := run.Row.Policy.All()[wave-1]
	for _, h := range m.hostsOf(c.Row.Name) {
		in := h.Row.WaveOf == run.Row.Seq && h.Row.Wave > 0
		switch {
		case in && int(h.Row.Wave) == wave && !h.Away.IsZero():
			away = h.Row.Name
		case in && int(h.Row.Wave) <= wave || !h.Away.IsZero() || h.Level.Confirmed == "" || !spec.Select.Matches(h.Level.Labels):
		case run.Release.Entry(h.Level.Target) != nil && run.Release.Entry(h.Level.Target).Changes(&h.Level):
			left = h.Row.Name
		}
	}
	if away != "" && left != "" {
		m.rt.Fatalf("wave %d of %s %d has %s, which is not heard of, and not %s, which is", wave, c.Row.Name, run.Row.Seq, away, left)
	}
}

// nobodyIsPassedOver: no host of the same wave and labels that is there waits with what h is granted.
func (m *model) nobodyIsPassedOver(c *roster.Channel, h *roster.Host) {
	for _, other := range m.hostsOf(c.Row.Name) {
		l, r, entry := &other.Level, &other.Row, c.Run.Release.Entry(other.Level.Target)
		waits := other.Away.IsZero() && r.WaveOf == h.Row.WaveOf && r.Wave == h.Row.Wave && r.Phase == rollout.Untouched && maps.Equal(l.Labels, h.Level.Labels)
		ready := entry != nil && entry.Changes(l) && l.State == api.Staged && l.Seq == c.Run.Row.Seq && l.Attempt != r.Over && l.Confirmed != "" && !l.Held && !l.Paused && !l.TooOld
		if waits && ready && m.quarantine[entry.Key()] == "" && (l.State != api.Failed) == (h.Level.State != api.Failed) {
			m.rt.Fatalf("%s is granted and not heard of, and %s waits in the same line", h.Row.Name, r.Name)
		}
	}
}

// budgetsAreKept: a new machine that began by a rule is part of no budget yet; it may
// become one in the step in which another is granted.
func (m *model) budgetsAreKept(h *roster.Host) {
	for name, b := range m.limits.Budgets {
		if !b.Select.Matches(h.Level.Labels) {
			continue
		}
		size, taken := 0, 0
		for _, other := range m.e.Hosts {
			if b.Select.Matches(other.Level.Labels) {
				size++
				if inFlight(other.Row.Phase) && !m.byRule[other.Row.Name] || other.Level.State == api.Failed {
					taken++
				}
			}
		}
		if limit := b.MaxUnavailable.Down(size); taken > limit && h.Level.State != api.Failed {
			m.rt.Fatalf("%s is granted: %d hosts of the budget %s are unavailable, and %d may be", h.Row.Name, taken, name, limit)
		}
	}
}

// afterIsKept: of those that others wait for, each in an open wave up to the host's is
// well, or need not change.
func (m *model) afterIsKept(c *roster.Channel, h *roster.Host) {
	run := c.Run
	for _, rule := range run.Row.Policy.After {
		if !rule.Then.Matches(h.Level.Labels) {
			continue
		}
		for _, other := range m.hostsOf(c.Row.Name) {
			entry := run.Release.Entry(other.Level.Target)
			if !rule.First.Matches(other.Level.Labels) || entry == nil || other.Row.WaveOf != run.Row.Seq || h.Row.WaveOf == run.Row.Seq && other.Row.Wave > h.Row.Wave {
				continue
			}
			if other.Row.Seq == run.Row.Seq && other.Row.Forgiven {
				continue // somebody said resume in spite of it
			}
			changes := other.Level.Current != entry.Path || other.Level.Profile != entry.Path
			offline := !other.Away.IsZero() && m.now.Sub(other.Away) >= run.Row.Policy.Offline() && m.now.Sub(m.began) >= run.Row.Policy.Offline()
			if changes && !(offline && rule.IfOffline == "skip") {
				m.rt.Fatalf("%s is granted, and %s has to be well before it", h.Row.Name, other.Row.Name)
			}
		}
	}
}

// wavesPassRight keeps its own clock of each wave: it knows since when enough hosts are
// well by counting them after every step.
func (m *model) wavesPassRight(out *rollout.Changes) {
	for _, d := range out.Decisions {
		if d.Kind == "well" {
			m.forget(d.Host) // a person has put it right
		}
		if d.Kind == "bad" {
			m.wasBad[fmt.Sprintf("%s %d %s", d.Channel, d.Seq, d.Host)] = d.Text
		}
		if d.Kind == "passed" {
			m.waveMayPass(d)
		}
	}
	for _, c := range m.e.Order {
		if c.Run == nil || len(c.Run.Row.Waves) == 0 {
			continue
		}
		i := len(c.Run.Row.Waves)
		key := fmt.Sprintf("%s %d %d", c.Row.Name, c.Run.Row.Seq, i)
		well := m.wellIn(c, i)
		if well == 0 {
			delete(m.met, key)
		} else if _, ok := m.met[key]; !ok {
			m.met[key] = m.now
		}
	}
}

func (m *model) wellIn(c *roster.Channel, wave int) (well int) {
	for _, h := range m.hostsOf(c.Row.Name) {
		entry := c.Run.Release.Entry(h.Level.Target)
		if entry != nil && h.Row.WaveOf == c.Run.Row.Seq && int(h.Row.Wave) == wave && h.Row.Phase == rollout.Well && h.Row.Seq == c.Run.Row.Seq {
			well++
		}
	}
	return well
}

// waveMayPass: some host was well for the bake, and each gate has said yes.
func (m *model) waveMayPass(d rollout.Decision) {
	run := m.e.Channels[d.Channel].Run
	if run.Row.Seq != d.Seq {
		return
	}
	w := run.Row.Waves[d.Wave-1]
	members := 0
	for _, h := range m.hostsOf(d.Channel) {
		if h.Row.WaveOf == d.Seq && int(h.Row.Wave) == d.Wave {
			members++
		}
	}
	if w.Skipped != "" || members == 0 {
		return
	}
	since, ok := m.met[fmt.Sprintf("%s %d %d", d.Channel, d.Seq, d.Wave)]
	if !ok {
		since = m.now
	}
	well := m.wellIn(m.e.Channels[d.Channel], d.Wave)
	spec := run.Row.Policy.All()[d.Wave-1]
	changing := false
	for _, h := range m.hostsOf(d.Channel) {
		entry := run.Release.Entry(h.Level.Target)
		if h.Level.Confirmed == "" && (h.Row.Phase == rollout.Untouched || m.byRule[h.Row.Name]) {
			continue // a new machine has leave by a rule, or had until this step
		}
		changing = changing || h.Row.WaveOf == d.Seq && int(h.Row.Wave) == d.Wave && entry != nil && (h.Level.Current != entry.Path || h.Level.Profile != entry.Path || h.Row.Seq == d.Seq && h.Row.Phase != rollout.Untouched)
	}
	switch {
	case !changing: // nobody of it has to change any more
	case well == 0:
		m.rt.Fatalf("wave %d of %s %d passed, and nobody in it is well", d.Wave, d.Channel, d.Seq)
	case m.now.Sub(since) < run.Row.Policy.Baking(d.Wave-1, run.Row.Rollback) && m.now.Sub(w.Met) < run.Row.Policy.Baking(d.Wave-1, run.Row.Rollback):
		m.rt.Fatalf("wave %d of %s %d passed before its bake was over", d.Wave, d.Channel, d.Seq)
	case spec.Approve && w.Approved == "":
		m.rt.Fatalf("wave %d of %s %d passed without anybody's yes", d.Wave, d.Channel, d.Seq)
	}
	for _, name := range spec.Checks {
		over := w.Met.Add(run.Row.Policy.Baking(d.Wave-1, run.Row.Rollback))
		if a, ok := w.Checks[name]; changing && (!ok || !a.OK || a.At.Before(w.Met) || a.Stands > 0 && a.At.Add(a.Stands).Before(over)) {
			m.rt.Fatalf("wave %d of %s %d passed without the yes of %s in its bake", d.Wave, d.Channel, d.Seq, name)
		}
	}
}

// agentsHavePlaces: who really switches now is in flight by its row, and an attempt
// activates once.
func (m *model) agentsHavePlaces() {
	for _, name := range m.names {
		a, h := m.agents[name], m.e.Hosts[name]
		if a == nil || h == nil || h.Level.Channel != a.level.Channel {
			continue
		}
		if busy(a.level.State) && !inFlight(h.Row.Phase) && a.level.Confirmed != "" {
			m.rt.Fatalf("%s is %s with %d, and holds no place: %s", name, a.level.State, a.level.Seq, text(h.Row))
		}
		if h.Row.Phase == rollout.Reverting && h.Level.State == api.Reverted && h.Level.Seq == h.Row.Seq {
			m.rt.Fatalf("%s says that it went back, and is not: %s", name, text(h.Row))
		}
		for attempt, n := range a.activated {
			if n > 1 {
				m.rt.Fatalf("the attempt %s of %s was activated %d times", attempt, name, n)
			}
		}
	}
}

// counts is all that an engine counts, and what it tells.
type counts struct {
	Channels []channelCounts
	Answers  map[string]rollout.Answer
}

type channelCounts struct {
	Flight, Stuck, Asked, Total, Faults int
	Waves                               []roster.Tally
	Pending                             [][]int
	Barred                              int
	Reverted                            map[string]int
}

func (m *model) countsOf(e *engine.Engine) (all counts) {
	all.Answers = make(map[string]rollout.Answer)
	for _, c := range e.Order {
		cc := channelCounts{Flight: c.Flight, Stuck: c.Stuck, Asked: c.Asked, Reverted: make(map[string]int)}
		if r := c.Run; r != nil {
			cc.Total, cc.Faults, cc.Waves, cc.Barred = r.Total, r.Faults, append([]roster.Tally{}, r.Waves...), e.Barred(c)
			for _, p := range r.Pending {
				cc.Pending = append(cc.Pending, append([]int{}, p...))
			}
			for k, v := range r.Reverted {
				if v != 0 {
					cc.Reverted[k] = v
				}
			}
		}
		all.Channels = append(all.Channels, cc)
	}
	for name := range e.Hosts {
		all.Answers[name] = e.Answer(name, m.now)
	}
	return all
}

// reloadIsTheSame: an engine that is loaded from what was stored counts the same, tells
// the same, and has nothing to do.
func (m *model) reloadIsTheSame() {
	e := m.reload()
	if is, want := m.countsOf(e), m.countsOf(m.e); !reflect.DeepEqual(is, want) {
		m.rt.Fatalf("loaded from its rows it counts\n%+v\nand before\n%+v", is, want)
	}
	out, err := e.Step(m.now, rollout.Tick{})
	if err != nil || len(out.Rollouts)+len(out.Channels)+len(out.Hosts)+len(out.Wake)+len(out.Decisions) > 0 {
		m.rt.Fatalf("loaded from its rows it does what it did not before: %s (%v)", text(out), err)
	}
}

// inFlight is the model's own notion of who holds a place.
func inFlight(p rollout.Phase) bool {
	return p == rollout.Granted || p == rollout.Withdrawn || p == rollout.Begun || p == rollout.Reverting
}
