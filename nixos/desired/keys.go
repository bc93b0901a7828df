package desired

import (
	"slices"

	"narwharf/nixos/journal"
	"narwharf/signing"
	"narwharf/signing/keyring"
)

// Ring is the keys that count now: those of the host's own configuration, and where the
// statements lead that were accepted before and those that the server shows.
func (r *Rules) Ring(j *journal.Journal) *keyring.Ring {
	b := keyring.Base{Origin: r.Trust.Origin, Channel: r.Trust.Channel, Version: r.KeysVersion, Keys: r.Trust.Keys, Threshold: r.Trust.Threshold, Recovery: r.Recovery}
	var statements, revocations []*signing.Envelope
	if k := j.Keys[r.Channel()]; k != nil {
		statements, b.Accepted = slices.Clone(k.Statements), k.Revocations
	}
	if d := j.Desired; d != nil {
		statements, revocations = append(statements, d.Keys...), d.Revocations
	}
	return keyring.Walk(b, statements, revocations)
}

// keep is what is kept of a ring: with what is below the configuration's own version, since
// that may be an older one after the next switch. nil where it is what is kept already.
func (r *Rules) keep(j *journal.Journal, ring *keyring.Ring) *journal.Keys {
	was := j.Keys[r.Channel()]
	if was == nil {
		if was = new(journal.Keys); len(ring.Statements)+len(ring.Revocations) == 0 {
			return nil
		}
	}
	next := &journal.Keys{Revocations: ring.Revocations}
	for _, e := range was.Statements {
		if k, err := keyring.ParseKeys(e.Payload); err == nil && k.Version <= r.KeysVersion {
			next.Statements = append(next.Statements, e)
		}
	}
	next.Statements = append(next.Statements, ring.Statements...)
	if slices.EqualFunc(next.Statements, was.Statements, same) && slices.EqualFunc(next.Revocations, was.Revocations, same) {
		return nil
	}
	return next
}

func same(a, b *signing.Envelope) bool { return string(a.Payload) == string(b.Payload) }
