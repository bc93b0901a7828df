package desired

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos/journal"
	"narwharf/signing"
	"narwharf/signing/keyring"
)

// A Verdict is what the server's last answer comes to for this host.
type Verdict struct {
	Finding Finding
	Seq     int64
	Why     string // it is refused, or stale
	Alarm   bool   // it may be an attack
	Walked  int64  // of Walking: as far as the heads lead

	Keys *journal.Keys // to keep from now on; nil: as before

	// Of an accepted release.
	Entry   *signing.Entry
	Digest  string // of the entry's bytes
	Expires int64  // Unix seconds; 0: never
	Created time.Time
}

// A Finding is the answer in one word.
type Finding int

// The findings.
const (
	Unheard  Finding = iota // no answer since the journal began
	NoneYet                 // the channel has no release
	Excluded                // the release has no entry for this target
	Refused
	Stale   // below what the host has accepted
	Walking // too far above that, and a part of the way is here
	Accepted
)

// Judge holds the server's answer against the host's own rules and what it has
// accepted before.
func Judge(r *Rules, j *journal.Journal, now time.Time) Verdict {
	ring := r.Ring(j)
	trusting := *r
	trusting.Trust.Keys, trusting.Trust.Threshold = ring.Keys, ring.Threshold
	v := judge(&trusting, j.Desired, j.Seen[r.Channel()], ring)
	v.Keys = r.keep(j, ring)
	if v.Finding == Accepted && !v.Alarm {
		v.Why = trusting.staleText(v, now)
		v.Alarm = v.Why != ""
	}
	return v
}

// staleText says what is wrong with the age of a release, "" if nothing. A release that does
// not come may be one that somebody withholds. Nothing else follows from it: what runs is what
// a promoter signed, and a clock may be wrong. The words are the same from one look to the next.
func (r *Rules) staleText(v Verdict, now time.Time) string {
	switch {
	case r.Fresh == 0:
	case v.Expires != 0 && now.Unix() >= v.Expires:
		return fmt.Sprintf("release %d is the newest that is shown here, and its time was over %s: is a newer one withheld? If not, narwharf channel refresh signs it anew", v.Seq, time.Unix(v.Expires, 0).UTC().Format(time.RFC3339))
	case now.Sub(v.Created) >= r.Fresh:
		return fmt.Sprintf("release %d is the newest that is shown here, of %s, and older than require_fresh (%s): is a newer one withheld? If not, narwharf channel refresh signs it anew", v.Seq, v.Created.UTC().Format(time.RFC3339), r.Fresh)
	}
	return ""
}

func judge(r *Rules, d *api.Desired, seen journal.Seen, ring *keyring.Ring) Verdict {
	switch {
	case d == nil:
		return Verdict{Finding: Unheard}
	case d.Pointer == nil && d.Seq == 0:
		return Verdict{Finding: NoneYet}
	case d.Pointer == nil:
		return Verdict{Finding: Excluded, Seq: d.Seq}
	}
	head, entry, err := d.Pointer.Verify(r.Trust)
	if err != nil {
		return Verdict{Finding: Refused, Seq: d.Seq, Why: err.Error() + whyText(ring)}
	}
	refuse := func(format string, args ...any) Verdict {
		return Verdict{Finding: Refused, Seq: head.Seq, Why: fmt.Sprintf(format, args...)}
	}
	alarm := func(format string, args ...any) Verdict {
		v := refuse(format, args...)
		v.Alarm = true
		return v
	}
	floor := max(seen.Seq, r.MinSeq)
	if walked := r.walk(d.Heads, floor); floor > 0 && head.Seq-floor > signing.MaxSeqJump && walked > floor {
		if floor = walked; head.Seq-floor > signing.MaxSeqJump {
			return Verdict{Finding: Walking, Seq: head.Seq, Walked: walked}
		}
	}
	switch {
	case head.Seq < seen.Seq: // a restored backup, or a replay
		v := alarm("the server shows seq %d, this host has accepted %d: the server is stale", head.Seq, seen.Seq)
		v.Finding = Stale
		return v
	case head.Seq == seen.Seq && seen.Pointer != nil && !bytes.Equal(headOf(seen.Pointer), headOf(d.Pointer)):
		return alarm("two releases have seq %d: the promoter's key signed both, find out who used it", head.Seq)
	case head.KeysVersion > ring.Version:
		return alarm("the release was made under version %d of the channel's keys, and what the server shows leads to version %d: a statement is withheld%s", head.KeysVersion, ring.Version, whyText(ring))
	case head.Seq < r.MinSeq:
		return alarm("seq %d is lower than min_seq %d", head.Seq, r.MinSeq)
	case floor > 0 && head.Seq-floor > signing.MaxSeqJump:
		return alarm("seq %d is more than %d above %d: if that is right, set min_seq", head.Seq, signing.MaxSeqJump, floor)
	case entry.System != r.System:
		return refuse("the entry is for %s, this host is %s", entry.System, r.System)
	case entry.StoreDir() != r.StoreDir:
		return refuse("the entry's system is in %s, this host's store is %s", entry.StoreDir(), r.StoreDir)
	}
	v := Verdict{Finding: Accepted, Seq: head.Seq, Created: head.Created, Entry: entry, Digest: signing.Digest(sha256.Sum256(d.Pointer.Entry)).String()}
	if head.Expires != nil {
		v.Expires = head.Expires.Unix()
	}
	return v
}

// walk follows what promoters signed after a seq: heads, each at most a jump above the one
// before. So a host that was off for long comes along, and one signature cannot use up all
// seqs. It is how far that leads.
func (r *Rules) walk(heads []*signing.Envelope, seq int64) int64 {
	for _, env := range heads {
		h, err := signing.VerifyHead(env, r.Trust)
		if err != nil || h.Seq <= seq || h.Seq-seq > signing.MaxSeqJump {
			break
		}
		seq = h.Seq
	}
	return seq
}

// whyText is what was wrong with the next statement about the keys.
func whyText(ring *keyring.Ring) string {
	if ring.Why == "" {
		return ""
	}
	return " (" + ring.Why + ")"
}

func headOf(p *signing.Pointer) []byte {
	if p == nil || p.Head == nil {
		return nil
	}
	return p.Head.Payload
}

// An Order is what a directive of the server's comes to. A server may ask for a
// retry or a revert without a new release. Neither makes a host run what no
// promoter signed: "retry" is about the very entry, and "revert" leads to what
// the host itself has found well before. Nor can it lead a host to and fro without end:
// retries are counted, and after a revert there is nothing to go back to before
// another system was activated and found well.
type Order int

// The orders.
const (
	None   Order = iota
	Obeyed       // already, perhaps by an agent that knows no serials
	Retry
	Revert
	Paused // a revert that waits for a person on the host
	Old    // one that is not above the last that was obeyed
	Spent  // a retry more than the host's configuration lets the server ask for
	Never  // the host obeys none
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
	case r.Directives == ObeyNever:
		return Never
	case d.Type == "retry" && seen.Retries >= r.Retries:
		return Spent
	case d.Type == "retry":
		return Retry
	case paused:
		return Paused
	}
	return Revert
}

// unnumbered tells whether a directive's serial is none.
func unnumbered(d *api.Directive) bool { return d.Serial < 0 || d.Serial > api.MaxSerial }

// Refusal says why a directive is not obeyed, and what to do where it is meant; "" where it is.
// last is the serial of the last that was.
func (o Order) Refusal(r *Rules, d *api.Directive, last int64) string {
	switch {
	case o == Never:
		return fmt.Sprintf("the server asks to %s release %d, and this host obeys no directives (directives.obey): promote instead", d.Type, d.Seq)
	case o == Spent:
		return fmt.Sprintf("the server asks to retry release %d, and this host has done that %d times (directives.retries): if it is meant, promote it again", d.Seq, r.Retries)
	case o != Old:
		return ""
	case unnumbered(d):
		return fmt.Sprintf("the server asks to %s release %d by directive %d, which is no number of one", d.Type, d.Seq, d.Serial)
	}
	return fmt.Sprintf("the server asks again to %s release %d, by directive %d, and this host has obeyed %d: was the server restored from a backup? If it is meant, say it again", d.Type, d.Seq, d.Serial, last)
}
