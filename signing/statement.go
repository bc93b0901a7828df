package signing

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A Kind is the first line of what is signed. It keeps a signature over one
// sort of statement from being shown as one over another.
type Kind string

// HeadKind marks the head of a release.
const HeadKind Kind = "narwharf/head/v1"

// statement returns the bytes that a signature covers: the kind, the length
// of the payload in decimal, and the payload, each of the first two ended by a
// newline. The payload is opaque: there is no canonical JSON, whoever verifies
// looks at the very bytes that were signed.
func statement(kind Kind, payload []byte) []byte {
	b := make([]byte, 0, len(kind)+len(payload)+24)
	b = append(b, kind...)
	b = append(b, '\n')
	b = strconv.AppendInt(b, int64(len(payload)), 10)
	b = append(b, '\n')
	return append(b, payload...)
}

// A Signature of an Envelope.
type Signature struct {
	Key string `json:"key"` // the key's name
	Sig string `json:"sig"` // standard base64 of the 64 bytes
}

// An Envelope is a payload with signatures. It names no algorithm: that
// belongs to the key, which the verifier has pinned.
type Envelope struct {
	Payload    []byte      `json:"payload"` // base64 in JSON
	Signatures []Signature `json:"signatures"`
}

// Limits of an envelope, so that bad input stays cheap.
const (
	maxPayload            = 64 << 10
	maxEnvelopeSignatures = 64
)

// Seal makes an envelope. With no keys it is unsigned, for others to sign.
func Seal(kind Kind, payload []byte, keys ...SecretKey) *Envelope {
	e := &Envelope{Payload: slices.Clone(payload), Signatures: []Signature{}}
	for _, k := range keys {
		e.Sign(kind, k)
	}
	return e
}

// Sign adds a signature by k; signing twice changes nothing.
func (e *Envelope) Sign(kind Kind, k SecretKey) {
	name, sig, _ := strings.Cut(k.Sign(statement(kind, e.Payload)), ":")
	e.add(Signature{name, sig})
}

func (e *Envelope) add(s Signature) (added bool) {
	if slices.Contains(e.Signatures, s) {
		return false
	}
	e.Signatures = append(e.Signatures, s)
	slices.SortFunc(e.Signatures, func(a, b Signature) int {
		return strings.Compare(a.Key+":"+a.Sig, b.Key+":"+b.Sig)
	})
	return true
}

// Merge adds the signatures of another envelope with the same payload and
// tells whether there was a new one. Signatures are not verified here.
func (e *Envelope) Merge(other *Envelope) (added bool, err error) {
	if string(e.Payload) != string(other.Payload) {
		return false, errors.New("the payloads differ: these are two statements")
	}
	for _, s := range other.Signatures {
		if e.add(s) {
			added = true
		}
	}
	return added, nil
}

// ParseEnvelope reads the JSON of an envelope.
func ParseEnvelope(text []byte) (*Envelope, error) {
	var e Envelope
	if err := json.Unmarshal(text, &e); err != nil {
		return nil, fmt.Errorf("envelope: %w", err)
	}
	return &e, e.check()
}

func (e *Envelope) check() error {
	if len(e.Payload) == 0 || len(e.Payload) > maxPayload {
		return fmt.Errorf("envelope: the payload has %d bytes, it should have 1 to %d", len(e.Payload), maxPayload)
	}
	if n := len(e.Signatures); n > maxEnvelopeSignatures {
		return fmt.Errorf("envelope: %d signatures, at most %d are looked at", n, maxEnvelopeSignatures)
	}
	for i, s := range e.Signatures {
		if _, _, err := ParseSignature(s.Key + ":" + s.Sig); err != nil {
			return fmt.Errorf("envelope: signature %d: %w", i+1, err)
		}
	}
	return nil
}

// Signers returns those of keys that made a good signature. A key counts once
// however many signatures it made, and under however many names it is given.
func (e *Envelope) Signers(kind Kind, keys []PublicKey) []PublicKey {
	text := statement(kind, e.Payload)
	var good []PublicKey
	counted := make(map[string]bool) // by the key's bytes
	for _, s := range e.Signatures {
		for _, k := range keys {
			if k.Name() != s.Key || !k.Verify(text, s.Key+":"+s.Sig) {
				continue
			}
			_, material, _ := strings.Cut(k.String(), ":")
			if !counted[material] {
				counted[material] = true
				good = append(good, k)
			}
		}
	}
	return good
}

// A ThresholdError says that too few of the keys signed.
type ThresholdError struct {
	Need, Have int
	Signed     []string // names of the keys whose signatures are good
	Claimed    []string // names that the envelope's signatures claim
	Keys       []string // names of the keys that count
}

func (e *ThresholdError) Error() string {
	claimed := "none"
	if len(e.Claimed) > 0 {
		claimed = strings.Join(e.Claimed, ", ")
	}
	return fmt.Sprintf("%d of the %d needed signatures are good (signed by %s; keys that count: %s)", e.Have, e.Need, claimed, strings.Join(e.Keys, ", "))
}

// Open verifies that at least threshold of keys signed, and returns the
// payload. A threshold below 1 is an error: it would verify nothing.
func (e *Envelope) Open(kind Kind, keys []PublicKey, threshold int) ([]byte, error) {
	if threshold < 1 {
		return nil, fmt.Errorf("a threshold of %d would accept unsigned statements", threshold)
	}
	if err := e.check(); err != nil {
		return nil, err
	}
	good := e.Signers(kind, keys)
	if len(good) >= threshold {
		return e.Payload, nil
	}
	t := &ThresholdError{Need: threshold, Have: len(good)}
	for _, k := range good {
		t.Signed = append(t.Signed, k.Name())
	}
	for _, s := range e.Signatures {
		if !slices.Contains(t.Claimed, s.Key) {
			t.Claimed = append(t.Claimed, s.Key)
		}
	}
	for _, k := range keys {
		t.Keys = append(t.Keys, k.Name())
	}
	return nil, t
}

