package machine

import (
	"fmt"

	"narwharf/hooks/api"
	"narwharf/nixos/desired"
	"narwharf/nixos/effect"
	"narwharf/nixos/journal"
	"narwharf/signing"
)

// inPlace tells whether the host is already what the entry asks for.
func inPlace(a *journal.Attempt, f effect.Facts) bool {
	return f.Current == a.Path && (a.Action == signing.Test || f.Profile == a.Path)
}

// takeAsItIs ends an attempt whose system the host runs without our doing: it
// was so before, or a person did it. What the attempt found out is of before.
func takeAsItIs(t *turn) arrow {
	a := t.a
	a.Findings, a.SwitchExit, a.Reason = journal.Findings{}, nil, ""
	return finish(t, runningWell(t))
}

// runningWell is the state of a host that runs the attempt's path and is well.
func runningWell(t *turn) api.State {
	if t.f.Profile != t.a.Path {
		return api.Testing
	}
	t.j.Confirm(t.a.Path)
	return api.OK
}

// outcome declares the end of an attempt anew, since the host may have been
// changed by somebody else.
func outcome(t *turn) arrow {
	a, f := t.a, t.f
	if a.Outcome != api.OK && f.Current == a.Path && f.Profile == a.Path {
		return takeAsItIs(t)
	}
	switch a.Outcome {
	case api.OK:
		if f.Current != a.Path {
			return t.changed("the running system", f.Current)
		}
		if f.Profile != a.Path {
			return t.changed("the system profile", f.Profile)
		}
	case api.Testing:
		switch {
		case f.Current != a.Path:
			return t.changed("the running system", f.Current)
		case a.TestUntil != 0 && f.Now >= a.TestUntil && f.Pause == nil:
			return endTest(t)
		}
	case api.Armed:
		if f.Profile != a.Path {
			return t.changed("the system profile", f.Profile)
		}
		if w := t.wait(desired.AdmitReboot(&t.rules.Rules, t.j, f)); w != nil {
			return t.stay(api.Armed, w, "")
		}
		return beginReboot(t)
	case api.Reverted:
		if f.Current == a.Path {
			return t.stay(api.Drifted, nil, fmt.Sprintf("somebody else switched the host to %s, which did not pass here (%s)", a.Path, a.Reason))
		}
		retry := &api.Waiting{Kind: api.WaitRetry, Detail: "the entry is not tried again until a retry, or a release with another one"}
		return t.stay(api.Reverted, retry, a.Reason)
	}
	return t.stay(a.Outcome, nil, a.Reason)
}

// changed is that something is not of the attempt's system any more.
func (t *turn) changed(what, is string) arrow {
	return t.stay(api.Drifted, nil, fmt.Sprintf("%s is %s and not %s: somebody else changed it; it is left so until the next release", what, is, t.a.Path))
}
