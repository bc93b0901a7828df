package desired

import (
	"fmt"

	"narwharf/hooks/api"
	"narwharf/nixos/journal"
)

// An Order is what a directive of the server's comes to. A server may ask for a
// retry or a revert without a new release. Neither makes a host run what no
// promoter signed: "retry" is about the very entry, and "revert" leads to what
// the host itself has found well before.
type Order int

// The orders.
const (
	None   Order = iota
	Obeyed       // already, perhaps by an agent that knows no serials
	Retry
	Revert
	Paused // a revert that waits for a person on the host
	Old    // one that is not above the last that was obeyed
)

// OrderOf is what the server's directive asks for, if it is about the release
// that was accepted last.
func OrderOf(r *Rules, j *journal.Journal, paused bool) Order {
	d, seen := j.Desired.Directive, j.Seen[r.Channel()]
	if d == nil || d.Seq != seen.Seq || d.ID == "" || (d.Type != "retry" && d.Type != "revert") {
		return None
	}
	switch {
	case unnumbered(d):
		return Old
	case d.ID == j.Directive:
		return Obeyed
	case d.Serial != 0 && d.Serial <= seen.Directive:
		return Old
	case d.Type == "retry":
		return Retry
	case paused:
		return Paused
	}
	return Revert
}

// unnumbered tells whether a directive's serial is none.
func unnumbered(d *api.Directive) bool { return d.Serial < 0 || d.Serial > api.MaxSerial }

// OldText says why a directive is not obeyed, and what to do where it is meant.
// last is the serial of the last that was.
func OldText(d *api.Directive, last int64) string {
	if unnumbered(d) {
		return fmt.Sprintf("the server asks to %s release %d by directive %d, which is no number of one", d.Type, d.Seq, d.Serial)
	}
	return fmt.Sprintf("the server asks again to %s release %d, by directive %d, and this host has obeyed %d: was the server restored from a backup? If it is meant, say it again", d.Type, d.Seq, d.Serial, last)
}
