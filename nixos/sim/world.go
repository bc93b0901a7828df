// Package sim is a host in memory: it keeps the contract of nixos.Host, with
// systems that misbehave as they are told, and it can be killed, or lose its
// power, before and after every single effect.
//
// A World checks by itself, at every effect and every report, what must always
// be true: that a report says what is, that nothing is activated twice, that
// the profile names no system that did not pass its probation, that what may
// be needed is protected from the garbage collector. What it finds wrong is in
// Violations.
package sim

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos"
	"narwharf/nixos/effect"
	"narwharf/nixos/journal"
	"narwharf/signing"
)

// StoreDir of every simulated host.
const StoreDir = "/nix/store"

// A System says how a closure behaves. The zero value behaves well.
type System struct {
	Path string
	// Switching.
	TestExit  int
	BootExit  int
	FillsBoot bool          // its entry leaves no room, and half of it is there
	StaysOut  bool          // test does not make it the running system
	Takes     time.Duration // of a switch
	Hangs     bool          // the service's time limit ends it
	Locked    int           // so often another one holds the lock
	Says      string        // what a run of test writes
	BackExit  int           // of its test when it is gone back to
	BackFails int           // so often it is 11, and nothing is switched
	CanCheck  bool          // its script has the action check
	CheckExit int
	Reboot    []string // reasons
	Inhibited []string
	WontBoot  bool // the machine falls back to what it booted before
	// Running.
	Units       []string      // that fail
	UnitsAfter  time.Duration // since the switch
	CrashEvery  time.Duration // a unit fails so often and is started again at once
	CrashTimes  int           // and no more; 0: for ever
	CutsNetwork bool
	CheckFails  bool
	ChecksAfter time.Duration // until the check is good
	AgentBroken bool
	NoAgent     string // what it lacks of an agent
	// Specialisations are paths of systems that are added by themselves, by name.
	Specialisations map[string]string
	Refused         bool // the server refuses its agent
	// Staging.
	WrongBytes int // so often a realise brings other bytes than were promised
}

type run struct {
	journal.Run
	begun         int64
	boot          int
	ended, killed bool
	exit          int
	text, log     string
}

// A World is one host, its server and what they went through.
type World struct {
	Systems map[string]*System
	Keys    *Promoter

	// The host. Journal is what survives everything.
	Journal   []byte
	Clock     int64 // ms, never back
	BootedAt  int64
	Boot      int
	Current   string
	Booted    string
	BootEntry string
	Links     []string // generations: Links[i] is of system-(i+1)-link
	Link      int      // of the profile; 0: none
	// ProfileFault is that the profile is no link to a generation any more: to the system
	// itself, or with ProfileGone to nothing.
	ProfileFault string
	ProfileGone  bool
	Valid        map[string]bool
	Roots        map[string]string
	Other        map[string]bool         // valid paths with other bytes than the release has
	Built        map[string]bool         // valid paths that were built here
	Dirty        map[string]bool         // valid paths that are not on the disk yet
	Damaged      map[string]bool         // valid paths that a power cut has emptied
	Drained      bool                    // hooks.pre_switch or pre_reboot ran, and post_switch did not since
	Hooks        []string                // that ran
	HookFails    map[effect.HookName]int // so often
	Reboots      int
	WontReboot   bool
	Baseline     []string      // units that fail whatever runs
	NoLogs       bool          // what runs write is not kept
	NotWell      []effect.Unit // more units, of no system
	Pause        *api.Hold
	SwitchedAt   int64
	BusyFor      int64 // a person's nixos-rebuild runs until then
	Slept        int64 // ms of this boot

	// The server.
	Foreign      nixos.Foreign       // signed if empty
	Downloads    []signing.PublicKey // of which downloads need a signature, which none has
	Wants        *api.Desired
	Down         bool
	Refuses      bool // everybody, as one that has lost its tokens
	WitnessAlive bool
	Statuses     []*api.Status // all that were handed over
	Acks         []*api.Status // all that the server took
	Logs         []string
	Waits        []time.Duration // that polls asked for

	// Faults. Ops counts crash points; at CrashAt the agent dies.
	Ops     int
	CrashAt int
	CrashOn string // the agent dies when an op of this name comes, once
	Fail    func(op string) error
	Trace   []string

	Violations []string

	runs        []*run
	random      int
	checkedAt   map[string]int64 // path: last time its checks were run, and were good
	lastStart   int64
	lastCounter int64
	highest     int64
}

// Crash is what a crash point panics with.
type Crash struct{ At int }

func (c Crash) Error() string { return fmt.Sprintf("killed at op %d", c.At) }

// New is a host that runs a system since its installation.
func New(first *System) *World {
	w := &World{
		Systems: map[string]*System{}, Keys: NewPromoter(), Clock: 1_000_000, Boot: 1, Valid: map[string]bool{}, Roots: map[string]string{},
		Other: map[string]bool{}, Built: map[string]bool{}, Dirty: map[string]bool{}, Damaged: map[string]bool{}, HookFails: map[effect.HookName]int{},
		WitnessAlive: true, checkedAt: map[string]int64{},
	}
	w.Add(first)
	w.Valid[first.Path] = true
	w.Current, w.Booted, w.BootEntry = first.Path, first.Path, first.Path
	w.Links, w.Link = []string{first.Path}, 1
	return w
}

// Path makes a store path of a short name.
func Path(name string) string {
	sum := sha256.Sum256([]byte(name))
	const digits = "0123456789abcdfghijklmnpqrsvwxyz"
	var b strings.Builder
	for i := range 32 {
		b.WriteByte(digits[sum[i]&31])
	}
	return StoreDir + "/" + b.String() + "-nixos-system-" + name
}

// Add makes a system known, in the cache.
func (w *World) Add(s *System) *System {
	w.Systems[s.Path] = s
	return s
}

func (w *World) violated(format string, args ...any) {
	w.Violations = append(w.Violations, fmt.Sprintf("op %d: ", w.Ops)+fmt.Sprintf(format, args...))
}

// op is a crash point.
func (w *World) op(name string) {
	w.Ops++
	w.Trace = append(w.Trace, name)
	w.progress()
	w.collect()
	if name == w.CrashOn {
		w.CrashOn = ""
		panic(Crash{w.Ops})
	}
	if w.Ops == w.CrashAt {
		panic(Crash{w.Ops})
	}
}

// do is an effect with a crash point before and after it; it may fail without
// having done anything.
func (w *World) do(name string, effect func() error) error {
	w.op(name)
	if w.Fail != nil {
		if err := w.Fail(name); err != nil {
			return err
		}
	}
	err := effect()
	w.op(name + " done")
	return err
}

// collect is a garbage collector that runs all the time.
func (w *World) collect() {
	for p := range w.Valid {
		if !w.protected(p) {
			w.drop(p)
		}
	}
}

// drop makes a path invalid.
func (w *World) drop(p string) {
	delete(w.Valid, p)
	delete(w.Other, p)
	delete(w.Built, p)
	delete(w.Dirty, p)
	delete(w.Damaged, p)
}

func (w *World) protected(p string) bool {
	if p == w.Current || p == w.Booted || slices.Contains(w.Links, p) {
		return true
	}
	for _, r := range w.Roots {
		if r == p {
			return true
		}
	}
	return false
}

// progress lets runs come to their ends.
func (w *World) progress() {
	for _, r := range w.runs {
		if r.ended || r.killed || r.boot != w.Boot {
			continue
		}
		s := w.Systems[r.Path]
		takes := max(s.Takes, 10*time.Millisecond)
		if s.Hangs && r.Action == "test" {
			takes = 15 * time.Minute
		}
		if w.Clock < r.begun+takes.Milliseconds() {
			continue
		}
		r.ended = true
		if s.Locked > 0 {
			s.Locked--
			r.exit, r.log = 11, "Could not acquire lock"
			continue
		}
		switch r.Action {
		case "boot":
			w.setBoot(r, s)
		case "check":
			r.exit = s.CheckExit
		case "test":
			r.log = s.Says
			w.switchTo(r, s)
		}
	}
}

// setBoot is the end of a run that writes the boot entry. Boot loaders write one
// for every generation.
func (w *World) setBoot(r *run, s *System) {
	r.exit = s.BootExit
	for _, p := range w.Links {
		if g := w.Systems[p]; g != nil && r.exit == 0 {
			r.exit = g.BootExit
		}
	}
	if r.exit == 0 && slices.Contains(w.Links, r.Path) {
		w.BootEntry = r.Path
	}
}

// switchTo is the end of a live switch.
func (w *World) switchTo(r *run, s *System) {
	if s.Hangs {
		r.text = "timeout"
		return
	}
	r.exit = s.TestExit
	if slices.Contains(w.Links, r.Path) && s.BackExit != 0 {
		r.exit = s.BackExit
	}
	if slices.Contains(w.Links, r.Path) && s.BackFails > 0 {
		s.BackFails--
		r.exit = 11
		return
	}
	if r.exit == 100 || s.StaysOut || r.exit == 1 {
		return
	}
	w.Current = r.Path
	w.SwitchedAt = w.Clock
	if r.exit == 2 && r.log == "" {
		r.log = "activating the configuration...\nFailed to run activate script\n"
	}
	if (r.exit == 0 && len(s.Units) > 0 && s.UnitsAfter == 0) || (r.exit == 2 && len(w.Baseline) > 0) {
		r.exit = 4
	}
}

// PowerCycle is a reboot, whatever goes on.
func (w *World) PowerCycle() {
	for _, r := range w.runs {
		if !r.ended {
			r.killed = true
		}
	}
	for p := range w.Dirty {
		w.Damaged[p] = true
	}
	clear(w.Dirty)
	w.Boot++
	w.Clock += 30_000
	w.BootedAt = w.Clock
	w.SwitchedAt = w.Clock
	if !w.Systems[w.BootEntry].WontBoot {
		w.Booted = w.BootEntry
	}
	w.Current = w.Booted
	w.BusyFor, w.Slept = 0, 0
}

// Suspend lets the machine sleep: what it does stands still meanwhile.
func (w *World) Suspend(d time.Duration) {
	w.Clock += d.Milliseconds()
	w.Slept += d.Milliseconds()
	w.SwitchedAt += d.Milliseconds()
	for _, r := range w.runs {
		if !r.ended && !r.killed {
			r.begun += d.Milliseconds()
		}
	}
}

// HumanSwitch is a person's nixos-rebuild.
func (w *World) HumanSwitch(path string, profile bool) {
	w.Valid[path] = true
	w.Current = path
	w.SwitchedAt = w.Clock
	if profile {
		w.Links = append(w.Links, path)
		w.Link = len(w.Links)
		w.BootEntry = path
	}
}

// Profile is the system that the profile names.
func (w *World) Profile() string {
	if w.Link == 0 || w.ProfileGone {
		return ""
	}
	return w.Links[w.Link-1]
}

// networkUp tells whether the host's network works.
func (w *World) networkUp() bool { return !w.Systems[w.Current].CutsNetwork }

func (w *World) reachable() bool { return w.networkUp() && !w.Down }

func (w *World) checkGood() bool {
	s := w.Systems[w.Current]
	return !s.CheckFails && w.Clock >= w.SwitchedAt+s.ChecksAfter.Milliseconds()
}

func (w *World) nextRandom() string {
	w.random++
	sum := sha256.Sum256(fmt.Appendf(nil, "random %d %d", w.random, w.Boot))
	return hex.EncodeToString(sum[:16])
}

// Promote makes a release of one system for everyone, granted at once.
func (w *World) Promote(seq int64, path string, action signing.Action) *api.Desired {
	p := w.Keys.Pointer(seq, path, action)
	w.Wants = &api.Desired{Channel: Channel, Seq: seq, Pointer: p, Grant: &api.Grant{Seq: seq, Lease: 900, ID: fmt.Sprint(seq)}}
	return w.Wants
}

// Started counts the runs of switch-to-configuration, ever.
func (w *World) Started() int { return len(w.runs) }

// Clone is a world that goes its own way from here.
func (w *World) Clone() *World {
	c := *w
	c.Systems = make(map[string]*System, len(w.Systems))
	for p, s := range w.Systems {
		copied := *s
		c.Systems[p] = &copied
	}
	c.Valid, c.Roots, c.checkedAt = maps.Clone(w.Valid), maps.Clone(w.Roots), maps.Clone(w.checkedAt)
	c.Other, c.Built = maps.Clone(w.Other), maps.Clone(w.Built)
	c.Dirty, c.Damaged, c.HookFails = maps.Clone(w.Dirty), maps.Clone(w.Damaged), maps.Clone(w.HookFails)
	c.Links, c.Baseline, c.Trace = slices.Clone(w.Links), slices.Clone(w.Baseline), slices.Clone(w.Trace)
	c.NotWell = slices.Clone(w.NotWell)
	c.Statuses, c.Acks, c.Logs, c.Violations = slices.Clone(w.Statuses), slices.Clone(w.Acks), slices.Clone(w.Logs), slices.Clone(w.Violations)
	c.Hooks, c.Waits = slices.Clone(w.Hooks), slices.Clone(w.Waits)
	if w.Wants != nil {
		wants := *w.Wants
		c.Wants = &wants
	}
	c.runs = make([]*run, len(w.runs))
	for i, r := range w.runs {
		copied := *r
		c.runs[i] = &copied
	}
	return &c
}
