package simulate

import (
	"fmt"
	"math/rand/v2"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/rollout"
	"narwharf/hooks/rollout/engine"
	"narwharf/hooks/window"
)

const (
	channel   = "sim"
	oldSystem = "/nix/store/before"
	newSystem = "/nix/store/after"
	seq       = 1
	// longest is when a run is given up: it waits for something that does not come.
	longest = 60 * 24 * time.Hour
	// notices is how long a host takes to hear of something and to begin.
	notices = time.Second
)

// host is a simulated one. What it says follows from its state.
type host struct {
	name               string
	labels             map[string]string
	state              api.State
	fails, away, knows bool // knows: it has accepted the release
	download, switches time.Duration
}

// run is a run with its clock.
type run struct {
	s       *Setup
	e       *engine.Engine
	random  *rand.Rand
	now     time.Duration
	hosts   []host
	byName  map[string]int32
	queue   queue
	windows window.Schedule
	next    time.Time // when the engine wants to be called
	points  time.Duration
	asked   int // of which wave somebody was asked for a yes
	r       *Result
}

// Run is one run.
func Run(s *Setup, seed uint64) (*Result, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	windows, err := window.NewSchedule(s.Windows)
	if err != nil {
		return nil, err
	}
	w := &run{s: s, random: rand.New(rand.NewPCG(seed, 0)), windows: windows, r: &Result{Hosts: s.Hosts}}
	release := &rollout.Release{Seq: seq, Entries: map[string]*rollout.Entry{"*": {Path: newSystem, Closure: "sha256:0", Action: "auto"}}}
	w.e = engine.New(engine.Options{Seed: seed, Began: s.Start.Add(-24 * time.Hour), Releases: func(_ string, n int64) *rollout.Release {
		if n == seq {
			return release
		}
		return nil
	}})
	w.people()
	return w.r, w.play()
}

func (w *run) clock() time.Time { return w.s.Start.Add(w.now) }

// people makes the hosts, and tells the engine of them.
func (w *run) people() {
	w.hosts, w.byName = make([]host, w.s.Hosts), make(map[string]int32, w.s.Hosts)
	labels := w.labels()
	levels := make([]rollout.Level, 1000)
	var events []rollout.Event
	tell := func(ev rollout.Event) {
		if events = append(events, ev); len(events) == len(levels) {
			w.step(events...)
			events = events[:0]
		}
	}
	for i := range w.hosts {
		h := &w.hosts[i]
		h.name, h.labels, h.state = fmt.Sprintf("host-%07d", i+1), labels[i], api.Idle
		h.fails = w.random.Float64() < w.s.Fail || w.s.Bad != nil && w.s.Bad.Matches(h.labels)
		h.away = w.random.Float64() < w.s.Offline
		h.download, h.switches = w.s.Download.draw(w.random), w.s.Switch.draw(w.random)
		w.byName[h.name] = int32(i)
		l := &levels[len(events)]
		w.says(h, l)
		tell(rollout.Report{Level: l})
	}
	w.step(events...)
	events = events[:0]
	for i := range w.hosts {
		if h := &w.hosts[i]; h.away {
			w.r.Offline++
			tell(rollout.Seen{Host: h.name, Away: w.s.Start.Add(-12 * time.Hour)})
			if w.s.Back > 0 {
				w.queue.push(moment{time.Duration(w.random.Int64N(int64(w.s.Back))), int32(i), comes})
			}
		}
	}
	w.step(events...)
}

// labels are those of all hosts. Hosts with the same share a map.
func (w *run) labels() []map[string]string {
	n := w.s.Hosts
	which := make([]uint64, n)
	for bit, l := range w.s.Labels {
		free := w.without(which, bit)
		for _, i := range free[:min(l.Hosts.Up(n), len(free))] {
			which[i] |= 1 << bit
		}
	}
	sets, all := make(map[uint64]map[string]string), make([]map[string]string, n)
	for i, set := range which {
		if sets[set] == nil {
			sets[set] = make(map[string]string)
			for bit, l := range w.s.Labels {
				if set>>bit&1 == 1 {
					sets[set][l.Name] = l.Value
				}
			}
		}
		all[i] = sets[set]
	}
	return all
}

// without are the hosts that have no value yet of a label, mixed.
func (w *run) without(which []uint64, bit int) (free []int) {
	var others uint64 // other values of it
	for i, o := range w.s.Labels[:bit] {
		if o.Name == w.s.Labels[bit].Name {
			others |= 1 << i
		}
	}
	for i, set := range which {
		if set&others == 0 {
			free = append(free, i)
		}
	}
	w.random.Shuffle(len(free), func(i, j int) { free[i], free[j] = free[j], free[i] })
	return free
}

// says is what a host reports.
func (w *run) says(h *host, l *rollout.Level) {
	*l = rollout.Level{Host: h.name, Channel: channel, Target: "*", Labels: h.labels, State: h.state, Current: oldSystem, Profile: oldSystem, Confirmed: oldSystem}
	if h.knows {
		l.Seq, l.HighestSeq, l.Attempt = seq, seq, "1"
	}
	if h.state == api.OK {
		l.Current, l.Profile, l.Confirmed = newSystem, newSystem, newSystem
	}
}

// play promotes the release, and lets what is due happen until nothing is.
func (w *run) play() error {
	w.step(rollout.PolicySet{Channel: channel, Policy: w.s.Policy})
	w.calendar()
	w.line("promoted: %d hosts, %d of them offline", w.s.Hosts, w.r.Offline)
	out, err := w.e.Step(w.clock(), rollout.Promote{Channel: channel, Seq: seq})
	if err != nil {
		return err
	}
	w.took(out)
	for w.now < longest && !w.over() {
		x, any := w.queue.first()
		if tick := w.next.Sub(w.s.Start); !w.next.IsZero() && (!any || tick < x.at) {
			w.now = max(w.now, tick)
			w.point()
			w.step(rollout.Tick{})
			continue
		}
		if !any {
			break
		}
		w.queue.pop()
		w.now = max(w.now, x.at)
		w.point()
		w.happens(x)
	}
	w.finish()
	return nil
}

// over tells whether a run has come to its end: it is completed, or it halted and
// nobody is on the way any more.
func (w *run) over() bool {
	c := w.e.Channels[channel]
	s := c.Run.Row.State
	return s == rollout.Completed || s.Over() || s == rollout.Halted && c.Flight == 0
}

func (w *run) finish() {
	c := w.e.Channels[channel]
	row := c.Run.Row
	w.r.State, w.r.Why, w.r.Ended = string(row.State), row.Why, w.now
	if w.r.Took == 0 {
		w.r.Took = w.now
	}
	w.points = 0
	w.point()
	for i := range w.hosts {
		if w.hosts[i].state == api.OK {
			w.r.Well++
		}
	}
	w.r.Faults = c.Run.Faults
}
