package roster

import (
	"maps"
	"time"

	"narwharf/hooks/rollout"
	"narwharf/hooks/rollout/attempt"
)

// Host is a host with what is counted of it.
type Host struct {
	Row     rollout.Host
	Level   rollout.Level
	Away    time.Time // since when it is not heard of; zero: it is
	Hash    uint64
	Class   *Class
	Counted Facet

	ch           *Channel
	index        int // in Channel.Hosts
	line         *Heap
	lineAway     bool // it stands there behind those that are heard of
	lineVersion  uint32
	timer        time.Time
	timerVersion uint32
	told         answerKey
	dirty        bool
}

// Report takes what is new of a host.
func (e *Roster) Report(l *rollout.Level) {
	h := e.Hosts[l.Host]
	if h == nil {
		h = &Host{Row: rollout.Host{V: rollout.Version, Name: l.Host}, Hash: hashName(l.Host, e.Seed)}
		e.Hosts[l.Host] = h
	}
	relabelled := !maps.Equal(h.Level.Labels, l.Labels)
	h.Level, h.Away = *l, time.Time{}
	if h.ch == nil || h.ch.Row.Name != l.Channel {
		e.move(h, l.Channel)
	} else if relabelled {
		e.uncount(h)
	}
	e.Touch(h)
}

// Seen takes whether a host is heard of.
func (e *Roster) Seen(name string, away time.Time) {
	if h := e.Hosts[name]; h != nil {
		h.Away = away
		e.Touch(h)
	}
}

// Remove forgets a host. Its place is free: whoever removes it says that it is no more.
func (e *Roster) Remove(name string) {
	h := e.Hosts[name]
	if h == nil {
		return
	}
	e.leave(h)
	e.setTimer(h, time.Time{})
	delete(e.Hosts, name)
	e.Out.Removed = append(e.Out.Removed, name)
}

// Load puts a host with its row where it was. Apply is to follow for each, when all of
// them are there.
func (e *Roster) Load(row *rollout.Host, l *rollout.Level, away time.Time) {
	h := &Host{Row: rollout.Host{V: rollout.Version, Name: l.Host}, Level: *l, Hash: hashName(l.Host, e.Seed), Away: away}
	name := l.Channel
	if row != nil {
		h.Row = *row
		name = row.Channel // it may have moved
	}
	e.Hosts[l.Host] = h
	e.join(h, e.Channel(name))
	h.Class = e.classOf(h)
	e.sized(h, 1)
	e.recount(h)
}

// Loaded makes of what a host last reported what it means, which may be news.
func (e *Roster) Loaded(h *Host) {
	if h.ch.Row.Name != h.Level.Channel {
		e.move(h, h.Level.Channel)
	}
	h.told = e.answerKey(h)
	e.Touch(h)
}

// move takes a host to the channel that it reported. What it was granted in the one
// before it does not follow any more.
func (e *Roster) move(h *Host, name string) {
	if h.ch != nil {
		e.leave(h)
		h.Row = rollout.Host{V: rollout.Version, Name: h.Row.Name, Grants: h.Row.Grants, Denied: h.Row.Denied}
		e.Changed(h)
	}
	e.join(h, e.Channel(name))
	h.told = answerKey{seq: -1} // of another channel
}

func (e *Roster) join(h *Host, c *Channel) {
	h.ch, h.index, h.Row.Channel = c, len(c.Hosts), c.Row.Name
	c.Hosts = append(c.Hosts, h)
}

func (e *Roster) leave(h *Host) {
	e.uncount(h)
	c := h.ch
	last := c.Hosts[len(c.Hosts)-1]
	c.Hosts[h.index], last.index = last, h.index
	c.Hosts = c.Hosts[:len(c.Hosts)-1]
	c.Due = true
	h.ch = nil
}

// Case is a host as its own state machine sees it.
func (e *Roster) Case(h *Host) attempt.Case {
	c := attempt.Case{Row: &h.Row, Level: &h.Level, Now: e.Now, Releases: e.Releases, Reboots: h.ch.Reboots, Newest: h.ch.Row.Newest(), Heard: e.Heard(h.ch)}
	if r := h.ch.Run; r != nil {
		c.Run, c.Release = r.Row, r.Release
	}
	return c
}

// Apply does something to a host's row, and touches the host.
func (e *Roster) Apply(h *Host, do func(*attempt.Case)) {
	e.apply(h, do)
	e.Touch(h)
}

func (e *Roster) apply(h *Host, do func(*attempt.Case)) {
	c := e.Case(h)
	do(&c)
	if c.Changed {
		e.Changed(h)
	}
	e.Out.Decisions = append(e.Out.Decisions, c.Decisions...)
}

// Touch brings up to date a host's row, by what it reported last and by the state of
// the channel's roll-out, and all that is counted of it.
func (e *Roster) Touch(h *Host) {
	if h.Class == nil {
		h.Class = e.classOf(h)
		e.sized(h, 1)
	}
	e.apply(h, (*attempt.Case).Hear)
	if h.Row.Phase == rollout.Granted || h.ch.Run != nil && h.ch.Run.Row.Revert != "" {
		e.apply(h, func(c *attempt.Case) { c.Adjust(e.grantStands(h)) })
	}
	f := e.recount(h)
	e.stand(h, e.lineOf(h, f))
	e.setTimer(h, e.nextOf(h))
	if key := e.answerKey(h); key != h.told {
		h.told = key
		e.Out.Wake = append(e.Out.Wake, h.Row.Name)
	}
}

// grantStands tells whether nothing in the channel takes a grant back.
func (e *Roster) grantStands(h *Host) bool {
	run := h.ch.Run
	if run == nil || !e.Able(h.ch) || h.Class.held || run.Row.State != rollout.Running && run.Row.State != rollout.Completed {
		return false
	}
	entry := run.Release.Entry(h.Level.Target)
	return entry == nil || !e.Quarantined(run, entry)
}

// TouchAll is Touch of all hosts of a channel, whose classes may be others now.
func (e *Roster) TouchAll(c *Channel) {
	c.Due = true
	for _, h := range c.Hosts {
		e.uncount(h)
	}
	c.byKey, c.Classes = make(map[string]*Class), nil
	for _, h := range c.Hosts {
		h.Class = e.classOf(h)
		e.sized(h, 1)
	}
	for _, h := range c.Hosts {
		e.Touch(h)
	}
}

// recount replaces what is counted of a host.
func (e *Roster) recount(h *Host) *Facet {
	if f := e.look(h); f != h.Counted {
		e.count(h, &h.Counted, -1)
		e.count(h, &f, 1)
		h.Counted = f
		h.ch.Due = true
	}
	return &h.Counted
}

// uncount takes a host out of everything that is counted, and out of its line.
func (e *Roster) uncount(h *Host) {
	e.count(h, &h.Counted, -1)
	if h.Class != nil {
		e.sized(h, -1)
	}
	h.Counted, h.Class = Facet{}, nil
	e.stand(h, nil)
}

// nextOf is when time alone changes something of a host.
func (e *Roster) nextOf(h *Host) time.Time {
	c := e.Case(h)
	at := c.Next()
	if off := e.offlineAt(h); off.After(e.Now) {
		at = Sooner(at, off)
	}
	return at
}
