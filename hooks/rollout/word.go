package rollout

import (
	"narwharf/hooks/api"
	"narwharf/signing"
)

// Word is what a host says about one release.
type Word uint8

// The words. What a host says of an attempt that was over before is Nothing.
const (
	Nothing   Word = iota // it is about another release, or stands before the attempt
	Ready                 // staged, and it waits for leave
	HoldsBack             // it waits for reasons of its own
	Busy                  // from draining on; it cannot be called back
	IsWell
	IsArmed // it needs a reboot to run it
	IsReverted
	IsFailed
	IsRejected
	Elsewhere // drifted, or it has no entry any more
)

// WordOf is what a host says of release seq, of which it has the entry.
func WordOf(l *Level, seq int64, e *Entry, over string) Word {
	if l.Seq != seq || e == nil {
		return Nothing
	}
	switch l.State {
	case api.OK, api.Testing, api.TestOver, api.DryRunDone:
		// The state alone is no proof: what runs has to be what was asked for.
		if l.State == api.DryRunDone || l.State == api.TestOver || l.Current == e.Path {
			return IsWell
		}
		return Nothing
	case api.Armed:
		return IsArmed
	case api.Draining, api.Activating, api.Probation, api.Committing, api.Reverting:
		return Busy
	}
	if over != "" && l.Attempt == over {
		return Nothing
	}
	switch l.State {
	case api.Staged:
		return Ready
	case api.WaitingState:
		// Any other reason is the server's own, said back.
		if l.Waiting == api.WaitInhibited || l.Waiting == api.WaitExpired {
			return HoldsBack
		}
		return Ready
	case api.Reverted:
		return IsReverted
	case api.Failed:
		return IsFailed
	case api.Rejected:
		return IsRejected
	case api.Drifted, api.NotInRelease:
		return Elsewhere
	}
	return Nothing
}

// Changes tells whether a host has to change to have an entry's system.
func (e *Entry) Changes(l *Level) bool {
	return l.Current != e.Path || e.Action != string(signing.Test) && e.Action != string(signing.DryActivate) && l.Profile != e.Path
}
