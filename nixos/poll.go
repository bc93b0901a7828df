package nixos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos/effect"
	"narwharf/nixos/journal"
)

// poll asks the server. How long it parks, and how it backs off from a server
// that does not answer, is no business of the state machine's.
func (a *Agent) poll(ctx context.Context, e effect.Poll) effect.Event {
	a.postLog(ctx)
	wait := a.Poll
	if a.cut {
		wait /= 2
	}
	if e.For > 0 {
		wait = min(wait, e.For)
	}
	// Not all hosts of a fleet in the same second.
	wait += time.Duration(rand.Int64N(int64(wait)/5+1)) - wait/10
	if !a.answered || e.Now {
		wait = 0 // an answer comes at once, also if it is an old one
	}
	if left := a.left(ctx, e.Until); left > 0 {
		if left < time.Second { // a poll parks for whole ones
			a.pause(ctx, left)
			return effect.Polled{}
		}
		wait = min(wait, left)
	}
	d, tag, err := a.Host.Desired(ctx, e.ETag, a.Machine.Have(a.journal), wait)
	switch {
	case err == nil:
		a.noteAnswer()
		a.cut = false
		return effect.Polled{Desired: d, ETag: tag}
	case errors.Is(err, api.ErrNotModified):
		a.noteAnswer()
		return effect.Polled{}
	case ctx.Err() != nil, e.Now:
		return effect.Polled{}
	}
	pause := a.noteFailure(err, wait > 0)
	if e.For > 0 {
		pause = min(pause, e.For)
	}
	if left := a.left(ctx, e.Until); left > 0 {
		pause = min(pause, left)
	}
	a.pause(ctx, pause)
	return effect.Polled{}
}

// noteFailure notes that a poll came to nothing, and says how long to leave the server alone.
func (a *Agent) noteFailure(err error, parked bool) (pause time.Duration) {
	a.fails++
	if text := refusal(err); text != "" {
		a.noteRefusal(text)
	} else if a.fails == 2 || a.fails%20 == 0 { // once may be a restart of the server
		a.noteRefusal("not reached: " + err.Error())
	}
	pause = min(time.Second<<min(a.fails-1, 6), time.Minute)
	pause += time.Duration(rand.Int64N(int64(pause)))
	var refused *api.Error
	if errors.As(err, &refused) {
		a.cut = a.cut || refused.Status == 502 || refused.Status == 504
		if refused.Kind == api.IdentityConflict {
			pause = time.Minute // until a person has decided
		}
		if refused.RetryAfter > 0 {
			pause = refused.RetryAfter + time.Duration(rand.Int64N(int64(2*time.Second)))
		}
	} else if parked {
		a.cut = true // it was parked, and cut: some proxies do that without a word
	}
	if a.fails == 1 || a.fails%20 == 0 {
		a.Log.Warn("the server has no answer", "tries", a.fails, "error", err)
	}
	return pause
}

// left is how long it is until a time of the boot's clock, 0 if it is over or
// none is given.
func (a *Agent) left(ctx context.Context, until int64) time.Duration {
	if until == 0 {
		return 0
	}
	f, err := a.facts(ctx)
	if err != nil {
		return 0
	}
	return max(time.Duration(until-f.Now)*time.Millisecond, 0)
}

// noteAnswer notes that the server is there. One that was away may be another by
// now, from a backup, and is told anew what this host is.
func (a *Agent) noteAnswer() {
	if a.fails > 0 {
		a.reported = nil
	}
	a.fails, a.answered = 0, true
	a.noteRefusal("")
}

// refusal is what a server said that is there and gives no answer, "" of all
// others.
func refusal(err error) string {
	var e *api.Error
	if errors.As(err, &e) && e.Status < 500 {
		return e.Error()
	}
	return ""
}

// noteRefusal keeps it for narwharf agent status.
func (a *Agent) noteRefusal(text string) {
	if a.journal.Refusal != text {
		a.note(func(j *journal.Journal) { j.Refusal = text })
	}
}

// note changes what the machine does not look at. What cannot be saved is not noted.
func (a *Agent) note(change func(*journal.Journal)) {
	next := a.journal.Clone()
	change(next)
	if err := a.Journals.Save(next.Text()); err == nil {
		a.journal = next
	}
}

// postLog sends what switch-to-configuration wrote, once an attempt is over.
func (a *Agent) postLog(ctx context.Context) {
	t := a.journal.Attempt
	if t == nil || t.Phase != journal.Done || t.Run == 0 || t.LogPosted || len(t.Runs) == 0 {
		return
	}
	if err := a.Host.PostLog(ctx, t.ID, a.runLogs(ctx, t.Runs)); err != nil {
		var refused *api.Error
		if !errors.As(err, &refused) || refused.Status >= 500 {
			return // with the next poll
		}
		a.Log.Warn("the server does not take the log", "attempt", t.ID, "error", err)
	}
	if ctx.Err() == nil {
		a.note(func(j *journal.Journal) { j.Attempt.LogPosted = true })
	}
}

// runLogs is what the runs of an attempt wrote, as far as it can be read.
func (a *Agent) runLogs(ctx context.Context, runs []journal.Run) []byte {
	var b bytes.Buffer
	for _, r := range runs {
		text, err := a.Host.RunLog(ctx, r, api.MaxLog/2)
		if err != nil {
			text = "the log cannot be read: " + err.Error()
		}
		fmt.Fprintf(&b, "--- %s/bin/switch-to-configuration %s\n%s\n", r.Path, r.Action, text)
	}
	return b.Bytes()
}
