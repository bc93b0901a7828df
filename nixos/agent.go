package nixos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos/effect"
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

	journal      *journal.Journal
	counter      int64        // of reports since the start
	reported     *api.Status  // the last report
	reportedAt   int64        // when it was made, on the boot's clock
	sent         []sentReport // and not known to be taken
	acknowledged sentReport   // the newest that is
	saveError    string       // why the journal could not be saved
	fails        int          // polls in a row that came to nothing
	cut          bool         // a proxy cut the last poll off
	answered     bool         // the server has answered since the start
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
	a.journal = j
	f, err := a.facts(ctx)
	if err != nil {
		return fmt.Errorf("look at the host: %w", err)
	}
	return a.step(ctx, f, effect.Started{})
}

// facts are the host's. A specialisation of the attempt's system counts as that system: a
// person chose it at the boot or switched to it, or the configuration has it.
func (a *Agent) facts(ctx context.Context) (effect.Facts, error) {
	f, err := a.Host.Facts(ctx)
	t := a.journal.Attempt
	if err != nil || t == nil {
		return f, err
	}
	for name, path := range a.Host.Specialisations(t.Path) {
		if f.Booted == path {
			f.Booted, f.BootedTo = t.Path, path
		}
		if f.Current == path && path != t.Previous && path != t.Path {
			f.Current, f.Specialisation = t.Path, name
			if f.Profile == t.Path {
				f.CurrentGen = f.Generation
			}
		}
	}
	return f, nil
}

// Turn carries out the effect that is due. After an error of the journal or
// of ctx nothing has changed, and the same effect is due.
func (a *Agent) Turn(ctx context.Context) error {
	ev, err := a.perform(ctx, a.Machine.Effect(a.journal))
	if err != nil {
		return err
	}
	f, err := a.facts(ctx)
	if err != nil {
		return fmt.Errorf("look at the host: %w", err)
	}
	return a.step(ctx, f, ev)
}

// step journals what an event comes to, and reports it if it shows.
func (a *Agent) step(ctx context.Context, f effect.Facts, ev effect.Event) error {
	next := a.Machine.Step(a.journal, f, ev)
	if text := next.Text(); !bytes.Equal(text, a.journal.Text()) {
		if err := a.Journals.Save(text); err != nil {
			// A report needs no journal: it says what was, and why it stays so.
			if _, first := ev.(effect.Started); !first { // whose reports have no number yet
				a.saveError = err.Error()
				a.report(ctx, f)
			}
			return err
		}
		a.saveError = ""
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

// ErrRestart is that the agent should be started again: its unit is another.
var ErrRestart = errors.New("the agent's own unit was changed")

// Run follows the channel until ctx ends. changed tells whether the agent should be
// started anew; it is asked only when nothing is under way.
func (a *Agent) Run(ctx context.Context, changed func(context.Context) bool) error {
	if err := a.Start(ctx); err != nil {
		return err
	}
	for ctx.Err() == nil {
		if changed != nil && a.journal.AtRest() && changed(ctx) {
			return ErrRestart
		}
		a.turn(ctx)
	}
	return nil
}

// turn is Turn, with a pause after what should not happen: a journal that
// cannot be written, a /run that cannot be read.
func (a *Agent) turn(ctx context.Context) {
	if err := a.Turn(ctx); err != nil && ctx.Err() == nil {
		a.Log.Error("no step further", "phase", a.phase(), "error", err)
		a.pause(ctx, 5*time.Second)
	}
}

func (a *Agent) phase() journal.Phase {
	if t := a.journal.Attempt; t != nil {
		return t.Phase
	}
	return ""
}

// ErrNotSettled is that ctx ended before the host was at rest.
var ErrNotSettled = errors.New("the host is not done yet")

// Once runs until the server has answered and nothing is under way.
func (a *Agent) Once(ctx context.Context) (api.State, error) {
	if err := a.Start(ctx); err != nil {
		return api.Failed, err
	}
	for ctx.Err() == nil {
		if a.answered && a.journal.AtRest() {
			a.postLog(ctx)
			return a.journal.State, nil
		}
		a.turn(ctx)
	}
	return a.journal.State, ErrNotSettled
}
