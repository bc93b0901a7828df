package simulate

import (
	"fmt"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/rollout"
	"narwharf/hooks/rollout/roster"
)

// what is it that happens to a host, or to all of them.
type what uint8

const (
	comes    what = iota // a host that was away
	has                  // it has fetched the release
	begins               // it drains, and switches
	ends                 // it is well, or back by itself
	leaves               // it has gone back because it was told to
	calendar             // a window opens or closes
	says                 // somebody says yes to a wave
)

// moment is when something happens to a host.
type moment struct {
	at   time.Duration
	host int32
	what what
}

// queue is moments in their order.
type queue []moment

func (q *queue) push(x moment) {
	*q = append(*q, x)
	s := *q
	for i := len(s) - 1; i > 0; {
		up := (i - 1) / 2
		if s[up].at <= s[i].at {
			break
		}
		s[i], s[up] = s[up], s[i]
		i = up
	}
}

func (q queue) first() (moment, bool) {
	if len(q) == 0 {
		return moment{}, false
	}
	return q[0], true
}

func (q *queue) pop() {
	s := *q
	n := len(s) - 1
	s[0] = s[n]
	s = s[:n]
	for i := 0; ; {
		low := 2*i + 1
		if low >= n {
			break
		}
		if low+1 < n && s[low+1].at < s[low].at {
			low++
		}
		if s[i].at <= s[low].at {
			break
		}
		s[i], s[low] = s[low], s[i]
		i = low
	}
	*q = s
}

// after lets something happen to a host in a while.
func (w *run) after(d time.Duration, i int32, what what) { w.queue.push(moment{w.now + d, i, what}) }

// happens is what a host does, or a person.
func (w *run) happens(x moment) {
	switch x.what {
	case calendar:
		w.calendar()
		return
	case says:
		row := w.e.Channels[channel].Run.Row
		w.line("somebody says yes to %s", row.Policy.WaveText(int(x.host)))
		w.step(rollout.Verb{Channel: channel, Seq: seq, Verb: rollout.Advance, By: "somebody"})
		return
	}
	h := &w.hosts[x.host]
	switch x.what {
	case comes:
		h.away = false
	case has:
		h.state, h.knows = api.Staged, true
	case begins:
		if a := w.e.Answer(h.name, w.clock()); a.Grant == "" || h.state != api.Staged {
			return // it was taken back meanwhile
		}
		h.state = api.Activating
		w.r.Exposed++
		w.after(h.switches, x.host, ends)
	case ends:
		if h.state = api.OK; h.fails {
			h.state = api.Reverted
		}
	case leaves:
		h.state = api.Reverted
	}
	var l rollout.Level
	w.says(h, &l)
	w.step(rollout.Report{Level: &l})
	w.hear(x.host)
}

// hear is that a host reads what it is told.
func (w *run) hear(i int32) {
	h := &w.hosts[i]
	if h.away {
		return
	}
	a := w.e.Answer(h.name, w.clock())
	switch {
	case a.Seq == 0:
	case !h.knows && h.state == api.Idle:
		h.state = api.Staging
		w.after(notices+h.download, i, has)
	case a.Grant != "" && h.state == api.Staged:
		w.after(w.soon(), i, begins)
	case a.Directive == "revert" && h.state == api.OK:
		h.state = api.Reverting
		w.after(w.soon()+h.switches, i, leaves)
	}
}

// soon is within a second.
func (w *run) soon() time.Duration { return time.Duration(w.random.Int64N(int64(notices))) }

// step tells the engine, and wakes whom it wakes.
func (w *run) step(events ...rollout.Event) {
	out, err := w.e.Step(w.clock(), events...)
	if err != nil {
		w.line("refused: %v", err)
	}
	w.took(out)
}

// took is what comes of a step.
func (w *run) took(out *rollout.Changes) {
	w.r.Steps++
	w.next = out.Next
	c := w.e.Channels[channel]
	if c == nil || c.Run == nil {
		return
	}
	w.r.MaxFlight = max(w.r.MaxFlight, c.Flight)
	for _, d := range out.Decisions {
		w.decided(c, d)
	}
	for _, name := range out.Wake {
		w.hear(w.byName[name])
	}
	w.approval(c)
}

func (w *run) decided(c *roster.Channel, d rollout.Decision) {
	if d.Host != "" {
		return
	}
	switch text := d.Text; d.Kind {
	case "wave":
		w.line("wave %d opens – %s", d.Wave, text)
	case "passed":
		w.line("wave %d has passed: %d hosts are well, %d ended badly", d.Wave, w.well(c), c.Run.Faults)
	case string(rollout.Running), string(rollout.Planned):
	default:
		if d.Kind == string(rollout.Halted) || d.Kind == string(rollout.Completed) {
			w.r.Took = w.now
		}
		if text != "" {
			text = ": " + text
		}
		w.line("%s%s", d.Kind, text)
	}
}

// well is how many hosts of all waves are.
func (w *run) well(c *roster.Channel) (n int) {
	for _, t := range c.Run.Waves {
		n += t[roster.Well]
	}
	return n
}

// approval lets somebody come who says yes to a wave that is to be approved.
func (w *run) approval(c *roster.Channel) {
	row := c.Run.Row
	i := len(row.Waves) - 1
	if i < 0 || w.asked > i || row.State != rollout.Running || row.Waves[i].Met.IsZero() || !row.Policy.All()[i].Approve {
		w.answers(c)
		return
	}
	w.asked = i + 1
	w.after(row.Policy.Baking(i, false)+w.s.Approve, int32(i), says)
	w.answers(c)
}

// answers is the yes of all checks of a bake.
func (w *run) answers(c *roster.Channel) {
	names, wave, since := w.e.Asks(channel)
	if wave == 0 {
		return
	}
	have := c.Run.Row.Waves[wave-1].Checks
	for _, name := range names {
		if _, ok := have[name]; !ok {
			w.step(rollout.Checked{Channel: channel, Seq: seq, Wave: wave, Name: name, Asked: since, OK: true})
			return // which answers the next
		}
	}
}

// calendar tells the engine whether a window is open, and comes again.
func (w *run) calendar() {
	open, next := w.windows.State(w.clock())
	if len(w.windows) == 0 {
		return
	}
	if open {
		w.line("a window opens")
	} else {
		w.line("no window is open")
	}
	w.step(rollout.Window{Channel: channel, Open: open})
	if !next.IsZero() {
		w.queue.push(moment{next.Sub(w.s.Start), 0, calendar})
	}
}

func (w *run) line(format string, args ...any) {
	w.r.Lines = append(w.r.Lines, Line{w.now, fmt.Sprintf(format, args...)})
}

// point notes where the run is, each of its minutes, and fewer the longer it is.
func (w *run) point() {
	if w.now < w.points {
		return
	}
	w.points = w.now + max(time.Minute, w.now/100)
	c := w.e.Channels[channel]
	w.r.Points = append(w.r.Points, Point{At: w.now, Wave: len(c.Run.Row.Waves), Flight: c.Flight, Well: w.well(c), Faults: c.Run.Faults})
}
