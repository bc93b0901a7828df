package journal

import "slices"

// The first agents know fewer phases, and wait for ever in one that they do not
// know. A host may come up with such an agent in the middle of an attempt: after
// the reboot into the system of a rollback, or when the running agent was killed
// while a system with an older one was on trial. So a journal names a phase that
// they know, from which they go on rightly, and the exact one in a field that they
// neither read nor write.
var nearest = map[Phase]Phase{
	Jitter:    Prepare,
	AskOwn:    Confirm,
	PreReboot: Done, // armed; they, too, find out where the boot led
	Reboot:    Done,
}

// noneNear are phases from which they could only do something wrong: leave out a
// hook that brings the host's service back, or go forward on the way back. The
// journal is of a newer version then, which they do not touch.
var noneNear = []Phase{Check, PreSwitch, PostSwitch}

// forEarlier is the journal as it is written.
func (j *Journal) forEarlier() *Journal {
	out := *j
	out.Version = 1
	a := j.Attempt
	if a == nil {
		return &out
	}
	if near, ok := nearest[a.Phase]; ok {
		b := *a
		b.Phase, b.Exact = near, a.Phase
		out.Attempt = &b
	} else if slices.Contains(noneNear, a.Phase) {
		out.Version = Version
	}
	return &out
}

// restoreExact undoes forEarlier. A phase that this agent does not know either
// stays what it is nearest to.
func (a *Attempt) restoreExact() {
	if near, ok := nearest[a.Exact]; ok && near == a.Phase {
		a.Phase = a.Exact
	}
	a.Exact = ""
}
