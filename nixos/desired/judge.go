package desired

import (
	"bytes"
	"crypto/sha256"
	"fmt"

	"narwharf/hooks/api"
	"narwharf/nixos/journal"
	"narwharf/signing"
)

// A Verdict is what the server's last answer comes to for this host.
type Verdict struct {
	Finding Finding
	Seq     int64
	Why     string // it is refused, or stale
	Alarm   bool   // it may be an attack

	// Of an accepted release.
	Entry   *signing.Entry
	Digest  string // of the entry's bytes
	Expires int64  // Unix seconds; 0: never
}

// A Finding is the answer in one word.
type Finding int

// The findings.
const (
	Unheard  Finding = iota // no answer since the journal began
	NoneYet                 // the channel has no release
	Excluded                // the release has no entry for this target
	Refused
	Stale // below what the host has accepted
	Accepted
)

// Judge holds the server's answer against the host's own rules and what it has
// accepted before.
func Judge(r *Rules, d *api.Desired, seen journal.Seen) Verdict {
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
		return Verdict{Finding: Refused, Seq: d.Seq, Why: err.Error()}
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
	switch {
	case head.Seq < seen.Seq: // a restored backup, or a replay
		v := alarm("the server shows seq %d, this host has accepted %d: the server is stale", head.Seq, seen.Seq)
		v.Finding = Stale
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
	v := Verdict{Finding: Accepted, Seq: head.Seq, Entry: entry, Digest: signing.Digest(sha256.Sum256(d.Pointer.Entry)).String()}
	if head.Expires != nil {
		v.Expires = head.Expires.Unix()
	}
	return v
}

func headOf(p *signing.Pointer) []byte {
	if p == nil || p.Head == nil {
		return nil
	}
	return p.Head.Payload
}
