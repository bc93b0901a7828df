package desired

import (
	"fmt"
	"strings"

	"golang.org/x/mod/semver"

	"narwharf/hooks/api"
	"narwharf/narinfo/clip"
	"narwharf/nixos/effect"
	"narwharf/nixos/journal"
	"narwharf/signing"
)

// A Wait is why the host may not go on; nil is that it may.
type Wait struct {
	api.Waiting
	// Anew is that a permission's lease is over: the next poll is to be answered
	// at once, whatever is known here. A server that still gives it says so again.
	Anew bool
}

func waitFor(kind api.WaitKind, format string, args ...any) *Wait {
	return &Wait{Waiting: api.Waiting{Kind: kind, Detail: fmt.Sprintf(format, args...)}}
}

// Admit says what keeps a staged system from being switched to.
func Admit(r *Rules, j *journal.Journal, f effect.Facts) *Wait {
	if w := held(r, j, f); w != nil {
		return w
	}
	d := j.Desired
	if d == nil {
		return waitFor(api.WaitOffline, "the server has not answered since the agent started")
	}
	switch lease(j, d.Grant, f) {
	case leaseOver:
		w := waitFor(api.WaitWave, "the grant's lease ran out before it was used: the server is asked again")
		w.Anew = true
		return w
	case leaseNone:
		if d.WaitingFor != nil {
			return &Wait{Waiting: api.Waiting{Kind: d.WaitingFor.Kind, Detail: d.WaitingFor.Detail}}
		}
		return waitFor(api.WaitWave, "the server has not granted it")
	}
	if j.Attempt.TooEarly(f.Now, f.BootID) {
		return waitFor(api.WaitInhibited, "%s", j.Attempt.Reason)
	}
	return nil
}

// RebootText says of an armed host why it is that.
func RebootText(reasons []string) string {
	if len(reasons) == 0 {
		return "the boot entry is set"
	}
	return "the boot entry is set; a switch is not enough for: " + clip.List(reasons)
}

// AdmitReboot says why an armed host is not rebooted now. The server can forbid
// it, and permit what the host's own configuration leaves to it.
func AdmitReboot(r *Rules, j *journal.Journal, f effect.Facts) *Wait {
	w := rebootWait(r, j, f)
	if w != nil {
		w.Detail = RebootText(j.Attempt.RebootFor) + "; " + w.Detail
	}
	return w
}

func rebootWait(r *Rules, j *journal.Journal, f effect.Facts) *Wait {
	a := j.Attempt
	switch {
	case a.Action != signing.Auto && a.Action != signing.Reboot:
		return waitFor(api.WaitReboot, "the action %s leaves the reboot to people", a.Action)
	case r.Reboot == RebootNever:
		return waitFor(api.WaitReboot, "reboot.allow is never: a person has to do it")
	}
	if w := held(r, j, f); w != nil {
		return w
	}
	open, opens := r.Windows.State(f.Wall)
	switch {
	case a.TooEarly(f.Now, f.BootID):
		return waitFor(api.WaitReboot, "%s", a.Reason)
	case !open:
		return waitFor(api.WaitWindow, "reboot.windows: %s", r.Windows.Opens(opens))
	case r.Reboot == RebootAlways:
		return nil
	}
	return permission(j, f)
}

// permission says what the server has not said of the reboot.
func permission(j *journal.Journal, f effect.Facts) *Wait {
	w := waitFor(api.WaitReboot, "the server has not permitted it")
	w.Asks = true
	d := j.Desired
	if d == nil {
		return w
	}
	switch lease(j, d.Reboot, f) {
	case leaseGood:
		return nil
	case leaseOver:
		w.Detail, w.Anew = "the permission's lease ran out before it was used: the server is asked again", true
	case leaseNone:
		if d.WaitingFor != nil {
			w.Kind, w.Detail = d.WaitingFor.Kind, d.WaitingFor.Detail
		}
	}
	return w
}

// held says what keeps a host from anything new: time, people, or its age.
func held(r *Rules, j *journal.Journal, f effect.Facts) *Wait {
	a, d := j.Attempt, j.Desired
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
	if why := tooOld(r.Agent, d.MinAgent); why != "" {
		return waitFor(api.WaitInhibited, "%s", why)
	}
	return nil
}

// Granted tells whether the server's grant for the attempt is still good.
func Granted(j *journal.Journal, f effect.Facts) bool {
	return j.Desired != nil && lease(j, j.Desired.Grant, f) == leaseGood
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
func lease(j *journal.Journal, g *api.Grant, f effect.Facts) leaseState {
	switch {
	case g == nil || g.Seq != j.Attempt.Seq:
		return leaseNone
	case g.Lease <= 0, j.DesiredBoot == f.BootID && (f.Now-j.DesiredAt)/1000 < g.Lease:
		return leaseGood
	}
	return leaseOver
}

// tooOld says why an agent of this version may not act for a server that wants
// at least another one, "" if it may. A version that is none, as of an agent
// that a developer built, is taken for new enough.
func tooOld(version, least string) string {
	have, want := semantic(version), semantic(least)
	switch {
	case least == "", want != "" && (have == "" || semver.Compare(have, want) >= 0):
		return ""
	case want == "":
		return fmt.Sprintf("the server wants an agent of version %q, which this one (%s) cannot read", clip.Text(least, 40), version)
	}
	return fmt.Sprintf("this agent is version %s, the server wants %s or newer: update the agent by hand, or lower min_agent", version, least)
}

// semantic makes "v0.5.1" of "0.5.1" and of "0.5.1-3-gabcdef", whose last part does
// not count, and "" of what is no version.
func semantic(s string) string {
	core := strings.FieldsFunc(strings.TrimSpace(s), func(c rune) bool { return c == '-' || c == '+' })
	if len(core) == 0 {
		return ""
	}
	return semver.Canonical("v" + strings.TrimPrefix(core[0], "v"))
}
