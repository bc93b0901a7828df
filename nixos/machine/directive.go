package machine

import (
	"fmt"

	"narwharf/hooks/api"
	"narwharf/nixos/desired"
	"narwharf/nixos/journal"
)

// obeyRetry tells whether another attempt at the same entry is to be begun. Where
// an armed host's reboot failed it is the reboot that is tried again, at once.
func obeyRetry(a *journal.Attempt) (another bool) {
	if a.Phase == journal.Done && a.Outcome == api.Armed {
		a.RetryAt, a.HookTries = 0, 0
	}
	return (a.Phase == journal.Retry || a.Phase == journal.Done) && a.Outcome != api.OK && a.Outcome != api.Armed
}

// explain says why a directive was not obeyed.
func explain(t *turn, o desired.Order) {
	j, d := t.j, t.j.Desired.Directive
	switch {
	case o == desired.Paused && j.Error == "" && j.WaitingFor == nil:
		p := t.f.Pause
		j.WaitingFor = &api.Waiting{Kind: api.WaitPaused, Detail: fmt.Sprintf("the server asks to leave release %d; paused on the host by %s: %s", d.Seq, p.By, p.Reason)}
	case o == desired.Old && Resting(t.a):
		text := desired.OldText(d, j.Seen[t.rules.Channel()].Directive)
		if j.Error != "" {
			text = j.Error + "; " + text
		}
		j.Error = text
	}
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
