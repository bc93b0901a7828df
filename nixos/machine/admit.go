package machine

import (
	"fmt"

	"narwharf/hooks/api"
	"narwharf/nixos/journal"
	"narwharf/signing"
)

// A wait is why the host may not go on; nil is that it may.
type wait struct {
	kind   api.WaitKind
	detail string
	asks   bool // nothing but the server's word is missing
	// anew is that a permission's lease is over: the next poll is to be answered
	// at once, whatever is known here. A server that still gives it says so again.
	anew bool
}

func waitFor(kind api.WaitKind, format string, args ...any) *wait {
	return &wait{kind: kind, detail: fmt.Sprintf(format, args...)}
}

func (w *wait) waiting() *api.Waiting {
	if w == nil {
		return nil
	}
	return &api.Waiting{Kind: w.kind, Detail: w.detail, Asks: w.asks}
}

// wait is what people see of it.
func (t *turn) wait(w *wait) *api.Waiting {
	if w.anew {
		t.j.ETag = ""
	}
	return w.waiting()
}

// ready lets a staged system go, or says what holds it back.
func ready(t *turn) arrow {
	if inPlace(t.a, t.f) {
		return takeAsItIs(t)
	}
	if w := admit(t); w != nil {
		return arrow{phase: journal.Ready, state: api.WaitingState, waiting: t.wait(w)}
	}
	t.a.BootID = t.f.BootID
	return to(journal.Inspect)
}

// admit says what keeps a staged system from being switched to.
func admit(t *turn) *wait {
	a, d := t.a, t.j.Desired
	if w := held(t); w != nil {
		return w
	}
	if d == nil {
		return waitFor(api.WaitOffline, "the server has not answered since the agent started")
	}
	switch lease(t, d.Grant) {
	case leaseOver:
		return &wait{kind: api.WaitWave, detail: "the grant's lease ran out before it was used: the server is asked again", anew: true}
	case leaseNone:
		if d.WaitingFor != nil {
			return &wait{kind: d.WaitingFor.Kind, detail: d.WaitingFor.Detail}
		}
		return waitFor(api.WaitWave, "the server has not granted it")
	}
	if tooEarly(t) {
		return waitFor(api.WaitInhibited, "%s", a.Reason)
	}
	return nil
}

// held says what keeps a host from anything new: time, people, or its age.
func held(t *turn) *wait {
	a, d, f := t.a, t.j.Desired, t.f
	switch {
	case a.Expire != 0 && f.Wall.Unix() >= a.Expire:
		return waitFor(api.WaitExpired, "the release's time is over, by this host's clock")
	case f.Pause != nil:
		return waitFor(api.WaitPaused, "paused on the host by %s: %s", f.Pause.By, f.Pause.Reason)
	case d == nil:
		return nil
	case d.Hold != nil:
		return waitFor(api.WaitHold, "held by %s: %s", d.Hold.By, d.Hold.Reason)
	}
	if why := tooOld(t.rules.Agent, d.MinAgent); why != "" {
		return waitFor(api.WaitInhibited, "%s", why)
	}
	return nil
}

// tooEarly tells whether the time of the next try has not come on this boot.
func tooEarly(t *turn) bool { return t.f.Now < t.a.RetryAt && t.a.BootID == t.f.BootID }

// admitReboot says why an armed host is not rebooted now. The server can forbid
// it, and permit what the host's own configuration leaves to it.
func admitReboot(t *turn) *wait {
	w := rebootWait(t)
	if w != nil {
		w.detail = rebootText(t.a.RebootFor) + "; " + w.detail
	}
	return w
}

func rebootWait(t *turn) *wait {
	a, r := t.a, t.rules
	switch {
	case a.Action != signing.Auto && a.Action != signing.Reboot:
		return waitFor(api.WaitReboot, "the action %s leaves the reboot to people", a.Action)
	case r.Reboot == RebootNever:
		return waitFor(api.WaitReboot, "reboot.allow is never: a person has to do it")
	}
	if w := held(t); w != nil {
		return w
	}
	open, opens := r.Windows.State(t.f.Wall)
	switch {
	case tooEarly(t):
		return waitFor(api.WaitReboot, "%s", a.Reason)
	case !open:
		return waitFor(api.WaitWindow, "reboot.windows: %s", r.Windows.Opens(opens))
	case r.Reboot == RebootAlways:
		return nil
	}
	return permission(t)
}

// permission says what the server has not said of the reboot.
func permission(t *turn) *wait {
	d := t.j.Desired
	w := &wait{kind: api.WaitReboot, detail: "the server has not permitted it", asks: true}
	if d == nil {
		return w
	}
	switch lease(t, d.Reboot) {
	case leaseGood:
		return nil
	case leaseOver:
		w.detail, w.anew = "the permission's lease ran out before it was used: the server is asked again", true
	case leaseNone:
		if d.WaitingFor != nil {
			w.kind, w.detail = d.WaitingFor.Kind, d.WaitingFor.Detail
		}
	}
	return w
}

type leaseState int

const (
	leaseNone leaseState = iota // not given for this seq
	leaseOver
	leaseGood
)

// lease is what a permission of the server's is worth, by this host's own clock.
// It counts from when the answer came that it stands in. A boot in between ends
// it, since how long that took is not known. A lease of 0 has no end.
func lease(t *turn, g *api.Grant) leaseState {
	switch {
	case g == nil || g.Seq != t.a.Seq:
		return leaseNone
	case g.Lease <= 0, t.j.DesiredBoot == t.f.BootID && (t.f.Now-t.j.DesiredAt)/1000 < g.Lease:
		return leaseGood
	}
	return leaseOver
}
