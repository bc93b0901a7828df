package sim

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/nixos"
	"narwharf/nixos/effect"
	"narwharf/nixos/journal"
	"narwharf/signing"
)

// Host is the world as its agent meets it.
func (w *World) Host() nixos.Host {
	return nixos.Host{System: w, Boot: w, Runs: w, Health: w, Network: w, Store: w, Server: w}
}

// found is do of an effect that finds something out.
func found[T any](w *World, name string, effect func() T) (v T, err error) {
	err = w.do(name, func() error { v = effect(); return nil })
	return v, err
}

// Load implements nixos.Journals.
func (w *World) Load() ([]byte, error) { return w.Journal, nil }

// Save implements nixos.Journals.
func (w *World) Save(text []byte) error {
	return w.do("save", func() error { w.Journal = text; return nil })
}

// Facts implements nixos.System.
func (w *World) Facts(context.Context) (effect.Facts, error) {
	w.progress()
	f := effect.Facts{
		BootID: fmt.Sprintf("boot-%d", w.Boot), Now: w.Clock - w.BootedAt, Slept: w.Slept, Wall: time.Unix(1_800_000_000, 0).Add(time.Duration(w.Clock) * time.Millisecond).UTC(),
		Current: w.Current, Booted: w.Booted, Profile: w.Profile(), Generation: int64(w.Link), Pause: w.Pause, Random: w.nextRandom(),
	}
	if f.ProfileFault = w.ProfileFault; f.ProfileFault != "" {
		f.Generation = 0
	} else if w.Link > 0 {
		f.ProfileLink = fmt.Sprintf("system-%d-link", w.Link)
	}
	for i, p := range w.Links {
		if p == w.Current {
			f.CurrentGen = int64(i + 1)
		}
	}
	return f, nil
}

// Sleep implements nixos.System.
func (w *World) Sleep(ctx context.Context, d time.Duration) error {
	w.Clock += d.Milliseconds()
	w.op("sleep")
	return ctx.Err()
}

// SetProfile implements nixos.Boot.
func (w *World) SetProfile(_ context.Context, path string) error {
	return w.do("set profile", func() error {
		if !w.Valid[path] {
			return fmt.Errorf("%s is not valid", path)
		}
		_, a := w.attempt()
		unbooted := a.ByBoot && !a.Rebooted
		if at, live := w.checkedAt[path]; !unbooted && !w.leadsBack(path) && path == w.Current && path != w.Booted && (!live || at < w.SwitchedAt) {
			w.violated("the profile gets %s, whose checks never passed since it runs", path)
		}
		if w.Profile() != path || w.ProfileFault != "" {
			w.ProfileFault, w.ProfileGone = "", false
			w.Links = append(w.Links, path)
			w.Link = len(w.Links)
		}
		return nil
	})
}

// ResetProfile implements nixos.Boot.
func (w *World) ResetProfile(_ context.Context, link, bad string) error {
	return w.do("reset profile", func() error {
		w.ProfileFault, w.ProfileGone = "", false
		if _, err := fmt.Sscanf(link, "system-%d-link", &w.Link); err != nil {
			return err
		}
		for i := w.Link; i < len(w.Links); i++ {
			if w.Links[i] == bad {
				w.Links[i] = ""
			}
		}
		return nil
	})
}

// Reasons implements nixos.Boot.
func (w *World) Reasons(_ context.Context, path string) (nixos.Reasons, error) {
	path = w.store(path)
	return found(w, "reasons", func() nixos.Reasons {
		s := w.Systems[path]
		r := nixos.Reasons{Inhibited: s.Inhibited, CanCheck: s.CanCheck}
		if path != w.Booted {
			r.Reboot = s.Reboot
		}
		return r
	})
}

// Hook implements nixos.Health.
func (w *World) Hook(_ context.Context, name effect.HookName, env []string) error {
	return w.do("hook "+string(name), func() error {
		w.Hooks = append(w.Hooks, string(name))
		w.Clock += 2000
		if w.HookFails[name] > 0 {
			w.HookFails[name]--
			return errors.New("exit status 1")
		}
		w.Drained = name != effect.HookPostSwitch
		if len(env) != 6 {
			w.violated("the hook %s has %q", name, env)
		}
		return nil
	})
}

// Reboot implements nixos.Boot. The agent's end is in it.
func (w *World) Reboot(context.Context) error {
	return w.do("reboot", func() error {
		if w.WontReboot {
			w.Clock += 600_000
			return errors.New("still up")
		}
		w.Reboots++
		w.PowerCycle()
		panic(Crash{w.Ops})
	})
}

// Specialisations implements nixos.System. What a run is of stands in the world under the
// name of its store path.
func (w *World) Specialisations(path string) map[string]string {
	if s := w.Systems[path]; s != nil {
		return s.Specialisations
	}
	return nil
}

// store is the store path that a name in a system leads to.
func (w *World) store(path string) string {
	if parent, name, ok := strings.Cut(path, "/specialisation/"); ok {
		return w.Systems[parent].Specialisations[name]
	}
	return path
}

// WithoutAgent implements nixos.Boot.
func (w *World) WithoutAgent(_ context.Context, path string) string { return w.Systems[path].NoAgent }

// BootRoom implements nixos.Boot.
func (w *World) BootRoom(context.Context) error {
	return w.do("boot room", func() error {
		for _, p := range w.Links {
			if s := w.Systems[p]; s != nil && s.FillsBoot {
				return errors.New("a full /boot")
			}
		}
		return nil
	})
}

// Sync implements nixos.Boot.
func (w *World) Sync(context.Context) error {
	return w.do("sync", func() error { clear(w.Dirty); return nil })
}

// Busy implements nixos.Runs.
func (w *World) Busy(context.Context) (string, error) {
	return found(w, "busy", func() string {
		if w.Clock < w.BusyFor {
			return "nixos-rebuild runs"
		}
		return ""
	})
}

// StartRun implements nixos.Runs.
func (w *World) StartRun(_ context.Context, r journal.Run) error {
	of, _, _ := strings.Cut(r.Path, "/specialisation/")
	r.Path = w.store(r.Path)
	return w.do("start "+r.Action, func() error {
		_, a := w.attempt()
		for _, o := range w.runs {
			if !o.ended && !o.killed {
				return errors.New("the unit exists already")
			}
			if o.ID == r.ID {
				w.violated("run %s was started twice", r.ID)
			}
			if r.Action == "test" && o.Action == "test" && attemptOf(o.ID) == attemptOf(r.ID) && o.Path == r.Path && r.Path == a.Path && !w.leadsBack(r.Path) {
				w.violated("attempt %s activates %s twice", attemptOf(r.ID), r.Path)
			}
		}
		if w.Damaged[r.Path] {
			w.violated("%s was damaged by a power cut, and is run", r.Path)
		}
		if w.Other[r.Path] && !w.Built[r.Path] {
			w.violated("%s has other bytes than were signed, and is run", r.Path)
		}
		if !w.Valid[of] && !w.Valid[r.Path] {
			w.violated("%s is to be switched to and not valid", r.Path)
			return fmt.Errorf("%s is not there", r.Path)
		}
		w.runs = append(w.runs, &run{Run: r, begun: w.Clock, boot: w.Boot})
		return nil
	})
}

func attemptOf(run string) string { id, _, _ := strings.Cut(run, "-"); return id }

// attempt is the one that the journal has.
func (w *World) attempt() (state api.State, a journal.Attempt) {
	var j journal.Journal
	if json.Unmarshal(w.Journal, &j) == nil && j.Attempt != nil {
		a = *j.Attempt
	}
	return j.State, a
}

// leadsBack tells whether the host reverts to path.
func (w *World) leadsBack(path string) bool {
	state, a := w.attempt()
	return state == api.Reverting && a.Previous == path
}

// RunState implements nixos.Runs.
func (w *World) RunState(_ context.Context, r journal.Run) (nixos.RunState, error) {
	return found(w, "run state", func() nixos.RunState {
		for _, o := range w.runs {
			if o.ID == r.ID {
				return nixos.RunState{Begun: true, Active: !o.ended && !o.killed, Ended: o.ended, Exit: o.exit, Text: o.text}
			}
		}
		return nixos.RunState{}
	})
}

// LastLines implements nixos.Runs.
func (w *World) LastLines(ctx context.Context, r journal.Run) string {
	text, _ := w.RunLog(ctx, r, 0)
	return cmp.Or(text, "not like this")
}

// RunLog implements nixos.Runs.
func (w *World) RunLog(_ context.Context, r journal.Run, _ int) (string, error) {
	i := slices.IndexFunc(w.runs, func(o *run) bool { return o.ID == r.ID })
	if i < 0 || w.NoLogs {
		return "", nil
	}
	return w.runs[i].log, nil
}

// Units implements nixos.Health.
func (w *World) Units(context.Context, string, string) ([]effect.Unit, error) {
	return found(w, "failed units", func() []effect.Unit {
		units := slices.Clone(w.NotWell)
		for _, name := range w.Baseline {
			units = append(units, effect.Unit{Name: name, Failed: true})
		}
		s, since := w.Systems[w.Current], time.Duration(w.Clock-w.SwitchedAt)*time.Millisecond
		for _, name := range s.Units {
			if since >= s.UnitsAfter {
				units = append(units, effect.Unit{Name: name, Failed: true, Changed: true})
			}
		}
		if s.CrashEvery > 0 && since >= s.CrashEvery {
			crash := min(int(since/s.CrashEvery), cmp.Or(s.CrashTimes, 1000))
			units = append(units, effect.Unit{Name: "loop.service", Changed: true, Crash: fmt.Sprint(crash)})
		}
		return units
	})
}

// Checks implements nixos.Health.
func (w *World) Checks(_ context.Context, path string) ([]api.Check, error) {
	path = w.store(path)
	return found(w, "checks", func() []api.Check {
		w.Clock += 50
		good := w.checkGood()
		if good && path == w.Current {
			w.checkedAt[path] = w.Clock
		}
		return []api.Check{{Name: "web", Mode: api.Enforce, OK: good, Duration: 50}}
	})
}

// Probe implements nixos.Network.
func (w *World) Probe(_ context.Context, path string, s *api.Status) (p effect.Probed) {
	path = w.store(path)
	err := w.do("probe", func() error {
		switch sys := w.Systems[path]; {
		case sys.AgentBroken:
			p = effect.Probed{Outcome: effect.ProbeBroken, Text: "it does not start"}
		case !w.reachable():
			w.Clock += 5000
			p = effect.Probed{Outcome: effect.ProbeUnreachable, Text: "no route"}
		case sys.Refused, w.Refuses:
			p = effect.Probed{Outcome: effect.ProbeRefused, Text: "403"}
		default:
			w.handedOver(s)
			w.Acks = append(w.Acks, s)
			p = effect.Probed{Outcome: effect.ProbeOK}
		}
		return nil
	})
	if err != nil {
		return effect.Probed{Outcome: effect.ProbeUnreachable, Text: err.Error()}
	}
	return p
}

// Witness implements nixos.Network.
func (w *World) Witness(context.Context) (alive bool, text string) {
	_ = w.do("witness", func() error { alive = w.networkUp() && w.WitnessAlive; return nil })
	return alive, "the gateway"
}

// Path implements nixos.Store.
func (w *World) Path(_ context.Context, p narinfo.Path) (*nixos.StorePath, error) {
	return found(w, "path", func() *nixos.StorePath {
		path := p.In(StoreDir)
		if !w.Valid[path] {
			return nil
		}
		sp := &nixos.StorePath{Info: Info(path), Ultimate: w.Built[path]}
		if w.Other[path] {
			sp.NarHash[0] ^= 1
		}
		return sp
	})
}

// Realise implements nixos.Store.
func (w *World) Realise(_ context.Context, p narinfo.Path, root string, _ []signing.Line) error {
	return w.do("realise", func() error {
		if !w.reachable() && !w.Valid[p.In(StoreDir)] {
			return errors.New("the cache cannot be reached")
		}
		w.Clock += 1000
		if s := w.Systems[p.In(StoreDir)]; !w.Valid[s.Path] && s.WrongBytes > 0 {
			s.WrongBytes--
			w.Other[s.Path] = true
		}
		if !w.Valid[p.In(StoreDir)] {
			w.Dirty[p.In(StoreDir)] = true
		}
		w.Valid[p.In(StoreDir)] = true
		w.Roots[root] = p.In(StoreDir)
		return nil
	})
}

// Root implements nixos.Store.
func (w *World) Root(_ context.Context, root, path string) error {
	return w.do("root", func() error {
		if !w.Valid[path] {
			return fmt.Errorf("%s is not valid", path)
		}
		w.Roots[root] = path
		return nil
	})
}

// Unroot implements nixos.Store.
func (w *World) Unroot(_ context.Context, root string) error {
	return w.do("unroot", func() error { delete(w.Roots, root); return nil })
}

// Delete implements nixos.Store.
func (w *World) Delete(_ context.Context, paths []narinfo.Path) error {
	return w.do("delete", func() error {
		for _, p := range paths {
			w.drop(p.In(StoreDir))
		}
		return nil
	})
}

// Verify implements nixos.Store.
func (w *World) Verify(_ context.Context, p narinfo.Path) (bool, error) {
	return found(w, "verify", func() bool { return !w.Damaged[p.In(StoreDir)] })
}

// Free implements nixos.Store.
func (w *World) Free(context.Context) (int64, error) { return 1 << 40, nil }
