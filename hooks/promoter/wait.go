package promoter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"narwharf/hooks/api"
	"narwharf/signing"
)

// Outcome is how a wait ended.
type Outcome string

// The outcomes.
const (
	Completed  Outcome = "completed"  // every host that is there says that it runs the release, or will
	Reverted   Outcome = "reverted"   // and some say that they do not, and will not
	Superseded Outcome = "superseded" // a later release came
	TimedOut   Outcome = "timeout"
)

// Result is what the hosts said in the end.
type Result struct {
	Channel string     `json:"channel"`
	Seq     int64      `json:"seq"`
	Outcome Outcome    `json:"outcome"`
	Seconds float64    `json:"seconds"`
	Hosts   []api.Host `json:"hosts"`
	Waiting []string   `json:"-"` // hosts that had not ended
}

// Wait follows the hosts of the channel until each that is there has ended its
// attempt at a release, and prints a line for each change. Hosts that are not
// there are waited for until offline is over.
func (p *Promoter) Wait(ctx context.Context, seq int64, timeout, offline time.Duration) (*Result, error) {
	w := &waiter{p: p, seq: seq, offline: offline, start: time.Now(), printed: make(map[string]string)}
	ctx, cancel := context.WithDeadline(ctx, w.start.Add(timeout))
	defer cancel()
	etag := ""
	for {
		wait := min(20*time.Second, max(time.Until(w.start.Add(timeout)), time.Second))
		if left := offline - time.Since(w.start); left > 0 {
			wait = min(wait, left.Truncate(time.Second)+time.Second) // then it matters who is offline
		}
		hosts, next, err := p.Client.HostsAfter(ctx, p.Channel, etag, wait)
		if ctx.Err() != nil {
			return w.end(TimedOut), nil
		}
		var e *api.Error
		switch {
		case err == nil:
			w.hosts, etag = hosts, next
		case errors.Is(err, api.ErrNotModified):
		case errors.As(err, &e) && e.Kind != api.Unavailable && e.Kind != api.Internal:
			return nil, err
		default: // the server restarts, a link is down: go on
			fmt.Fprintf(p.err, "waiting for the server: %v\n", err)
			select {
			case <-time.After(2 * time.Second):
			case <-ctx.Done():
			}
			etag = ""
			continue
		}
		if done, outcome := w.look(time.Now()); done {
			return w.end(outcome), nil
		}
	}
}

type waiter struct {
	p       *Promoter
	seq     int64
	offline time.Duration
	start   time.Time
	hosts   []api.Host
	printed map[string]string // the last line of each host
}

// look judges what the hosts declared. Nothing is inferred: a host counts as
// done when it said so, about this seq.
func (w *waiter) look(now time.Time) (done bool, outcome Outcome) {
	outcome = Completed
	waiting := 0
	for _, h := range w.hosts {
		line, state := w.judge(h, now)
		if w.printed[h.Host] != line {
			w.printed[h.Host] = line
			fmt.Fprintf(w.p.out, "%6.1fs  %-20s %s\n", now.Sub(w.start).Seconds(), h.Host, line)
		}
		switch state {
		case hostSuperseded:
			return true, Superseded
		case hostReverted:
			outcome = Reverted
		case hostWaits:
			waiting++
		}
	}
	if waiting > 0 {
		return false, ""
	}
	if len(w.hosts) == 0 && now.Sub(w.start) < w.offline {
		return false, "" // nobody follows yet; somebody may come back
	}
	return true, outcome
}

// What a host's part in a wait is.
type hostState int

const (
	hostWaits hostState = iota
	hostDone
	hostReverted
	hostSuperseded
)

// judge says of a host what to print and whether it is waited for.
func (w *waiter) judge(h api.Host, now time.Time) (line string, state hostState) {
	if h.WantedSeq > w.seq {
		return fmt.Sprintf("superseded by seq %d", h.WantedSeq), hostSuperseded
	}
	if h.Wanted == "" {
		return "not in this release", hostDone
	}
	gone := ""
	if !h.Online && (h.Slot == nil || h.Slot.Late) && now.Sub(w.start) >= w.offline {
		gone = "offline since " + api.TimeText(h.LastSeen) + ", not waited for"
	}
	st := h.Status
	if st == nil || st.Seq < w.seq {
		if gone != "" {
			return gone, hostDone
		}
		if !h.Online {
			return "offline", hostWaits
		}
		if h.WaitingFor != nil {
			return h.WaitingFor.Text(), hostWaits
		}
		return "told", hostWaits
	}
	if line, state = ended(h); state != hostWaits {
		return line, state
	}
	if gone != "" {
		return line + ", " + gone, hostDone
	}
	return underWay(h, line)
}

// ended judges a host that may have ended its attempt.
func ended(h api.Host) (line string, state hostState) {
	st := h.Status
	line = string(st.State)
	switch st.State {
	case api.OK, api.Testing, api.DryRunDone:
		if t := st.Durations["total"]; t > 0 {
			line += fmt.Sprintf(" in %.1fs", float64(t)/1000)
		}
		if st.Unconfirmed {
			line += " (unconfirmed: it could not reach the server)"
		}
		return line, hostDone
	case api.Armed:
		asks := st.WaitingFor != nil && st.WaitingFor.Asks && (h.WaitingFor == nil || h.WaitingFor.Kind != api.WaitReboot)
		if st.Action == string(signing.Reboot) || asks {
			break // it is to be rebooted, and has not been
		}
		line = "armed: boots it at the next reboot (" + strings.Join(st.NeedRebootFor, ", ") + ")"
		if st.WaitingFor != nil && st.WaitingFor.Asks {
			line += "; " + h.WaitingFor.Detail
		}
		return line, hostDone
	case api.TestOver, api.NotInRelease:
		return line, hostDone
	case api.Reverted, api.Failed, api.Rejected, api.Drifted:
		if st.Error != "" {
			line += ": " + st.Error
		}
		return line, hostReverted
	}
	return line, hostWaits
}

// underWay says what keeps a host.
func underWay(h api.Host, line string) (string, hostState) {
	st := h.Status
	if st.State == api.StageFailed {
		return line + ": " + st.Error + " (it tries again)", hostWaits
	}
	if h.Slot != nil && !h.Online {
		return line + ", reboots", hostWaits
	}
	why := st.WaitingFor
	if why != nil && why.Asks {
		why = h.WaitingFor // which the host may not have heard yet
	}
	if why != nil {
		line += ", " + why.Text()
		if why.Kind == api.WaitHold || h.Hold != nil {
			return line, hostDone
		}
	}
	return line, hostWaits
}

func (w *waiter) end(outcome Outcome) *Result {
	r := &Result{Channel: w.p.Channel, Seq: w.seq, Outcome: outcome, Seconds: time.Since(w.start).Seconds(), Hosts: w.hosts}
	fmt.Fprintf(w.p.out, "%s: seq %d of %s after %.1fs\n", outcome, w.seq, r.Channel, r.Seconds)
	if outcome == Completed && len(w.hosts) == 0 {
		fmt.Fprintf(w.p.err, "no host follows %s: the release is there, and nobody runs it\n", r.Channel)
	}
	for _, h := range w.hosts {
		if _, state := w.judge(h, time.Now()); state == hostWaits {
			r.Waiting = append(r.Waiting, h.Host)
		}
	}
	slices.Sort(r.Waiting)
	return r
}
