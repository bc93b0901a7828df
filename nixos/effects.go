package nixos

import (
	"context"
	"errors"
	"fmt"
	"time"

	"narwharf/hooks/api"
	"narwharf/narinfo/clip"
	"narwharf/nixos/journal"
	"narwharf/nixos/machine"
)

// perform carries out one effect. What fails in the world is an event; an
// error means that the agent was stopped.
func (a *Agent) perform(ctx context.Context, effect machine.Effect) (machine.Event, error) {
	ev := a.effect(ctx, effect)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return ev, nil
}

func (a *Agent) effect(ctx context.Context, effect machine.Effect) machine.Event {
	h := a.Host
	switch e := effect.(type) {
	case machine.Poll:
		return a.poll(ctx, e)
	case machine.Prepare:
		f, err := h.Facts(ctx)
		if err != nil {
			return machine.Prepared{Err: err.Error()}
		}
		return a.Stager.Prepare(ctx, e, f.Current)
	case machine.Realise:
		return a.whileReporting(ctx, func() machine.Event { return a.Stager.Realise(ctx, e) })
	case machine.Inspect:
		return a.inspect(ctx, e)
	case machine.Announce:
		return machine.Announced{OK: a.reportNow(ctx) == nil}
	case machine.AskOwn:
		err := a.reportNow(ctx)
		return machine.Asked{OK: err == nil, Refused: refusal(err) != ""}
	case machine.Switch:
		return a.whileReporting(ctx, func() machine.Event { return a.run(ctx, e) })
	case machine.Observe:
		return a.observe(ctx, e)
	case machine.Confirm:
		return a.confirm(ctx, e)
	case machine.Witness:
		alive, text := h.Witness(ctx)
		return machine.Witnessed{Alive: alive, Text: text}
	case machine.SetProfile:
		return a.setProfile(ctx, e)
	case machine.ResetProfile:
		if e.Link == "" {
			return profileSet(errors.Join(h.SetProfile(ctx, e.Path), h.Sync(ctx)))
		}
		return profileSet(errors.Join(h.ResetProfile(ctx, e.Link, e.Bad), h.Sync(ctx)))
	case machine.Protect:
		return a.protect(ctx, e)
	case machine.RunHook:
		a.pause(ctx, e.Delay)
		return a.whileReporting(ctx, func() machine.Event { return machine.Hooked{Err: words(h.Hook(ctx, e.Hook, e.Env))} })
	case machine.Reboot:
		return machine.StillUp{Err: words(h.Reboot(ctx))}
	}
	panic(fmt.Sprintf("no such effect: %T", effect))
}

func profileSet(err error) machine.ProfileSet { return machine.ProfileSet{Err: words(err)} }

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

func (a *Agent) setProfile(ctx context.Context, e machine.SetProfile) machine.Event {
	f, err := a.Host.Facts(ctx)
	if err == nil && e.Live && f.Current != e.Path {
		return machine.ProfileSet{Drifted: true}
	}
	if err == nil {
		err = a.Host.SetProfile(ctx, e.Path)
	}
	return profileSet(errors.Join(err, a.Host.Sync(ctx)))
}

func (a *Agent) protect(ctx context.Context, e machine.Protect) machine.Event {
	err := a.Host.Root(ctx, RootConfirmed, e.Path)
	if e.Before != "" && err == nil {
		// Where it is gone by now, nobody can go back to it anyway.
		if gone := a.Host.Root(ctx, RootBefore, e.Before); gone != nil {
			a.Log.Warn("the system confirmed before cannot be protected", "path", e.Before, "error", gone)
		}
	}
	return machine.Protected{Err: words(err)}
}

func (a *Agent) inspect(ctx context.Context, e machine.Inspect) machine.Inspected {
	fail := func(what string, err error) machine.Inspected {
		return machine.Inspected{Err: what + ": " + err.Error()}
	}
	busy, err := a.Host.Busy(ctx)
	if err != nil {
		return fail("ask whether somebody else switches", err)
	}
	if busy != "" {
		return machine.Inspected{Busy: busy}
	}
	f, err := a.Host.Facts(ctx)
	if err != nil {
		return fail("look at the host", err)
	}
	if f.Current != "" && f.Current != e.Path {
		if err := a.Host.Root(ctx, RootPrevious, f.Current); err != nil {
			return fail("protect the running system", err)
		}
	}
	var ev machine.Inspected
	reasons, err := a.Host.Reasons(ctx, e.Path)
	if err != nil {
		return fail("find out whether a reboot is needed", err)
	}
	ev.RebootFor, ev.Inhibited, ev.CanCheck = reasons.Reboot, reasons.Inhibited, reasons.CanCheck
	if ev.Failed, err = a.Host.FailedUnits(ctx); err != nil {
		return fail("list the failed units", err)
	}
	return ev
}

// run begins a run of switch-to-configuration unless that was done, and sees it through to
// its end.
func (a *Agent) run(ctx context.Context, e machine.Switch) machine.Event {
	a.pause(ctx, e.Delay)
	st, busy, err := a.begin(ctx, e.Run)
	if busy != "" {
		return machine.Switched{Busy: busy}
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
			return machine.Switched{Exit: -1, Text: err.Error()}
		}
	}
	ev := machine.Switched{Exit: st.Exit, Text: st.Text, Lost: !st.Ended}
	if st.Ended && st.Exit != 0 && st.Exit != machine.ExitUnitsFailed && st.Exit != machine.ExitReboot {
		ev.Last = clip.Text(a.Host.LastLines(ctx, e.Run), 300)
	}
	return ev
}

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

func (a *Agent) observe(ctx context.Context, e machine.Observe) machine.Event {
	a.pause(ctx, e.Delay)
	failed, err := a.Host.FailedUnits(ctx)
	if err != nil {
		return machine.Observed{Err: err.Error()}
	}
	checks, err := a.Host.Checks(ctx, e.Path)
	if err != nil {
		return machine.Observed{Err: err.Error()}
	}
	return machine.Observed{Failed: failed, Checks: checks}
}

func (a *Agent) confirm(ctx context.Context, e machine.Confirm) machine.Event {
	f, err := a.Host.Facts(ctx)
	if err != nil {
		return machine.Probed{Outcome: machine.ProbeBroken, Text: err.Error()}
	}
	s := a.status(f)
	a.number(s)
	s.Confirm = e.Nonce
	return a.Host.Confirm(ctx, s, func(ctx context.Context, s *api.Status) machine.Probed { return a.Host.Probe(ctx, e.Path, s) })
}
