package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"time"

	"narwharf/hooks/api"
	"narwharf/signing"
)

// hostSystem is Nix's name of this machine's kind.
func hostSystem() string {
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64", "386": "i686"}[runtime.GOARCH]
	if arch == "" {
		arch = runtime.GOARCH
	}
	return arch + "-" + runtime.GOOS
}

// The exit codes of --wait.
const (
	exitReverted   = 3
	exitSuperseded = 4
	exitTimeout    = 5
)

type hostList struct {
	Hosts []api.Host `json:"hosts"`
}

// waitResult is what --wait --json prints.
type waitResult struct {
	Channel string     `json:"channel"`
	Seq     int64      `json:"seq"`
	Outcome string     `json:"outcome"`
	Seconds float64    `json:"seconds"`
	Hosts   []api.Host `json:"hosts"`
}

// waitFor follows the hosts of a channel until each that is there has ended
// its attempt at a release, and prints a line for each change.
func (p *promoter) waitFor(ctx context.Context, a *api.Promoted) error {
	start := time.Now()
	deadline := start.Add(p.f.waitTimeout)
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	w := &waiter{p: p, seq: a.Seq, start: start, said: make(map[string]string)}
	etag := ""
	for {
		call := api.Call{Path: "/api/v1/hosts", Query: url.Values{"channel": {p.channel}}, IfNoneMatch: etag, MaxBody: 256 << 20}
		if etag != "" {
			call.Wait = min(20*time.Second, max(time.Until(deadline), time.Second))
			if left := p.f.offline - time.Since(start); left > 0 {
				call.Wait = min(call.Wait, left.Truncate(time.Second)+time.Second) // then it matters who is offline
			}
		}
		answer, err := p.api.Do(ctx, call)
		if ctx.Err() != nil {
			return w.end(ctx, "timeout")
		}
		var e *api.Error
		switch {
		case errors.As(err, &e) && e.Kind != api.Unavailable && e.Kind != api.Internal:
			return err
		case err != nil: // the server restarts, a link is down: go on
			fmt.Fprintf(p.cmd.ErrOrStderr(), "waiting for the server: %v\n", err)
			select {
			case <-time.After(2 * time.Second):
			case <-ctx.Done():
			}
			etag = ""
			continue
		case answer.Status != 304:
			etag = answer.ETag
			var list hostList
			if err := answer.Decode(&list); err != nil {
				return err
			}
			w.hosts = list.Hosts
		}
		done, outcome := w.look(time.Now())
		if done {
			return w.end(ctx, outcome)
		}
	}
}

type waiter struct {
	p     *promoter
	seq   int64
	start time.Time
	hosts []api.Host
	said  map[string]string
}

// look judges what the hosts declared. Nothing is inferred: a host counts as
// done when it said so, about this seq.
func (w *waiter) look(now time.Time) (done bool, outcome string) {
	outcome = "completed"
	waiting := 0
	for _, h := range w.hosts {
		line, state := w.judge(h, now)
		if w.said[h.Host] != line && !w.p.f.client.json {
			w.said[h.Host] = line
			fmt.Fprintf(w.p.cmd.OutOrStdout(), "%6.1fs  %-20s %s\n", now.Sub(w.start).Seconds(), h.Host, line)
		}
		switch state {
		case "superseded":
			return true, state
		case "reverted":
			outcome = state
		case "waiting":
			waiting++
		}
	}
	if waiting > 0 {
		return false, ""
	}
	if len(w.hosts) == 0 && now.Sub(w.start) < w.p.f.offline {
		return false, "" // nobody follows yet; somebody may come back
	}
	return true, outcome
}

func (w *waiter) judge(h api.Host, now time.Time) (line, state string) {
	if h.WantedSeq > w.seq {
		return fmt.Sprintf("superseded by seq %d", h.WantedSeq), "superseded"
	}
	if h.Wanted == "" {
		return "not in this release", "done"
	}
	gone := ""
	if !h.Online && (h.Slot == nil || h.Slot.Late) && now.Sub(w.start) >= w.p.f.offline {
		gone = "offline since " + timeText(h.LastSeen) + ", not waited for"
	}
	st := h.Status
	if st == nil || st.Seq < w.seq {
		if gone != "" {
			return gone, "done"
		}
		if !h.Online {
			return "offline", "waiting"
		}
		if h.WaitingFor != nil {
			return waitingText(h.WaitingFor), "waiting"
		}
		return "told", "waiting"
	}
	line = string(st.State)
	switch st.State {
	case api.OK, api.Testing, api.DryRunDone:
		if t := st.Durations["total"]; t > 0 {
			line += fmt.Sprintf(" in %.1fs", float64(t)/1000)
		}
		if st.Unconfirmed {
			line += " (unconfirmed: it could not reach the server)"
		}
		return line, "done"
	case api.Armed:
		asks := st.WaitingFor != nil && st.WaitingFor.Asks && (h.WaitingFor == nil || h.WaitingFor.Kind != api.WaitReboot)
		if st.Action == string(signing.Reboot) || asks {
			break // it is to be rebooted, and has not been
		}
		line = "armed: boots it at the next reboot (" + strings.Join(st.NeedRebootFor, ", ") + ")"
		if st.WaitingFor != nil && st.WaitingFor.Asks {
			line += "; " + h.WaitingFor.Detail
		}
		return line, "done"
	case api.TestOver, api.NotInRelease:
		return line, "done"
	case api.Reverted, api.Failed, api.Rejected, api.Drifted:
		if st.Error != "" {
			line += ": " + st.Error
		}
		return line, "reverted"
	}
	if gone != "" {
		return line + ", " + gone, "done"
	}
	if st.State == api.StageFailed {
		return line + ": " + st.Error + " (it tries again)", "waiting"
	}
	if h.Slot != nil && !h.Online {
		return line + ", reboots", "waiting"
	}
	why := st.WaitingFor
	if why != nil && why.Asks {
		why = h.WaitingFor // which the host may not have heard yet
	}
	if why != nil {
		line += ", " + waitingText(why)
		if why.Kind == api.WaitHold || h.Hold != nil {
			return line, "done"
		}
	}
	return line, "waiting"
}

func waitingText(w *api.Waiting) string {
	if w.Detail == "" {
		return "waits: " + string(w.Kind)
	}
	return fmt.Sprintf("waits: %s (%s)", w.Kind, w.Detail)
}

func (w *waiter) end(ctx context.Context, outcome string) error {
	took := time.Since(w.start).Seconds()
	if ctx.Err() != nil && outcome != "timeout" {
		outcome = "timeout"
	}
	if w.p.f.client.json {
		if err := printJSON(w.p.cmd, waitResult{w.p.channel, w.seq, outcome, took, w.hosts}); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(w.p.cmd.OutOrStdout(), "%s: seq %d of %s after %.1fs\n", outcome, w.seq, w.p.channel, took)
	}
	switch outcome {
	case "completed":
		if len(w.hosts) == 0 {
			fmt.Fprintf(w.p.cmd.ErrOrStderr(), "no host follows %s: the release is there, and nobody runs it\n", w.p.channel)
		}
		return nil
	case "reverted":
		return exitError{code: exitReverted}
	case "superseded":
		return exitError{code: exitSuperseded}
	default:
		var late []string
		for _, h := range w.hosts {
			if _, state := w.judge(h, time.Now()); state == "waiting" {
				late = append(late, h.Host)
			}
		}
		slices.Sort(late)
		return exitError{exitTimeout, fmt.Errorf("not done after %s: %s", w.p.f.waitTimeout, strings.Join(late, ", "))}
	}
}

// rollbackEntries takes the entries of an earlier release, verified.
func (p *promoter) rollbackEntries(ctx context.Context, to int64) ([]leaf, error) {
	a, err := p.api.Do(ctx, api.Call{Path: fmt.Sprintf("%s/releases/%d", channelPath(p.channel), to), MaxBody: 256 << 20})
	if err != nil {
		return nil, err
	}
	r := new(signing.Release)
	if err := a.Decode(r); err != nil {
		return nil, err
	}
	head, _, err := r.Check()
	if err != nil {
		return nil, err
	}
	if head.Seq != to {
		return nil, fmt.Errorf("the server answered with seq %d instead of %d", head.Seq, to)
	}
	if _, err := signing.VerifyHead(r.Head, signing.Trust{Keys: p.trusted, Threshold: 1, Origin: p.baseHead.Origin, Channel: p.channel}); err != nil {
		return nil, fmt.Errorf("release %d of %s: %w", to, p.channel, err)
	}
	return readLeaves(r.Entries)
}
