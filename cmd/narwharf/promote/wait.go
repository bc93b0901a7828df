package promote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/summary"
	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/api"
	"narwharf/hooks/api/rollouts"
	"narwharf/hooks/promoter"
	"narwharf/hooks/promoter/follow"
	"narwharf/hooks/rollout"
)

// ended is how a wait ended: what --json prints of a channel with roll-outs.
type ended struct {
	promoter.Result
	Rollout *rollout.Summary `json:"rollout"`
}

// await waits for the hosts of a release: by its roll-out, or host by host where the channel has
// none.
func (f *Flags) await(c *cobra.Command, p *promoter.Promoter, seq int64) error {
	start := time.Now()
	out := f.bar.Writer(c.OutOrStdout())
	if f.client.JSON {
		out = io.Discard
	}
	r, err := f.follow(c, seq, start, out)
	var e *api.Error
	if errors.Is(err, follow.ErrNone) || errors.As(err, &e) && (e.Kind == api.Forbidden || e.Kind == api.NotFound) {
		return f.hosts(c, p, seq, f.timeout)
	}
	if errors.Is(err, context.DeadlineExceeded) && c.Context().Err() == nil {
		return f.end(5, &summary.Outcome{Channel: f.options.Channel, Seq: seq, Words: string(promoter.TimedOut), Seconds: time.Since(start).Seconds(), Line: "the server has not answered", Bad: true})
	}
	if err != nil {
		return err
	}
	if r.State == rollout.Completed && f.options.RequireHosts > r.Well {
		return f.hosts(c, p, seq, f.timeout-time.Since(start)) // those that ran it before count, too
	}
	o := &summary.Outcome{Channel: r.Channel, Seq: seq, Words: string(r.State), Seconds: time.Since(start).Seconds(), Line: follow.Line(r), Bad: r.State != rollout.Completed}
	code, late := f.code(r)
	if late {
		o.Words, o.Bad = string(promoter.TimedOut), true
	}
	for _, h := range r.Faults {
		o.Hosts = append(o.Hosts, fmt.Sprintf("%s: %s", h.Host, h.Fault))
	}
	fmt.Fprintf(out, "%s: seq %d of %s after %.1fs: %s\n", o.Words, seq, r.Channel, o.Seconds, o.Line)
	if next := summary.Next(r); next != "" {
		fmt.Fprintln(c.ErrOrStderr(), "next: "+next)
	}
	if f.client.JSON {
		res := promoter.Result{Channel: r.Channel, Seq: seq, Outcome: promoter.Outcome(o.Words), Seconds: o.Seconds, Hosts: []api.Host{}, Running: r.Well, Summary: o.Line}
		if err := terminal.JSON(c.OutOrStdout(), ended{res, r}); err != nil {
			return err
		}
	}
	return f.end(code, o)
}

// follow prints a line for each thing that happens, until the roll-out has ended or the time is over.
func (f *Flags) follow(c *cobra.Command, seq int64, start time.Time, out io.Writer) (*rollout.Summary, error) {
	ctx, cancel := context.WithDeadline(c.Context(), start.Add(f.timeout))
	defer cancel()
	news := new(follow.News)
	r, err := follow.Run(ctx, follow.Options{
		Client: rollouts.Client{Client: f.options.Client}, Channel: f.options.Channel, Seq: seq,
		See: func(s *rollout.Summary) {
			for _, line := range news.Of(s) {
				fmt.Fprintf(out, "%6.1fs  %s\n", time.Since(start).Seconds(), line)
			}
		},
		Lost: func(err error) { fmt.Fprintf(c.ErrOrStderr(), "waiting for the server: %v\n", err) },
	})
	if errors.Is(err, context.DeadlineExceeded) && r != nil {
		return r, nil
	}
	return r, err
}

// code is the exit status of a roll-out as it is; late is that the time is over.
func (f *Flags) code(r *rollout.Summary) (code int, late bool) {
	switch r.State {
	case rollout.Completed:
		return 0, false
	case rollout.Superseded:
		return 4, false
	case rollout.Halted:
		return 6, false
	case rollout.Aborted:
		return 7, false
	}
	return 5, true
}

// hosts waits host by host.
func (f *Flags) hosts(c *cobra.Command, p *promoter.Promoter, seq int64, timeout time.Duration) error {
	r, err := p.Wait(c.Context(), seq, timeout, f.offline)
	if err == nil && f.client.JSON {
		err = terminal.JSON(c.OutOrStdout(), r)
	}
	if err != nil {
		return err
	}
	code := map[promoter.Outcome]int{promoter.Completed: 0, promoter.Reverted: 3, promoter.Superseded: 4}
	n, ok := code[r.Outcome]
	if !ok {
		n = 5
	}
	return f.end(n, &summary.Outcome{Channel: r.Channel, Seq: seq, Words: string(r.Outcome), Seconds: r.Seconds, Line: r.Summary, Bad: n != 0})
}

// end writes the outcome of --summary, and is the exit status.
func (f *Flags) end(code int, o *summary.Outcome) error {
	if f.summary != "" {
		if err := f.summarise(nil, o); err != nil {
			return err
		}
	}
	switch code {
	case 0:
		return nil
	case 5:
		return command.Failed{Code: 5, Err: fmt.Errorf("not done after %s: %s", f.timeout, o.Line)}
	}
	return command.Exit(code)
}
