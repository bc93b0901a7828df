package machine

import (
	"bytes"
	"crypto/sha256"
	"fmt"

	"narwharf/hooks/api"
	"narwharf/nixos/journal"
	"narwharf/signing"
)

// A verdict is what the server's last answer comes to for this host.
type verdict struct {
	is    finding
	seq   int64
	why   string // where it is refused or stale
	alarm bool   // it may be an attack

	// Of an accepted release.
	head   *signing.Head
	entry  *signing.Entry
	digest string // of the entry's bytes
}

type finding int

const (
	unheard  finding = iota // no answer since the journal began
	noneYet                 // the channel has no release
	excluded                // the release has no entry for this target
	refused
	stale // below what the host has accepted
	accepted
)

// judge holds the server's answer against the host's own rules and what it has
// accepted before. It depends on nothing else.
func judge(r *Rules, d *api.Desired, seen journal.Seen) verdict {
	switch {
	case d == nil:
		return verdict{is: unheard}
	case d.Pointer == nil && d.Seq == 0:
		return verdict{is: noneYet}
	case d.Pointer == nil:
		return verdict{is: excluded, seq: d.Seq}
	}
	head, entry, err := d.Pointer.Verify(r.Trust)
	if err != nil {
		return verdict{is: refused, seq: d.Seq, why: err.Error()}
	}
	refuse := func(format string, args ...any) verdict {
		return verdict{is: refused, seq: head.Seq, why: fmt.Sprintf(format, args...)}
	}
	alarm := func(format string, args ...any) verdict {
		return verdict{is: refused, seq: head.Seq, why: fmt.Sprintf(format, args...), alarm: true}
	}
	floor := max(seen.Seq, r.MinSeq)
	switch {
	case head.Seq < seen.Seq: // a restored backup, or a replay
		v := alarm("the server shows seq %d, this host has accepted %d: the server is stale", head.Seq, seen.Seq)
		v.is = stale
		return v
	case head.Seq == seen.Seq && !bytes.Equal(headOf(seen.Pointer), headOf(d.Pointer)):
		return alarm("two releases have seq %d: the promoter's key signed both, find out who used it", head.Seq)
	case head.Seq < r.MinSeq:
		return alarm("seq %d is lower than min_seq %d", head.Seq, r.MinSeq)
	case floor > 0 && head.Seq-floor > signing.MaxSeqJump:
		return alarm("seq %d is more than %d above %d: if that is right, set min_seq", head.Seq, signing.MaxSeqJump, floor)
	case entry.System != r.System:
		return refuse("the entry is for %s, this host is %s", entry.System, r.System)
	case entry.StoreDir() != r.StoreDir:
		return refuse("the entry's system is in %s, this host's store is %s", entry.StoreDir(), r.StoreDir)
	}
	return verdict{is: accepted, seq: head.Seq, head: head, entry: entry, digest: signing.Digest(sha256.Sum256(d.Pointer.Entry)).String()}
}

func headOf(p *signing.Pointer) []byte {
	if p == nil || p.Head == nil {
		return nil
	}
	return p.Head.Payload
}

// reconcile acts on the server's last answer and the host's facts while nothing
// is under way. It is level-triggered: it says the same of the same however
// often it is asked.
func reconcile(t *turn) {
	j := t.j
	j.Alarm = ""
	if a := t.a; a != nil {
		a.Asked = true
		if a.Phase == journal.Done && a.BootID != t.f.BootID {
			armed := a.Outcome == api.Armed
			t.follow(table[journal.Done].afterBoot(t))
			if armed { // the attempt goes on
				return
			}
		}
	}
	v := judge(t.rules, j.Desired, j.Seen[t.rules.channel()])
	switch v.is {
	case noneYet:
		t.declare(api.Idle, 0, nil, "")
	case excluded:
		detail := fmt.Sprintf("release %d has no entry for %q", v.seq, t.rules.Trust.Target)
		t.declare(api.NotInRelease, v.seq, &api.Waiting{Kind: api.WaitNotInRelease, Detail: detail}, "")
	case refused:
		t.declare(api.Rejected, v.seq, nil, v.why)
	case unheard, stale:
		t.rest()
	case accepted:
		t.accept(v)
	}
	if v.alarm {
		j.Alarm = v.why
	}
}

// accept goes on with the attempt that a release is about, or begins it, and
// obeys the server's directive about it.
func (t *turn) accept(v verdict) {
	j, a := t.j, t.a
	channel := t.rules.channel()
	if v.seq > j.Seen[channel].Seq {
		j.Seen[channel] = journal.Seen{Seq: v.seq, Pointer: j.Desired.Pointer}
	}
	same := a != nil && a.Seq == v.seq && a.Entry == v.digest
	order := takeDirective(t)
	if order == orderRetry {
		delete(j.Denied, v.digest)
		same = same && !retries(a)
	}
	if !same {
		t.follow(t.begin(v))
	}
	if order == orderRevert {
		t.follow(obeyRevert(t))
	}
	t.rest()
	explainDirective(t, order)
}

// rest says where the host stands, by the facts of this moment.
func (t *turn) rest() {
	if t.a == nil {
		t.declare(api.Idle, 0, nil, "")
		return
	}
	if look := table[t.a.Phase].atRest; look != nil {
		t.follow(look(t))
	}
}

// begin makes the attempt at an entry, and ends it at once where there is
// nothing to do.
func (t *turn) begin(v verdict) arrow {
	j, f := t.j, t.f
	a := &journal.Attempt{
		ID: attemptID(f), Nonce: f.Random[12:], Seq: v.seq, Entry: v.digest, Path: v.entry.StorePath, Closure: v.entry.Closure,
		System: v.entry.System, Action: v.entry.Action, BootID: f.BootID, Began: f.Now,
	}
	if v.head.Expires != nil {
		a.Expire = v.head.Expires.Unix()
	}
	if a.Action == signing.Auto && t.rules.Auto != "" {
		a.Action = t.rules.Auto
	}
	a.NoteTransition(api.Verifying, f.Now)
	t.a, j.Attempt, j.State = a, a, api.Verifying
	switch denied, ok := j.Denied[v.digest]; {
	case inPlace(a, f):
		return takeAsItIs(t)
	case ok:
		a.Reason = fmt.Sprintf("this entry failed here as seq %d (%s); narwharf host retry makes the host try again", denied.Seq, denied.Reason)
		return finish(t, api.Reverted)
	}
	return to(journal.Prepare)
}

// attemptID begins with the time, so that a server can tell old from new.
func attemptID(f Facts) string { return fmt.Sprintf("%09x%s", f.Wall.Unix(), f.Random[:12]) }
