package machine

import (
	"fmt"

	"narwharf/hooks/api"
	"narwharf/nixos/journal"
)

// An order is what a directive of the server's comes to. A server may ask for a
// retry or a revert without a new release. Neither makes a host run what no
// promoter signed: "retry" is about the very entry, and "revert" leads to what
// the host itself has found well before.
type order int

const (
	orderNone   order = iota
	orderRetry        // to be obeyed
	orderRevert       // to be obeyed
	orderPaused       // a revert that waits for a person on the host
	orderOld          // one that is not above the last that was obeyed
)

// takeDirective is what the server's directive asks for, if it is about the
// release that was accepted last and was not obeyed before. It counts as obeyed
// from now on, but for one that a paused host leaves for later.
func takeDirective(t *turn) order {
	j, channel := t.j, t.rules.channel()
	r, seen := j.Desired.Directive, j.Seen[channel]
	if r == nil || r.Seq != seen.Seq || r.ID == "" {
		return orderNone
	}
	var o order
	switch r.Type {
	case "retry":
		o = orderRetry
	case "revert":
		o = orderRevert
	default:
		return orderNone
	}
	// With another serial, but this ID: it may have been an agent that knows no
	// serial which obeyed it.
	obeyed := r.ID == j.Directive
	switch {
	case r.Serial < 0 || r.Serial > api.MaxSerial:
		return orderOld
	case !obeyed && r.Serial != 0 && r.Serial <= seen.Directive:
		return orderOld
	case !obeyed && o == orderRevert && t.f.Pause != nil:
		return orderPaused
	}
	j.Directive = r.ID
	if r.Serial > seen.Directive {
		seen.Directive = r.Serial
		j.Seen[channel] = seen
	}
	if obeyed {
		return orderNone
	}
	return o
}

// retries tells whether a retry makes another attempt of this one. Where an
// armed host's reboot failed it is the reboot that is tried again, at once.
func retries(a *journal.Attempt) bool {
	if a.Phase == journal.Done && a.Outcome == api.Armed {
		a.RetryAt, a.HookTries = 0, 0
	}
	return (a.Phase == journal.Retry || a.Phase == journal.Done) && a.Outcome != api.OK && a.Outcome != api.Armed
}

// explainDirective says why a directive was not obeyed.
func explainDirective(t *turn, o order) {
	j, r := t.j, t.j.Desired.Directive
	switch {
	case o == orderPaused && j.Error == "" && j.WaitingFor == nil:
		p := t.f.Pause
		j.WaitingFor = &api.Waiting{Kind: api.WaitPaused, Detail: fmt.Sprintf("the server asks to leave release %d; paused on the host by %s: %s", r.Seq, p.By, p.Reason)}
	case o == orderOld && Resting(t.a):
		text := oldText(r, j.Seen[t.rules.channel()].Directive)
		if j.Error != "" {
			text = j.Error + "; " + text
		}
		j.Error = text
	}
}

// oldText says why a directive is not obeyed, and what to do where it is meant.
func oldText(r *api.Directive, last int64) string {
	if r.Serial < 0 || r.Serial > api.MaxSerial {
		return fmt.Sprintf("the server asks to %s release %d by directive %d, which is no number of one", r.Type, r.Seq, r.Serial)
	}
	return fmt.Sprintf("the server asks again to %s release %d, by directive %d, and this host has obeyed %d: was the server restored from a backup? If it is meant, say it again", r.Type, r.Seq, r.Serial, last)
}

// obeyRevert goes back to the last system that this host confirmed before. The
// entry is denied until somebody says retry.
func obeyRevert(t *turn) arrow {
	j, a, f := t.j, t.a, t.f
	why := fmt.Sprintf("the server asked to leave release %d", a.Seq)
	if a.Phase != journal.Done {
		a.Reason = why + " before it was begun"
		j.Deny()
		return finish(t, api.Reverted)
	}
	switch {
	case a.Outcome == api.OK && f.Current == a.Path && f.Profile == a.Path:
	case a.Outcome == api.Testing && f.Current == a.Path:
	case a.Outcome == api.Armed && f.Profile == a.Path:
	default:
		return arrow{} // nothing of it runs or boots, or a person's system does
	}
	back := j.Confirmed
	if back == a.Path {
		back = j.ConfirmedBefore
	}
	if back == "" || back == a.Path {
		a.Note = why + ", but it has confirmed no other system that it could go back to"
		return arrow{}
	}
	if a.BootID != f.BootID {
		a.Began, a.BootID = f.Now, f.BootID
	}
	a.ByDirective, a.Previous, a.LostRuns = true, back, 0
	a.ProfileTouched = f.Profile != back
	a.ProfileLink, a.ProfilePath = "", back // a new generation: the old one may be gone
	a.Reason = why
	j.Deny()
	return goBack(t)
}
