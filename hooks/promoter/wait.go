package promoter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"narwharf/hooks/api"
	"narwharf/narinfo/clip"
	"narwharf/signing"
)

// Outcome is how a wait ended.
type Outcome string

// The outcomes.
const (
	Completed  Outcome = "completed"  // nothing is to be waited for; Summary says who runs the release and who does not
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
	Running int        `json:"running"` // hosts that run the release, as they said
	Summary string     `json:"summary"` // who does and who does not, in words
	Waiting []string   `json:"-"`       // hosts that had not ended
}

// Wait follows the hosts of the channel until each that is there has ended its
// attempt at a release, and prints a line for each change. Hosts that are not
// there are waited for until offline is over, and on if there are no others; with
// RequireHosts it goes on until so many run the release.
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
	count := make(map[hostState]int)
	for _, h := range w.hosts {
		line, state := w.judge(h, now)
		if w.printed[h.Host] != line {
			w.printed[h.Host] = line
			fmt.Fprintf(w.p.out, "%6.1fs  %-20s %s\n", now.Sub(w.start).Seconds(), clip.Line(h.Host, maxWords), clip.Line(line, maxWords))
		}
		count[state]++
	}
	switch {
	case count[hostSuperseded] > 0:
		return true, Superseded
	case count[hostWaits] > 0:
		return false, ""
	case len(w.hosts) == 0 && now.Sub(w.start) < w.offline:
		return false, "" // nobody follows yet; somebody may come back
	case count[hostReverted] > 0:
		return true, Reverted
	case count[hostRuns] < w.p.RequireHosts:
		return false, ""
	case count[hostOffline] > 0 && count[hostRuns]+count[hostArmed]+count[hostHeld] == 0:
		return false, "" // nobody is there at all
	}
	return true, Completed
}

// maxWords is how much of what a host says is printed, in bytes.
const maxWords = 1000

// What a host's part in a wait is.
type hostState int

const (
	hostWaits hostState = iota
	hostRuns
	hostArmed
	hostHeld
	hostOffline
	hostNot  // it is not concerned
	hostBack // somebody asked it to leave the release
	hostReverted
	hostSuperseded
)

// parts say what hosts that do not run the release do, in this order.
var parts = []struct {
	state hostState
	words string
}{
	{hostReverted, "went back or failed"},
	{hostWaits, "not done"},
	{hostArmed, "armed, and run it from their next reboot on"},
	{hostHeld, "held or paused"},
	{hostBack, "back on what they ran before, as somebody asked"},
	{hostOffline, "offline, not waited for"},
	{hostSuperseded, "told of a later release"},
}

// summary is who runs the release and who does not.
func (w *waiter) summary(now time.Time) (running int, text string, waiting []string) {
	names := make(map[hostState][]string)
	concerned := 0
	for _, h := range w.hosts {
		_, state := w.judge(h, now)
		names[state] = append(names[state], clip.Line(h.Host, maxWords))
		if state != hostNot {
			concerned++
		}
	}
	running = len(names[hostRuns])
	switch {
	case len(w.hosts) == 0:
		text = "no host follows " + w.p.Channel
	case concerned == 0:
		text = fmt.Sprintf("none of %d hosts is in the release", len(w.hosts))
	case running == concerned:
		text = fmt.Sprintf("all %d hosts run it", running)
	default:
		text = fmt.Sprintf("%d of %d hosts run it", running, concerned)
	}
	if running < w.p.RequireHosts {
		text += fmt.Sprintf(", and %d are required", w.p.RequireHosts)
	}
	for _, part := range parts {
		if list := names[part.state]; list != nil {
			slices.Sort(list)
			text += fmt.Sprintf("; %s: %s", part.words, listed(list, 10, ", "))
		}
	}
	return running, text, names[hostWaits]
}

// judge says of a host what to print and whether it is waited for.
func (w *waiter) judge(h api.Host, now time.Time) (line string, state hostState) {
	if h.WantedSeq > w.seq {
		return fmt.Sprintf("superseded by seq %d", h.WantedSeq), hostSuperseded
	}
	if h.Wanted == "" {
		return "not in this release", hostNot
	}
	gone := ""
	if !h.Online && (h.Slot == nil || h.Slot.Overdue) && now.Sub(w.start) >= w.offline {
		gone = "offline since " + api.TimeText(h.LastSeen) + ", not waited for"
	}
	st := h.Status
	if st == nil || st.Seq < w.seq {
		switch {
		case h.Hold != nil:
			return "held: " + h.Hold.Reason + ", by " + h.Hold.By, hostHeld
		case st != nil && st.Pause != nil:
			return "paused on the host: " + st.Pause.Reason + ", by " + st.Pause.By, hostHeld
		case gone != "":
			return gone, hostOffline
		case !h.Online:
			return "offline", hostWaits
		case h.WaitingFor != nil:
			return h.WaitingFor.Text(), hostWaits
		}
		return "told", hostWaits
	}
	if line, state = ended(h); state != hostWaits {
		return line, state
	}
	if gone != "" {
		return line + ", " + gone, hostOffline
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
		return line, hostRuns
	case api.Armed:
		asks := st.WaitingFor != nil && st.WaitingFor.Asks && (h.WaitingFor == nil || h.WaitingFor.Kind != api.WaitReboot)
		if st.Action == string(signing.Reboot) || asks {
			break // it is to be rebooted, and has not been
		}
		line = "armed: boots it at the next reboot (" + strings.Join(st.NeedRebootFor, ", ") + ")"
		if st.WaitingFor != nil && st.WaitingFor.Asks {
			line += "; " + h.WaitingFor.Detail
		}
		return line, hostArmed
	case api.TestOver, api.NotInRelease:
		return line, hostNot
	case api.Reverted, api.Failed, api.Rejected, api.Drifted:
		if st.Error != "" {
			line += ": " + st.Error
		}
		if h.Asked {
			return line, hostBack
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
		if why.Kind == api.WaitHold || why.Kind == api.WaitPaused || h.Hold != nil {
			return line, hostHeld
		}
	}
	return line, hostWaits
}

func (w *waiter) end(outcome Outcome) *Result {
	r := &Result{Channel: w.p.Channel, Seq: w.seq, Outcome: outcome, Seconds: time.Since(w.start).Seconds(), Hosts: w.hosts}
	r.Running, r.Summary, r.Waiting = w.summary(time.Now())
	fmt.Fprintf(w.p.out, "%s: seq %d of %s after %.1fs: %s\n", outcome, w.seq, r.Channel, r.Seconds, r.Summary)
	if outcome == Completed && len(w.hosts) == 0 {
		fmt.Fprintf(w.p.err, "no host follows %s: the release is there, and nobody runs it\n", r.Channel)
	}
	return r
}
