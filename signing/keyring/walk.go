package keyring

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"narwharf/signing"
)

// A Base is where a way begins: a host's own configuration, or the rules of a channel's
// first release.
type Base struct {
	Origin, Channel string
	Version         int64 // of the statement that the keys are; 0: of none
	Keys            []signing.PublicKey
	Threshold       int
	Recovery        []signing.PublicKey // one of which signs a revocation
	Accepted        []*signing.Envelope // revocations that were taken before, whoever signed them
}

// A Ring is where a way has led.
type Ring struct {
	Version   int64
	Digest    *signing.Digest     // of the last statement; nil at the base
	Keys      []signing.PublicKey // that count now
	Threshold int
	Revoked   []signing.PublicKey

	// What led here, to be kept: the next walk needs no more than that.
	Statements  []*signing.Envelope
	Revocations []*signing.Envelope

	// Why says what is wrong with the first statement above Version, "" if there is none.
	Why string
}

// Walk follows statements from a base as far as they lead. Those that are below it, do not
// fit, or follow nothing are passed over; of two for one version the first that fits is taken.
func Walk(b Base, statements, revocations []*signing.Envelope) *Ring {
	r := &Ring{Version: b.Version, Keys: b.Keys, Threshold: b.Threshold}
	w := walk{base: b, ring: r, known: parseAll(b, statements), vouched: make(map[int64]signing.Digest)}
	for _, e := range b.Accepted {
		if v, err := ParseRevocation(e.Payload); err == nil {
			w.revoke(e, v)
		}
	}
	for _, e := range revocations {
		if e == nil {
			continue
		}
		if v, err := OpenRevocation(b, e); err == nil {
			w.revoke(e, v)
		}
	}
	for _, v := range w.revocations {
		w.vouch(v.Version, v.Digest)
	}
	for _, s := range w.known {
		if s.Version != r.Version+1 {
			continue
		}
		if err := w.step(s); err != nil {
			if r.Why == "" {
				r.Why = fmt.Sprintf("version %d of the channel's keys: %v", s.Version, err)
			}
			continue
		}
		r.Version, r.Digest, r.Why = s.Version, &s.digest, ""
		r.Keys, r.Threshold = s.keys, s.Threshold
		r.Statements = append(r.Statements, s.envelope)
	}
	r.Keys = w.counting(r.Keys, nil)
	return r
}

type signed struct {
	*Keys
	envelope *signing.Envelope
}

// parseAll are the statements that can be read and are about the channel.
func parseAll(b Base, statements []*signing.Envelope) (list []signed) {
	for _, e := range statements[:min(len(statements), 2*MaxStatements)] {
		if e == nil {
			continue
		}
		k, err := ParseKeys(e.Payload)
		if err == nil && k.Origin == b.Origin && k.Channel == b.Channel && k.Version > b.Version {
			list = append(list, signed{k, e})
		}
	}
	return list
}

type walk struct {
	base  Base
	ring  *Ring
	known []signed
	// vouched is, by version, the digest that a recovery key vouches for.
	vouched     map[int64]signing.Digest
	revocations []*Revocation
}

// revoke takes a revocation in, unless it is there.
func (w *walk) revoke(e *signing.Envelope, v *Revocation) {
	r := w.ring
	if len(r.Revocations) == MaxRevocations || slices.ContainsFunc(r.Revocations, func(o *signing.Envelope) bool { return bytes.Equal(o.Payload, e.Payload) }) {
		return
	}
	r.Revocations, w.revocations = append(r.Revocations, e), append(w.revocations, v)
	for _, k := range v.keys {
		if !slices.ContainsFunc(r.Revoked, k.Same) {
			r.Revoked = append(r.Revoked, k)
		}
	}
}

// vouch notes a digest and, by what each statement says of the one before, those below it.
func (w *walk) vouch(version int64, digest *signing.Digest) {
	for ; version > w.base.Version && digest != nil; version-- {
		if _, ok := w.vouched[version]; ok {
			return // of two that differ neither way leads on
		}
		w.vouched[version] = *digest
		at := slices.IndexFunc(w.known, func(s signed) bool { return s.Version == version && s.digest == *digest })
		if at < 0 {
			return
		}
		digest = w.known[at].Previous
	}
}

// counting are the keys whose signatures count on a statement; s is nil for one that is
// made from now on.
func (w *walk) counting(keys []signing.PublicKey, s *Keys) []signing.PublicKey {
	if s != nil {
		if d, ok := w.vouched[s.Version]; ok && d == s.digest {
			return keys
		}
	}
	return slices.DeleteFunc(slices.Clone(keys), func(k signing.PublicKey) bool { return slices.ContainsFunc(w.ring.Revoked, k.Same) })
}

// step says what is wrong with a statement as the next one.
func (w *walk) step(s signed) error {
	r := w.ring
	if d, ok := w.vouched[s.Version]; ok && d != s.digest {
		return errors.New("it is another than the one that the recovery key vouches for")
	}
	if r.Digest != nil && (s.Previous == nil || *s.Previous != *r.Digest) {
		return fmt.Errorf("it follows another version %d", r.Version)
	}
	if _, err := s.envelope.Open(KeysKind, w.counting(r.Keys, s.Keys), r.Threshold); err != nil {
		return fmt.Errorf("by the keys before: %w", err)
	}
	if _, err := s.envelope.Open(KeysKind, w.counting(s.keys, s.Keys), s.Threshold); err != nil {
		return fmt.Errorf("by its own keys: %w", err)
	}
	return nil
}

// OpenRevocation verifies a revocation with the recovery keys of a base.
func OpenRevocation(b Base, e *signing.Envelope) (*Revocation, error) {
	if len(b.Recovery) == 0 {
		return nil, errors.New("no recovery key is known here")
	}
	payload, err := e.Open(RevocationKind, b.Recovery, 1)
	if err != nil {
		return nil, err
	}
	v, err := ParseRevocation(payload)
	if err != nil {
		return nil, err
	}
	if v.Origin != b.Origin || v.Channel != b.Channel {
		return nil, fmt.Errorf("it is of the channel %s (%s), not of %s (%s)", v.Channel, v.Origin, b.Channel, b.Origin)
	}
	return v, nil
}

// Next is the statement that follows a ring.
func (r *Ring) Next(b Base, keys []signing.PublicKey, threshold int) *Keys {
	return &Keys{Origin: b.Origin, Channel: b.Channel, Version: r.Version + 1, Previous: r.Digest, Keys: Texts(keys), Threshold: threshold}
}

// Texts are keys as text.
func Texts(keys []signing.PublicKey) (list []string) {
	for _, k := range keys {
		list = append(list, k.String())
	}
	return list
}

// Names are keys by name, for people.
func Names(keys []signing.PublicKey) string {
	var list []string
	for _, k := range keys {
		list = append(list, k.Name())
	}
	return strings.Join(list, ", ")
}
