package roster

import (
	"fmt"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/rollout"
)

// answerKey is all of an answer on which it depends whether a host is to be woken.
type answerKey struct {
	seq    int64
	grants int32
	kind   uint8
	wait   api.WaitKind
}

const (
	kindGrant = 1 << iota
	kindRule  // a grant that stands in no row
	kindRetry
	kindRevert
)

// answerKey works out what a host is to be told. It stays the same while others move.
func (e *Roster) answerKey(h *Host) (k answerKey) {
	r, l, c := &h.Row, &h.Level, h.ch
	k.seq = e.shown(h)
	which := e.Case(h)
	entry := which.Entry(k.seq)
	switch {
	case k.seq == 0:
	case r.Phase == rollout.Reverting && k.seq == r.Seq:
		k.kind, k.grants = kindRevert, r.Grants
	case (r.Phase == rollout.Granted || r.Phase == rollout.Begun || e.rests(h)) && k.seq == r.Seq:
		if k.kind, k.grants = kindGrant, r.Grants; r.Retry {
			k.kind |= kindRetry
		}
	case entry == nil:
		k.wait = api.WaitNotInRelease
	case l.State == api.Armed && l.Seq == k.seq:
		k.wait, _ = e.notNow(h)
	case l.Held || h.Class.held:
		k.wait = api.WaitHold
	case k.seq == c.Row.Newest() && e.fresh(h) && !e.Frozen():
		k.kind = kindRule
	case c.Run != nil && k.seq == c.Run.Row.Seq && e.Quarantined(c.Run, entry):
		k.wait = api.WaitQuarantine
	case entry.Changes(l):
		k.wait = api.WaitWave
	}
	return k
}

// rests tells whether a host that is well is told its grant as before, until its lease is over:
// as long as it stays well and nothing takes grants back.
func (e *Roster) rests(h *Host) bool {
	r := &h.Row
	if r.Phase != rollout.Well || r.Until.IsZero() || h.ch.Run == nil || h.ch.Run.Row.Seq != r.Seq || h.Level.Held || h.Level.Paused {
		return false
	}
	entry := h.ch.Run.Release.Entry(h.Level.Target)
	return entry != nil && rollout.WordOf(&h.Level, r.Seq, entry, r.Over) == rollout.IsWell && !entry.Changes(&h.Level) && e.grantStands(h)
}

// shown is the release that a host is shown; 0 is none.
func (e *Roster) shown(h *Host) int64 {
	r, l, c := &h.Row, &h.Level, h.ch
	if r.Phase.InFlight() && r.Phase != rollout.Withdrawn && r.Seq >= l.HighestSeq {
		return r.Seq
	}
	newest := c.Row.Newest()
	if run := c.Run; run != nil {
		seq := run.Row.Seq
		switch {
		case l.HighestSeq == seq, r.Seq == seq && r.Phase != rollout.Untouched && l.HighestSeq < seq:
			return seq
		case newest != 0 && e.fresh(h):
			return newest
		case l.HighestSeq < seq && e.showsNew(run):
			return seq
		}
	}
	return max(newest, l.HighestSeq)
}

// ShowsNew tells whether hosts are shown the release of a channel's roll-out before their
// turn; the channel has one.
func (e *Roster) ShowsNew(c *Channel) bool { return e.showsNew(c.Run) }

// showsNew tells whether hosts are shown the release of a roll-out before their turn.
func (e *Roster) showsNew(run *Run) bool {
	switch run.Row.State {
	case rollout.Planned, rollout.Running, rollout.Paused:
		return run.Row.Policy.Prefetches()
	}
	return run.Row.State == rollout.Completed
}

// Answer is what a host is to be told now.
func (e *Roster) Answer(name string, now time.Time) rollout.Answer {
	h := e.Hosts[name]
	if h == nil {
		return rollout.Answer{}
	}
	r, k := &h.Row, h.told
	a, id := rollout.Answer{Seq: k.seq, Wait: k.wait}, r.GrantID()
	switch {
	case k.kind&kindRule != 0:
		a.Grant, a.Lease = fmt.Sprintf("%s-%d-new", h.ch.Row.Name, k.seq), rollout.Lease
	case k.kind&kindGrant != 0:
		if r.Phase == rollout.Well && !now.Before(r.Until) {
			break
		}
		a.Grant, a.Lease = id, rollout.Lease
		if r.Phase != rollout.Begun {
			a.Lease = max(r.Until.Sub(now), time.Second)
		}
		if k.kind&kindRetry != 0 {
			a.Directive, a.ID = "retry", "retry-"+id
		}
	case k.kind&kindRevert != 0:
		a.Directive, a.ID = "revert", "revert-"+id
	}
	return a
}

// Why is what a host waits for at this moment, "" for nothing, with numbers for people.
func (e *Roster) Why(name string) (kind api.WaitKind, detail string) {
	h := e.Hosts[name]
	if h == nil || h.ch.Run == nil {
		return "", ""
	}
	c, run := h.ch, h.ch.Run
	f := &h.Counted
	switch {
	case run.Release.Entry(h.Level.Target) == nil:
		return api.WaitNotInRelease, fmt.Sprintf("release %d has nothing for %s", run.Row.Seq, h.Level.Target)
	case h.Row.Seq == run.Row.Seq && h.Row.Phase == rollout.Bad:
		return api.WaitRetry, fmt.Sprintf("it ended %s; narwharf rollout retry", h.Row.Fault)
	case !f.Must || f.flight:
		return "", ""
	case h.Level.State == api.Armed && h.Level.Seq == run.Row.Seq:
		if kind, detail = e.MayReboot(name); kind == "" {
			return api.WaitReboot, "it is armed: it waits for a window, a reboot slot, or somebody who reboots it"
		}
		return kind, detail
	case h.Level.Held:
		return api.WaitHold, "it is held"
	case h.Class.held:
		return api.WaitHold, h.Class.hold
	case h.Level.Paused:
		return api.WaitPaused, "it is paused on the host"
	case f.Away:
		return api.WaitOffline, fmt.Sprintf("it is not heard of since %s", h.Away.UTC().Format("15:04:05 MST"))
	case e.Quarantined(run, run.Release.Entry(h.Level.Target)):
		return api.WaitQuarantine, "its system is in quarantine"
	case e.Frozen():
		return api.WaitFreeze, e.Limits.Freeze.Reason
	case c.Closed:
		return api.WaitWindow, "no window of the channel is open"
	}
	return e.whyInLine(h)
}

// whyInLine is for a host that nothing of its own holds back.
func (e *Roster) whyInLine(h *Host) (kind api.WaitKind, detail string) {
	c, run := h.ch, h.ch.Run
	row := run.Row
	switch {
	case row.State == rollout.Paused || row.State == rollout.Halted:
		return api.WaitPaused, fmt.Sprintf("release %d is %s: %s", row.Seq, row.State, row.Why)
	case row.State != rollout.Running:
		return api.WaitWave, fmt.Sprintf("release %d is %s", row.Seq, row.State)
	case h.Counted.Wave == 0:
		return e.whyWave(run)
	}
	switch e.Rule(c, h.Class, h, h.Counted.Taken) {
	case "after":
		if h.Class.barred(h.Counted.Wave) {
			return api.WaitAfter, "others that ended badly have to be well before it: narwharf rollout retry lets them try again, resume goes on without them"
		}
		return api.WaitAfter, "others have to be well before it"
	case "budget":
		return api.WaitBudget, "as many hosts of a budget are unavailable as may be"
	}
	return api.WaitWave, fmt.Sprintf("%d hosts are in flight, and %d may be", c.Flight, row.Policy.Concurrency(run.Total, row.Rollback))
}

// whyWave is why the next wave is not open.
func (e *Roster) whyWave(run *Run) (kind api.WaitKind, detail string) {
	row := run.Row
	if len(row.Waves) == 0 {
		return api.WaitWave, "no wave is open yet"
	}
	i := len(row.Waves) - 1
	w, name := &row.Waves[i], row.Policy.WaveText(i)
	n := run.Waves[i]
	over := w.Met.Add(row.Policy.Baking(i, row.Rollback))
	switch {
	case w.Met.IsZero():
		return api.WaitWave, fmt.Sprintf("%s first: %d well, %d on their way, %d ended badly, %d not counted", name, n[Well], n[Open], n[Bad], n[Aside])
	case e.Now.Before(over):
		return api.WaitBake, fmt.Sprintf("%s bakes until %s", name, over.UTC().Format("15:04:05 MST"))
	}
	if check, why := w.Unanswered(row.Policy.All()[i].Checks, over); check != "" {
		if why != "" {
			why = ": " + why
		}
		return api.WaitCheck, fmt.Sprintf("%s waits for an answer of the check %s%s", name, check, why)
	}
	return api.WaitApproval, fmt.Sprintf("%s waits for somebody's yes: narwharf rollout advance", name)
}
