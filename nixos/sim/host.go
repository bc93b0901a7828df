package sim

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
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
		BootID: fmt.Sprintf("boot-%d", w.Boot), Now: w.Clock - w.BootedAt, Wall: time.Unix(1_800_000_000, 0).Add(time.Duration(w.Clock) * time.Millisecond).UTC(),
		Current: w.Current, Booted: w.Booted, Profile: w.Profile(), Generation: int64(w.Link), Pause: w.Pause, Random: w.nextRandom(),
	}
	if w.Link > 0 {
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
		if at, live := w.checkedAt[path]; !w.byBoot() && !w.leadsBack(path) && path == w.Current && path != w.Booted && (!live || at < w.SwitchedAt) {
			w.violated("the profile gets %s, whose checks never passed since it runs", path)
		}
		if w.Profile() != path {
			w.Links = append(w.Links, path)
			w.Link = len(w.Links)
		}
		return nil
	})
}

// ResetProfile implements nixos.Boot.
func (w *World) ResetProfile(_ context.Context, link, bad string) error {
	return w.do("reset profile", func() error {
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
func (w *World) Reasons(_ context.Context, path string) (r nixos.Reasons, err error) {
	err = w.do("reasons", func() error {
		if path != w.Booted {
			r.Reboot = w.Systems[path].Reboot
		}
		r.Inhibited, r.CanCheck = w.Systems[path].Inhibited, w.Systems[path].CanCheck
		return nil
	})
	return r, err
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

// Reboot implements nixos.Boot: the agent's end is in it.
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
func (w *World) Busy(context.Context) (busy string, err error) {
	err = w.do("busy", func() error {
		if w.Clock < w.BusyFor {
			busy = "nixos-rebuild runs"
		}
		return nil
	})
	return busy, err
}

// StartRun implements nixos.Runs.
func (w *World) StartRun(_ context.Context, r journal.Run) error {
	return w.do("start "+r.Action, func() error {
		for _, o := range w.runs {
			if !o.ended && !o.killed {
				return errors.New("the unit exists already")
			}
			if o.ID == r.ID {
				w.violated("run %s was started twice", r.ID)
			}
			if r.Action == "test" && o.Action == "test" && attemptOf(o.ID) == attemptOf(r.ID) && o.Path == r.Path && r.Path == w.target() && !w.leadsBack(r.Path) {
				w.violated("attempt %s activates %s twice", attemptOf(r.ID), r.Path)
			}
		}
		if w.Damaged[r.Path] {
			w.violated("%s was damaged by a power cut, and is run", r.Path)
		}
		if w.Other[r.Path] && !w.Built[r.Path] {
			w.violated("%s has other bytes than were signed, and is run", r.Path)
		}
		if !w.Valid[r.Path] {
			w.violated("%s is to be switched to and not valid", r.Path)
			return fmt.Errorf("%s is not there", r.Path)
		}
		w.runs = append(w.runs, &run{Run: r, begun: w.Clock, boot: w.Boot})
		return nil
	})
}

// leadsBack tells whether the journal says that the host reverts to path.
func (w *World) leadsBack(path string) bool {
	var j journal.Journal
	if json.Unmarshal(w.Journal, &j) != nil || j.Attempt == nil {
		return false
	}
	return j.State == api.Reverting && j.Attempt.Previous == path
}

func attemptOf(run string) string { id, _, _ := strings.Cut(run, "-"); return id }

// byBoot tells whether the journal says that only a boot starts the system.
func (w *World) byBoot() bool {
	var j journal.Journal
	return json.Unmarshal(w.Journal, &j) == nil && j.Attempt != nil && j.Attempt.ByBoot && !j.Attempt.Rebooted
}

// target is the path of the attempt that the journal has.
func (w *World) target() string {
	var j journal.Journal
	if json.Unmarshal(w.Journal, &j) != nil || j.Attempt == nil {
		return ""
	}
	return j.Attempt.Path
}

// RunState implements nixos.Runs.
func (w *World) RunState(_ context.Context, r journal.Run) (st nixos.RunState, err error) {
	err = w.do("run state", func() error {
		for _, o := range w.runs {
			if o.ID == r.ID {
				st = nixos.RunState{Begun: true, Active: !o.ended && !o.killed, Ended: o.ended, Exit: o.exit, Text: o.text}
			}
		}
		return nil
	})
	return st, err
}

// LastLines implements nixos.Runs.
func (w *World) LastLines(context.Context, journal.Run) string { return "not like this" }

// RunLog implements nixos.Runs.
func (w *World) RunLog(context.Context, journal.Run, int) (string, error) {
	return "not like this", nil
}

// FailedUnits implements nixos.Health.
func (w *World) FailedUnits(context.Context) (failed []string, err error) {
	err = w.do("failed units", func() error { failed = w.failedUnits(); return nil })
	return failed, err
}

// Checks implements nixos.Health.
func (w *World) Checks(_ context.Context, path string) (checks []api.Check, err error) {
	err = w.do("checks", func() error {
		w.Clock += 50
		good := w.checkGood()
		if good && path == w.Current {
			w.checkedAt[path] = w.Clock
		}
		checks = []api.Check{{Name: "web", Mode: api.Enforce, OK: good, Duration: 50}}
		return nil
	})
	return checks, err
}

// Probe implements nixos.Network.
func (w *World) Probe(_ context.Context, path string, s *api.Status) (p effect.Probed) {
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
func (w *World) Path(_ context.Context, p narinfo.Path) (sp *nixos.StorePath, err error) {
	err = w.do("path", func() error {
		if w.Valid[p.In(StoreDir)] {
			sp = &nixos.StorePath{Info: Info(p.In(StoreDir)), Ultimate: w.Built[p.In(StoreDir)]}
			if w.Other[p.In(StoreDir)] {
				sp.NarHash[0] ^= 1
			}
		}
		return nil
	})
	return sp, err
}

// Realise implements nixos.Store.
func (w *World) Realise(_ context.Context, p narinfo.Path, root string) error {
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
func (w *World) Verify(_ context.Context, p narinfo.Path) (good bool, err error) {
	err = w.do("verify", func() error { good = !w.Damaged[p.In(StoreDir)]; return nil })
	return good, err
}

// Free implements nixos.Store.
func (w *World) Free(context.Context) (int64, error) { return 1 << 40, nil }

var (
	errDown    = errors.New("connection refused")
	errRefused = &api.Error{Kind: api.Unauthorized, Message: "who are you", Status: 401}
)

func (w *World) etag() string {
	text, err := json.Marshal(w.Wants)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf("%q", fmt.Sprintf("%x", sha256.Sum256(text)))
}

// Desired implements nixos.Server.
func (w *World) Desired(_ context.Context, etag string, wait time.Duration) (d *api.Desired, tag string, err error) {
	err = w.do("desired", func() error {
		w.Waits = append(w.Waits, wait)
		if !w.reachable() {
			w.Clock += 1000
			return errDown
		}
		if w.Refuses {
			return errRefused
		}
		if tag = w.etag(); tag == etag {
			w.Clock += wait.Milliseconds()
			return api.ErrNotModified
		}
		d = w.Wants
		return nil
	})
	return d, tag, err
}

// Report implements nixos.Server.
func (w *World) Report(_ context.Context, s *api.Status) {
	w.handedOver(s)
	if w.reachable() && !w.Refuses {
		w.Acks = append(w.Acks, s)
	}
	w.op("report")
}

// Delivered implements nixos.Server.
func (w *World) Delivered() int64 {
	if len(w.Acks) == 0 || w.Acks[len(w.Acks)-1].StartID != w.lastStart {
		return 0
	}
	return w.Acks[len(w.Acks)-1].Counter
}

// ReportNow implements nixos.Server.
func (w *World) ReportNow(_ context.Context, s *api.Status) error {
	return w.do("report now", func() error {
		w.handedOver(s)
		if !w.reachable() {
			return errDown
		}
		if w.Refuses {
			return errRefused
		}
		w.Acks = append(w.Acks, s)
		return nil
	})
}

// Confirm implements nixos.Server.
func (w *World) Confirm(ctx context.Context, s *api.Status, probe func(context.Context, *api.Status) effect.Probed) effect.Probed {
	return probe(ctx, s)
}

// Manifest implements nixos.Server.
func (w *World) Manifest(_ context.Context, d signing.Digest) (text []byte, err error) {
	err = w.do("manifest", func() error {
		if !w.reachable() {
			return errDown
		}
		for p := range w.Systems {
			if m := Manifest(p); m.Digest() == d {
				text = m.Text()
				return nil
			}
		}
		return &api.Error{Kind: api.NotFound, Message: "no such closure", Status: 404}
	})
	return text, err
}

// Narinfos implements nixos.Server.
func (w *World) Narinfos(_ context.Context, paths []narinfo.Path) (infos []*narinfo.Info, err error) {
	err = w.do("narinfos", func() error {
		if !w.reachable() {
			return errDown
		}
		for _, p := range paths {
			infos = append(infos, Info(p.In(StoreDir)))
		}
		return nil
	})
	return infos, err
}

// PostLog implements nixos.Server.
func (w *World) PostLog(_ context.Context, attempt string, _ []byte) error {
	return w.do("log", func() error {
		if !w.reachable() {
			return errDown
		}
		w.Logs = append(w.Logs, attempt)
		return nil
	})
}
