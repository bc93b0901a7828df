package nixos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"narwharf/hooks/api"
	"narwharf/narinfo/clip"
	"narwharf/nixos/journal"
	"narwharf/nixos/machine"
)

// Journals keep the journal. Save is durable when it returns, and after a
// crash the last saved text or the one before it is there, whole.
type Journals interface {
	// Load returns nil text if there is none yet.
	Load() ([]byte, error)
	Save(text []byte) error
}

// An Agent carries out what its Machine wants, one effect at a time.
type Agent struct {
	Host     Host
	Journals Journals
	Machine  machine.Machine
	Stager   *Stager
	Version  string
	Poll     time.Duration // how long a poll may park
	Log      *slog.Logger
	// Observe is told every status that is reported; it may be nil.
	Observe func(*api.Status, *journal.Journal)

	journal  *journal.Journal
	counter  int64
	reported *api.Status
	sent     []sentReport // and not known to be taken
	told     sentReport   // the newest that is
	said     int64        // when the last report was made, on the boot clock
	trouble  string       // why the journal could not be saved
	fails    int          // polls in a row that came to nothing
	short    bool         // a proxy cut the last poll off
	asked    bool         // the server has answered since the start
}

// Journal is what the agent knows; not to be changed.
func (a *Agent) Journal() *journal.Journal { return a.journal }

// Start reads the journal and finds out what became of what it says. With
// journal.ErrNewer the status "failed" is reported and nothing else is touched.
func (a *Agent) Start(ctx context.Context) error {
	text, err := a.Journals.Load()
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	j, err := journal.Parse(text)
	if err != nil {
		f, _ := a.Host.Facts(ctx) // best effort, the journal's error counts
		a.journal = &journal.Journal{State: api.Failed, Error: err.Error(), StartID: f.Wall.Unix()}
		a.report(ctx, f)
		return err
	}
	f, err := a.Host.Facts(ctx)
	if err != nil {
		return fmt.Errorf("look at the host: %w", err)
	}
	a.journal = j
	return a.step(ctx, f, machine.Started{})
}

// Turn carries out the effect that is due. After an error of the journal or
// of ctx nothing has changed, and the same effect is due.
func (a *Agent) Turn(ctx context.Context) error {
	ev, err := a.perform(ctx, a.Machine.Effect(a.journal))
	if err != nil {
		return err
	}
	f, err := a.Host.Facts(ctx)
	if err != nil {
		return fmt.Errorf("look at the host: %w", err)
	}
	return a.step(ctx, f, ev)
}

// step journals what an event comes to, and reports it if it shows.
func (a *Agent) step(ctx context.Context, f machine.Facts, ev machine.Event) error {
	next := a.Machine.Step(a.journal, f, ev)
	if text := next.Text(); !bytes.Equal(text, a.journal.Text()) {
		if err := a.Journals.Save(text); err != nil {
			// A report needs no journal: it says what was, and why it stays so.
			if _, first := ev.(machine.Started); !first { // whose reports have no number yet
				a.trouble = err.Error()
				a.report(ctx, f)
			}
			return err
		}
		a.trouble = ""
		if next.State != a.journal.State || next.Error != a.journal.Error {
			a.Log.Info("state", "state", next.State, "seq", next.Seq, "error", next.Error)
		}
		if t, was := next.Attempt, a.journal.Attempt; t != nil && t.Phase == journal.Jitter && (was == nil || was.Phase != journal.Jitter) {
			a.Log.Info("the download waits for its turn", "seq", next.Seq, "for", time.Duration(t.RetryAt-f.Now)*time.Millisecond)
		}
		if next.Alarm != "" && next.Alarm != a.journal.Alarm {
			a.Log.Error("alarm", "seq", next.Seq, "alarm", next.Alarm)
		}
		a.journal = next
	}
	a.report(ctx, f)
	return nil
}

// sayAgain is how often a host says what it has said before: a server that
// was restored from a backup may have forgotten it.
const sayAgain = time.Hour

// stillHere is the same while something is under way. The host does not poll
// then, and the server takes one that it has not heard of for 90 s for gone.
const stillHere = 30 * time.Second

// busy does work that may take long and that asks nothing of the agent, and
// says meanwhile that the host is there.
func (a *Agent) busy(ctx context.Context, work func() machine.Event) machine.Event {
	over, silent := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(silent)
		tick := time.NewTicker(stillHere)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if f, err := a.Host.Facts(ctx); err == nil {
					a.reported = nil
					a.report(ctx, f)
				}
			case <-over:
				return
			}
		}
	}()
	defer func() {
		close(over)
		<-silent
	}()
	return work()
}

// report hands the status over if it is another than before.
func (a *Agent) report(ctx context.Context, f machine.Facts) {
	s := a.status(f)
	again := sayAgain
	if !machine.Resting(a.journal.Attempt) {
		again = stillHere
	}
	if a.reported != nil && sameStatus(a.reported, s) && f.Now-a.said < again.Milliseconds() {
		return
	}
	a.said = f.Now
	a.number(s)
	a.reported = s
	a.Host.Report(ctx, s)
	if a.Observe != nil {
		a.Observe(s, a.journal)
	}
}

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
		return a.busy(ctx, func() machine.Event { return a.Stager.Realise(ctx, e) })
	case machine.Inspect:
		return a.inspect(ctx, e)
	case machine.Announce:
		return machine.Announced{OK: a.reportNow(ctx) == nil}
	case machine.AskOwn:
		err := a.reportNow(ctx)
		return machine.Asked{OK: err == nil, Refused: refusal(err) != ""}
	case machine.Switch:
		return a.busy(ctx, func() machine.Event { return a.runSwitch(ctx, e) })
	case machine.Observe:
		return a.observe(ctx, e)
	case machine.Confirm:
		return a.confirm(ctx, e)
	case machine.Witness:
		alive, text := h.Witness(ctx)
		return machine.Witnessed{Alive: alive, Text: text}
	case machine.SetProfile:
		f, err := h.Facts(ctx)
		if err == nil && e.Live && f.Current != e.Path {
			return machine.ProfileSet{Drifted: true}
		}
		if err == nil {
			err = h.SetProfile(ctx, e.Path)
		}
		return profileSet(errors.Join(err, h.Sync(ctx)))
	case machine.ResetProfile:
		if e.Link == "" {
			return profileSet(errors.Join(h.SetProfile(ctx, e.Path), h.Sync(ctx)))
		}
		return profileSet(errors.Join(h.ResetProfile(ctx, e.Link, e.Bad), h.Sync(ctx)))
	case machine.Protect:
		err := h.Root(ctx, RootConfirmed, e.Path)
		if e.Before != "" && err == nil {
			// Where it is gone by now, nobody can go back to it anyway.
			if gone := h.Root(ctx, RootBefore, e.Before); gone != nil {
				a.Log.Warn("the system confirmed before cannot be protected", "path", e.Before, "error", gone)
			}
		}
		return machine.Protected{Err: words(err)}
	case machine.RunHook:
		if e.Delay > 0 {
			h.Sleep(ctx, e.Delay) //nolint:errcheck // ends early with ctx, which is looked at
		}
		return a.busy(ctx, func() machine.Event { return machine.Hooked{Err: words(h.Hook(ctx, e.Hook, e.Env))} })
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

// reportNow finds out whether the server can be reached now, so that nobody
// blames the new system if it cannot.
func (a *Agent) reportNow(ctx context.Context) error {
	f, err := a.Host.Facts(ctx)
	if err != nil {
		return err
	}
	s := a.status(f)
	a.number(s)
	err = a.Host.ReportNow(ctx, s)
	if err == nil {
		a.reported = s
	}
	return err
}

// runSwitch begins a run unless that was done, and sees it through to its end.
func (a *Agent) runSwitch(ctx context.Context, e machine.Switch) machine.Event {
	h := a.Host
	if e.Delay > 0 {
		h.Sleep(ctx, e.Delay) //nolint:errcheck // ends early with ctx, which is looked at
	}
	st, err := h.RunState(ctx, e.Run)
	if err == nil && !st.Begun && !st.Active && !st.Ended {
		busy, e1 := h.Busy(ctx)
		switch {
		case e1 != nil:
			return machine.Switched{Busy: e1.Error()}
		case busy != "":
			return machine.Switched{Busy: busy}
		}
		started := h.StartRun(ctx, e.Run)
		st, err = h.RunState(ctx, e.Run)
		if started != nil && err == nil && !st.Begun && !st.Ended {
			return machine.Switched{Busy: started.Error()}
		}
	}
	for ctx.Err() == nil && (err != nil || (st.Active && !st.Ended)) {
		if err != nil {
			a.Log.Warn("the state of the switch is not known", "run", e.Run.ID, "error", err)
		}
		if h.Sleep(ctx, 200*time.Millisecond) != nil {
			break
		}
		st, err = h.RunState(ctx, e.Run)
	}
	if e.Run.Action == "boot" {
		err := h.Sync(ctx)
		if err != nil {
			err = fmt.Errorf("a failed sync: %w", err)
		} else {
			err = h.BootRoom(ctx)
		}
		if err != nil && st.Ended && st.Exit == 0 {
			return machine.Switched{Exit: -1, Text: err.Error()}
		}
	}
	ev := machine.Switched{Exit: st.Exit, Text: st.Text, Lost: !st.Ended}
	if st.Ended && st.Exit != 0 && st.Exit != machine.ExitUnitsFailed && st.Exit != machine.ExitReboot {
		ev.Last = clip.Text(h.LastLines(ctx, e.Run), 300)
	}
	return ev
}

func (a *Agent) observe(ctx context.Context, e machine.Observe) machine.Event {
	if e.Delay > 0 {
		a.Host.Sleep(ctx, e.Delay) //nolint:errcheck // ends early with ctx, which is looked at
	}
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
