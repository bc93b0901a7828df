package nixos

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"narwharf/hooks/api"
	"narwharf/narinfo/clip"
	"narwharf/nixos/effect"
	"narwharf/nixos/journal"
)

// perform carries out one effect. What fails in the world is an event; an
// error means that the agent was stopped.
func (a *Agent) perform(ctx context.Context, due effect.Effect) (effect.Event, error) {
	ev := a.effect(ctx, due)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return ev, nil
}

func (a *Agent) effect(ctx context.Context, due effect.Effect) effect.Event {
	h := a.Host
	switch e := due.(type) {
	case effect.Poll:
		return a.poll(ctx, e)
	case effect.Prepare:
		f, err := h.Facts(ctx)
		if err != nil {
			return effect.Prepared{Err: err.Error()}
		}
		return a.Stager.Prepare(ctx, e, f.Current)
	case effect.Realise:
		return a.whileReporting(ctx, func() effect.Event { return a.Stager.Realise(ctx, e) })
	case effect.Inspect:
		return a.inspect(ctx, e)
	case effect.Announce:
		return effect.Announced{OK: a.reportNow(ctx) == nil}
	case effect.AskOwn:
		err := a.reportNow(ctx)
		return effect.Asked{OK: err == nil, Refused: refusal(err) != ""}
	case effect.Switch:
		return a.whileReporting(ctx, func() effect.Event { return a.run(ctx, e) })
	case effect.Observe:
		return a.observe(ctx, e)
	case effect.Confirm:
		return a.confirm(ctx, e)
	case effect.Witness:
		alive, text := h.Witness(ctx)
		return effect.Witnessed{Alive: alive, Text: text}
	case effect.SetProfile:
		return a.setProfile(ctx, e)
	case effect.ResetProfile:
		a.pause(ctx, e.Delay)
		if e.Link == "" {
			return profileSet(errors.Join(h.SetProfile(ctx, e.Path), h.Sync(ctx)))
		}
		return profileSet(errors.Join(h.ResetProfile(ctx, e.Link, e.Bad), h.Sync(ctx)))
	case effect.Protect:
		return a.protect(ctx, e)
	case effect.RunHook:
		a.pause(ctx, e.Delay)
		return a.whileReporting(ctx, func() effect.Event { return effect.Hooked{Err: words(h.Hook(ctx, e.Hook, e.Env))} })
	case effect.Reboot:
		return effect.StillUp{Err: words(h.Reboot(ctx))}
	}
	panic(fmt.Sprintf("no such effect: %T", due))
}

func profileSet(err error) effect.ProfileSet { return effect.ProfileSet{Err: words(err)} }

// words are an error's, "" of none.
func words(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// pause ends early with ctx, which whoever carries out effects looks at.
func (a *Agent) pause(ctx context.Context, d time.Duration) {
	if d > 0 {
		_ = a.Host.Sleep(ctx, d)
	}
}

func (a *Agent) setProfile(ctx context.Context, e effect.SetProfile) effect.Event {
	f, err := a.facts(ctx)
	if err == nil && e.Live && f.Current != e.Path {
		return effect.ProfileSet{Drifted: true}
	}
	if err == nil && f.ProfileFault != "" && f.Profile != "" && f.Profile != e.Path {
		// It had no generation: there is to be one to go back to.
		if err = a.Host.SetProfile(ctx, f.Profile); err == nil {
			f, err = a.facts(ctx)
		}
	}
	if err == nil {
		err = a.Host.SetProfile(ctx, e.Path)
	}
	ev := profileSet(errors.Join(err, a.Host.Sync(ctx)))
	ev.Link, ev.Path = f.ProfileLink, f.Profile
	return ev
}

func (a *Agent) protect(ctx context.Context, e effect.Protect) effect.Event {
	err := a.Host.Root(ctx, RootConfirmed, e.Path)
	if e.Before != "" && err == nil {
		// Where it is gone by now, nobody can go back to it anyway.
		if gone := a.Host.Root(ctx, RootBefore, e.Before); gone != nil {
			a.Log.Warn("the system confirmed before cannot be protected", "path", e.Before, "error", gone)
		}
	}
	return effect.Protected{Err: words(err)}
}

func (a *Agent) inspect(ctx context.Context, e effect.Inspect) effect.Inspected {
	fail := func(what string, err error) effect.Inspected {
		return effect.Inspected{Err: what + ": " + err.Error()}
	}
	busy, err := a.Host.Busy(ctx)
	if err != nil {
		return fail("ask whether somebody else switches", err)
	}
	if busy != "" {
		return effect.Inspected{Busy: busy}
	}
	f, err := a.facts(ctx)
	if err != nil {
		return fail("look at the host", err)
	}
	if f.Current != "" && f.Current != e.Path {
		if err := a.Host.Root(ctx, RootPrevious, f.Current); err != nil {
			return fail("protect the running system", err)
		}
	}
	var ev effect.Inspected
	path := e.Path
	if _, ev.Specialisation = a.Host.Specialisations(path)[e.Specialisation]; ev.Specialisation {
		path += "/specialisation/" + e.Specialisation
	}
	reasons, err := a.Host.Reasons(ctx, path)
	if err != nil {
		return fail("find out whether a reboot is needed", err)
	}
	ev.RebootFor, ev.Inhibited, ev.CanCheck = reasons.Reboot, reasons.Inhibited, reasons.CanCheck
	units, err := a.Host.Units(ctx, f.Current, path)
	if err != nil {
		return fail("list the failed units", err)
	}
	for _, u := range units {
		ev.Failed = append(ev.Failed, u.Name)
	}
	return ev
}

// run begins a run of switch-to-configuration unless that was done, and sees it through to
// its end.
func (a *Agent) run(ctx context.Context, e effect.Switch) effect.Event {
	a.pause(ctx, e.Delay)
	st, busy, err := a.begin(ctx, e.Run)
	if busy != "" {
		return effect.Switched{Busy: busy}
	}
	for ctx.Err() == nil && (err != nil || (st.Active && !st.Ended)) {
		if err != nil {
			a.Log.Warn("the state of the switch is not known", "run", e.Run.ID, "error", err)
		}
		if a.Host.Sleep(ctx, 200*time.Millisecond) != nil {
			break
		}
		st, err = a.Host.RunState(ctx, e.Run)
	}
	if e.Run.Action == "boot" {
		if err := a.bootIsSafe(ctx); err != nil && st.Ended && st.Exit == 0 {
			return effect.Switched{Exit: -1, Text: err.Error()}
		}
	}
	return a.ended(ctx, e.Run, st)
}

// ended is the end of a run, with what its words say beyond its exit code.
func (a *Agent) ended(ctx context.Context, r journal.Run, st RunState) effect.Switched {
	ev := effect.Switched{Exit: st.Exit, Text: st.Text, Lost: !st.Ended}
	if !st.Ended || st.Exit == effect.ExitFine || st.Exit == effect.ExitReboot {
		return ev
	}
	text, err := a.Host.RunLog(ctx, r, 4<<20)
	if err != nil {
		a.Log.Warn("what a run wrote cannot be read", "run", r.ID, "error", err)
	}
	// A live switch also ends so where logind goes away in the middle of it; boot and check do not.
	mute := text == "" && st.Exit == effect.ExitLocked && (r.Action == "boot" || r.Action == "check")
	switch {
	case mute, st.Exit != effect.ExitUnitsFailed && lockHeld.MatchString(text) && !didSomething.MatchString(text):
		return effect.Switched{Busy: "somebody else runs switch-to-configuration: it could not acquire its lock", Began: true}
	case st.Exit != effect.ExitUnitsFailed:
		ev.Last = clip.Text(a.Host.LastLines(ctx, r), 300)
	case activationFailed.MatchString(text):
		// A unit that failed, also long ago, makes 4 of 2.
		ev.Exit, ev.Last = effect.ExitActivation, "4 in truth, since units failed, too; it wrote that its activation script failed"
	}
	return ev
}

// What switch-to-configuration writes (nixpkgs, pkgs/by-name/sw/switch-to-configuration-ng), or
// the activation script itself: the one in Perl says nothing of that.
var (
	lockHeld         = regexp.MustCompile(`(?m)(^|: )Could not acquire lock$`)
	didSomething     = regexp.MustCompile(`(?m)(^|: )(stopping the following units|activating the configuration|Failed to install bootloader|Pre-switch checks failed)`)
	activationFailed = regexp.MustCompile(`(?m)(^|: )(Failed to run activate script$|Activation script snippet '[^']*' failed \([0-9]+\)$)`)
)

// begin begins a run unless that was done. busy is why it did not: who else switches the
// host, or what failed.
func (a *Agent) begin(ctx context.Context, r journal.Run) (st RunState, busy string, err error) {
	st, err = a.Host.RunState(ctx, r)
	if err != nil || st.Begun || st.Active || st.Ended {
		return st, "", err
	}
	if busy, err = a.Host.Busy(ctx); err != nil {
		return st, err.Error(), nil
	}
	if busy != "" {
		return st, busy, nil
	}
	started := a.Host.StartRun(ctx, r)
	st, err = a.Host.RunState(ctx, r)
	if started != nil && err == nil && !st.Begun && !st.Ended {
		busy = started.Error()
	}
	return st, busy, err
}

// bootIsSafe makes the boot entry durable, and looks whether it is whole.
func (a *Agent) bootIsSafe(ctx context.Context) error {
	if err := a.Host.Sync(ctx); err != nil {
		return fmt.Errorf("a failed sync: %w", err)
	}
	return a.Host.BootRoom(ctx)
}

func (a *Agent) observe(ctx context.Context, e effect.Observe) effect.Event {
	a.pause(ctx, e.Delay)
	units, err := a.Host.Units(ctx, e.From, e.Path)
	if err != nil {
		return effect.Observed{Err: err.Error()}
	}
	checks, err := a.Host.Checks(ctx, e.Path)
	if err != nil {
		return effect.Observed{Err: err.Error()}
	}
	return effect.Observed{Units: units, Checks: checks}
}

func (a *Agent) confirm(ctx context.Context, e effect.Confirm) effect.Event {
	f, err := a.facts(ctx)
	if err != nil {
		return effect.Probed{Outcome: effect.ProbeBroken, Text: err.Error()}
	}
	s := a.status(f)
	a.number(s)
	s.Confirm = e.Nonce
	return a.Host.Confirm(ctx, s, func(ctx context.Context, s *api.Status) effect.Probed { return a.Host.Probe(ctx, e.Path, s) })
}
