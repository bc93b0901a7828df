package nixos

import (
	"context"
	"slices"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos/effect"
	"narwharf/nixos/journal"
	"narwharf/nixos/machine"
)

// repeatAfter is when a host at rest repeats a report that says nothing new: a server that
// was restored from a backup may have forgotten it.
const repeatAfter = time.Hour

// keepAlive is the same while something is under way. The host does not poll then, and the
// server takes one that it has not heard of for 90 s for gone.
const keepAlive = 30 * time.Second

// whileReporting does work that may take long and that asks nothing of the agent, and
// reports meanwhile that the host is there.
func (a *Agent) whileReporting(ctx context.Context, work func() effect.Event) effect.Event {
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(keepAlive)
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
		<-ended
	}()
	return work()
}

// report hands the status over if it is another than before.
func (a *Agent) report(ctx context.Context, f effect.Facts) {
	s := a.status(f)
	repeat := repeatAfter
	if !machine.Resting(a.journal.Attempt) {
		repeat = keepAlive
	}
	if a.reported != nil && sameStatus(a.reported, s) && f.Now-a.reportedAt < repeat.Milliseconds() {
		return
	}
	a.reportedAt = f.Now
	a.number(s)
	a.reported = s
	a.Host.Report(ctx, s)
	if a.Observe != nil {
		a.Observe(s, a.journal)
	}
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

// A sentReport is how many transitions of an attempt the server knows once it has taken the
// report with that counter.
type sentReport struct {
	counter int64
	attempt string
	upTo    int
}

// number gives a report its place among those of this start.
func (a *Agent) number(s *api.Status) {
	a.counter++
	s.Counter = a.counter
	r := sentReport{counter: a.counter, attempt: s.Attempt}
	if t := a.journal.Attempt; t != nil && t.ID == s.Attempt {
		r.upTo = t.Forgotten + len(t.Transitions)
	}
	a.sent = append(a.sent, r)
	a.sent = a.sent[max(len(a.sent)-journal.MaxTransitions, 0):]
}

// unacknowledged are the transitions that the server may not know. A new process does not
// know what the server has, and sends them again.
func (a *Agent) unacknowledged(t *journal.Attempt) []api.Transition {
	taken := a.Host.Delivered()
	for len(a.sent) > 0 && a.sent[0].counter <= taken {
		a.acknowledged, a.sent = a.sent[0], a.sent[1:]
	}
	if a.acknowledged.attempt != t.ID {
		return slices.Clone(t.Transitions)
	}
	return slices.Clone(t.Transitions[min(max(a.acknowledged.upTo-t.Forgotten, 0), len(t.Transitions)):])
}
