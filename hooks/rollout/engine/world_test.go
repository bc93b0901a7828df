package engine_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/rollout"
	"narwharf/hooks/rollout/engine"
	"narwharf/hooks/rollout/policy"
)

var start = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// failer is what tests and rapid's checks share.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// world is an engine, what its driver has stored, and agents that do as agents do.
type world struct {
	t        failer
	e        *engine.Engine
	now      time.Time
	began    time.Time // the driver
	releases map[string]map[int64]*rollout.Release
	agents   map[string]*agent
	names    []string
	policies map[string]rollout.PolicySet
	closed   map[string]bool
	limits   rollout.Limits

	// What the driver keeps, as text.
	hosts, runs, chans, quarantine map[string]string

	last      *rollout.Changes
	after     func(*rollout.Changes) // what has to hold after each step
	decisions []rollout.Decision     // all of them
	woken     []string               // and all hosts that were woken
}

func newWorld(t failer) *world {
	w := &world{
		t: t, now: start, began: start, releases: make(map[string]map[int64]*rollout.Release), agents: make(map[string]*agent), policies: make(map[string]rollout.PolicySet),
		closed: make(map[string]bool), hosts: make(map[string]string), runs: make(map[string]string), chans: make(map[string]string), quarantine: make(map[string]string),
	}
	w.e = w.newEngine()
	return w
}

func (w *world) release(channel string, seq int64) *rollout.Release { return w.releases[channel][seq] }

// must is for events that the engine has to take.
func (w *world) must(events ...rollout.Event) *rollout.Changes {
	w.t.Helper()
	out, err := w.step(events...)
	if err != nil {
		w.t.Fatalf("%T: %v", events[0], err)
	}
	return out
}

// step is a step of the engine whose changes are stored.
func (w *world) step(events ...rollout.Event) (*rollout.Changes, error) {
	out, err := w.e.Step(w.now, events...)
	w.store(out)
	w.last = out
	w.decisions = append(w.decisions, out.Decisions...)
	w.woken = append(w.woken, out.Wake...)
	if w.after != nil {
		w.after(out)
	}
	return out, err
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func (w *world) store(out *rollout.Changes) {
	for _, h := range out.Hosts {
		w.hosts[h.Name] = text(h)
	}
	for _, name := range out.Removed {
		delete(w.hosts, name)
	}
	for _, r := range out.Rollouts {
		w.runs[fmt.Sprintf("%s-%d", r.Channel, r.Seq)] = text(r)
	}
	for _, c := range out.Channels {
		w.chans[c.Name] = text(c)
	}
	for _, q := range out.Quarantines {
		if w.quarantine[q.Key()] = text(q); q.Cleared {
			delete(w.quarantine, q.Key())
		}
	}
}

func rowsOf[T any](texts map[string]string) (rows []*T) {
	for _, key := range sorted(texts) {
		row := new(T)
		if err := json.Unmarshal([]byte(texts[key]), row); err != nil {
			panic(err)
		}
		rows = append(rows, row)
	}
	return rows
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// reload is an engine that knows what the driver has stored, and nothing else.
func (w *world) reload() *engine.Engine {
	w.t.Helper()
	e, err := w.loaded()
	if err != nil {
		w.t.Fatalf("what was stored cannot be loaded: %v", err)
	}
	return e
}

func (w *world) load() error {
	_, err := w.loaded()
	return err
}

func (w *world) newEngine() *engine.Engine {
	return engine.New(engine.Options{Releases: w.release, Seed: 1, Began: w.began})
}

func (w *world) loaded() (*engine.Engine, error) {
	e := w.newEngine()
	return e, e.Load(w.snapshot())
}

func (w *world) snapshot() *engine.Snapshot {
	s := &engine.Snapshot{
		Now:      w.now,
		Channels: rowsOf[rollout.Channel](w.chans), Rollouts: rowsOf[rollout.Rollout](w.runs), Hosts: rowsOf[rollout.Host](w.hosts),
		Quarantines: rowsOf[rollout.Quarantine](w.quarantine), Limits: w.limits, Away: make(map[string]time.Time),
	}
	for _, name := range w.names {
		if a := w.agents[name]; a.told != nil {
			s.Levels = append(s.Levels, a.told)
			s.Away[name] = a.away
		}
	}
	for _, name := range sorted(w.policies) {
		s.Policies = append(s.Policies, w.policies[name])
		if w.closed[name] {
			s.Closed = append(s.Closed, name)
		}
	}
	return s
}

func (w *world) policy(channel, text string) {
	w.t.Helper()
	p, err := policy.Parse([]byte(text))
	if err != nil {
		w.t.Fatalf("%v", err)
	}
	w.policies[channel] = rollout.PolicySet{Channel: channel, Policy: p}
	w.must(w.policies[channel])
}

// put makes a release, in which each host has the path that of tells; "" is none.
func (w *world) put(channel string, seq int64, of func(target string) string) {
	r := &rollout.Release{Seq: seq, Rev: fmt.Sprintf("rev-%d", seq), Entries: make(map[string]*rollout.Entry)}
	for _, name := range w.names {
		if path := of(name); path != "" {
			r.Entries[name] = &rollout.Entry{Path: path, Closure: "sha256:" + path, Action: "auto"}
		}
	}
	if w.releases[channel] == nil {
		w.releases[channel] = make(map[int64]*rollout.Release)
	}
	w.releases[channel][seq] = r
}

// all has the same path for every host.
func all(path string) func(string) string { return func(string) string { return path } }

func (w *world) promote(channel string, seq int64, path string) {
	w.t.Helper()
	w.put(channel, seq, all(path))
	w.must(rollout.Promote{Channel: channel, Seq: seq})
}

func (w *world) run(channel string) *rollout.Rollout { return w.e.Channels[channel].Run.Row }

func (w *world) row(name string) *rollout.Host { return &w.e.Hosts[name].Row }

// wait lets time pass, in steps of at most what the engine asks for.
func (w *world) wait(d time.Duration) {
	end := w.now.Add(d)
	for {
		next := w.last.Next
		if next.IsZero() || next.After(end) {
			break
		}
		if next.After(w.now) {
			w.now = next
		}
		w.must(rollout.Tick{})
		if !w.last.Next.After(w.now) && !w.last.Next.IsZero() {
			w.t.Fatalf("at %s the engine wants to be called at %s", w.now, w.last.Next)
		}
	}
	w.now = end
	w.must(rollout.Tick{})
}

// granted are the hosts that were granted in the last step.
func (w *world) granted() (names []string) {
	for _, d := range w.last.Decisions {
		if d.Kind == "granted" {
			names = append(names, d.Host)
		}
	}
	slices.Sort(names)
	return names
}

// wasWoken tells whether a host was woken after the first n.
func (w *world) wasWoken(name string, n int) bool { return slices.Contains(w.woken[n:], name) }

func (w *world) phases() string {
	var b strings.Builder
	for _, name := range w.names {
		fmt.Fprintf(&b, "%s %s, ", name, w.row(name).Phase)
	}
	return strings.TrimSuffix(b.String(), ", ")
}

// agent is a host's, as the engine sees one.
type agent struct {
	w     *world
	level rollout.Level
	told  *rollout.Level // what the engine was told last
	away  time.Time

	grant      int64 // seq that it may begin
	id         string
	until      time.Time
	obeyed     string
	attempts   int
	denied     map[string]bool
	previous   string
	activated  map[string]int // by attempt
	deniesAll  bool
	refusesAll bool
	silent     bool // it does not say which grant it let go
	deaf       bool // it does not go back, and does not say so
}

func (w *world) add(channel, name string, labels map[string]string, current string) *agent {
	a := &agent{w: w, denied: make(map[string]bool), activated: make(map[string]int)}
	a.level = rollout.Level{Host: name, Channel: channel, Target: name, Labels: labels, State: api.Idle, Current: current, Profile: current, Confirmed: current}
	w.agents[name] = a
	w.names = append(w.names, name)
	a.report()
	return a
}

// report tells the engine where the agent is.
func (a *agent) report() {
	a.w.t.Helper()
	l := a.level
	l.At = a.w.now
	a.level.At = l.At
	a.told, a.away = &l, time.Time{}
	a.w.must(rollout.Report{Level: &l})
}

func (a *agent) entry() *rollout.Entry {
	if r := a.w.release(a.level.Channel, a.level.Seq); r != nil {
		return r.Entry(a.level.Target)
	}
	return nil
}

// poll takes the server's answer.
func (a *agent) poll() {
	l := &a.level
	ans := a.w.e.Answer(l.Host, a.w.now)
	if ans.Seq == 0 || busy(l.State) {
		return
	}
	a.lets(ans)
	if ans.Seq > l.HighestSeq {
		l.HighestSeq, l.Seq = ans.Seq, ans.Seq
		a.grant = 0
		a.begin()
	}
	if ans.Seq != l.HighestSeq {
		return
	}
	if ans.Directive != "" && ans.ID != a.obeyed && !a.refusesAll {
		a.obeyed = ans.ID
		a.obey(ans.Directive)
	}
	if a.grant = 0; l.State == api.WaitingState {
		l.Waiting = ans.Wait // what it was told, said back
	}
	if ans.Grant != "" {
		a.grant, a.until = ans.Seq, a.w.now.Add(ans.Lease)
	}
}

// lets notes which grant it had before an answer, and has not by it.
func (a *agent) lets(ans rollout.Answer) {
	switch {
	case a.silent:
	case a.id != "" && a.id != ans.Grant:
		a.level.LetGo = a.id
	case a.level.LetGo == ans.Grant:
		a.level.LetGo = ""
	}
	a.id = ans.Grant
}

// begin makes an attempt at what it was shown.
func (a *agent) begin() {
	l := &a.level
	a.attempts++
	l.Attempt, l.Waiting = fmt.Sprintf("%s-%d", l.Host, a.attempts), ""
	e := a.entry()
	switch {
	case e == nil:
		l.State = api.NotInRelease
	case l.Current == e.Path && l.Profile == e.Path:
		l.State = api.OK
		l.Confirmed = e.Path
	case a.denied[e.Path]:
		l.State = api.Reverted
	default:
		l.State = api.Staged
	}
}

func (a *agent) obey(what string) {
	l := &a.level
	switch {
	case what == "retry":
		if e := a.entry(); e != nil {
			delete(a.denied, e.Path)
		}
		if l.State == api.Reverted || l.State == api.Failed || l.State == api.Rejected {
			a.begin()
		}
	case a.deaf:
	case l.State == api.OK && a.previous != "":
		a.back(true)
	case l.State == api.Armed:
		a.previous = l.Current
		a.back(true)
	case l.State == api.Staged || l.State == api.WaitingState:
		l.State = api.Reverted
	}
}

func (a *agent) back(directed bool) {
	l := &a.level
	if e := a.entry(); e != nil && (!directed || a.deniesAll) {
		a.denied[e.Path] = true
	}
	l.State, l.Current, l.Profile, l.Confirmed = api.Reverted, a.previous, a.previous, a.previous
}

func busy(s api.State) bool {
	return s == api.Draining || s == api.Activating || s == api.Probation || s == api.Committing
}

// act goes one step on by itself; how is how an attempt ends.
func (a *agent) act(how api.State) {
	l := &a.level
	e := a.entry()
	switch {
	case e == nil:
	case (l.State == api.Staged || l.State == api.WaitingState) && a.grant == l.Seq && a.w.now.Before(a.until):
		l.State, l.Waiting = api.Draining, ""
		a.activated[l.Attempt]++
	case l.State == api.Draining && how == api.WaitingState:
		l.State, l.Waiting = api.WaitingState, api.WaitInhibited
		a.activated[l.Attempt]--
		a.grant = 0
	case l.State == api.Draining:
		l.State = api.Activating
	case l.State == api.Activating:
		l.State = api.Probation
	case l.State == api.Probation:
		a.end(e, how)
	}
}

func (a *agent) end(e *rollout.Entry, how api.State) {
	l := &a.level
	l.State = how
	switch how {
	case api.OK:
		if l.Current != e.Path {
			a.previous = l.Current
		}
		l.Current, l.Profile, l.Confirmed = e.Path, e.Path, e.Path
	case api.Armed:
		if l.Profile != e.Path {
			a.previous = l.Profile
		}
		l.Profile = e.Path
	case api.Reverted:
		a.denied[e.Path] = true
	case api.Failed:
		l.Current = "/broken"
	default:
		l.State = api.Reverted
	}
}

// goes takes a host from where it is to an end, and tells of each arrow.
func (a *agent) goes(how api.State) {
	a.w.t.Helper()
	a.poll()
	a.report()
	a.poll()
	for range 4 {
		a.act(how)
		a.report()
	}
	if a.level.State != how {
		a.w.t.Fatalf("%s is %s and not %s; its row: %s", a.level.Host, a.level.State, how, text(a.w.row(a.level.Host)))
	}
}
