package signing

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"narwharf/narinfo/clip"
	"narwharf/signing/ijson"
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
	return fmt.Appendf(nil, "%s\n%d\n%s", kind, len(payload), payload)
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
	maxEnvelope           = 256 << 10 // of its JSON: the above, and room for white space
)

// Nix allows more in the name of a key, but what prints depends on the version
// of Unicode, and all have to agree on which envelopes can be read.
var keyNameGrammar = regexp.MustCompile(`^[!-9;-~]{1,255}$`)

// Seal makes an envelope. With no keys it is unsigned, for others to sign.
func Seal(kind Kind, payload []byte, keys ...SecretKey) *Envelope {
	e := &Envelope{Payload: slices.Clone(payload), Signatures: []Signature{}}
	for _, k := range keys {
		e.Sign(kind, k)
	}
	return e
}

// Sign adds a signature by k; signing twice changes nothing. Nobody reads an
// envelope with more than 64 signatures, or with one by a key whose name is not
// ASCII.
func (e *Envelope) Sign(kind Kind, k SecretKey) {
	name, sig, _ := strings.Cut(k.Sign(statement(kind, e.Payload)), ":")
	e.add(Signature{name, sig})
}

// SignBy adds a signature by a key that may be elsewhere, unless the key has signed: one
// that signs otherwise each time would fill the envelope.
func (e *Envelope) SignBy(kind Kind, signer Signer) error {
	if len(e.Signers(kind, []PublicKey{signer.Public()})) > 0 {
		return nil
	}
	text, err := signer.Signature(statement(kind, e.Payload))
	if err != nil {
		return err
	}
	name, sig, _ := strings.Cut(text, ":")
	e.add(Signature{name, sig})
	return nil
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
// tells whether there was a new one. Signatures are not verified here. Where
// they would be more than any reader takes, none is added.
func (e *Envelope) Merge(other *Envelope) (added bool, err error) {
	if !bytes.Equal(e.Payload, other.Payload) {
		return false, errors.New("the payloads differ: these are two statements")
	}
	all := &Envelope{Signatures: slices.Clone(e.Signatures)}
	for _, s := range other.Signatures {
		added = all.add(s) || added
	}
	if n := len(all.Signatures); n > maxEnvelopeSignatures {
		return false, fmt.Errorf("together they have %d signatures, at most %d are looked at: leave out those that do not count", n, maxEnvelopeSignatures)
	}
	e.Signatures = all.Signatures
	return added, nil
}

// UnmarshalJSON reads an envelope strictly; it verifies no signature.
func (e *Envelope) UnmarshalJSON(text []byte) error {
	if len(text) > maxEnvelope {
		return fmt.Errorf("envelope: %d bytes, at most %d", len(text), maxEnvelope)
	}
	o, err := ijson.Parse(text)
	if err != nil {
		return fmt.Errorf("envelope: %w", err)
	}
	return e.fromJSON(o)
}

func (e *Envelope) fromJSON(o ijson.Object) error {
	r := ijson.Read(o, "payload", "signatures")
	n := Envelope{Payload: ijson.Text(r, "payload", ijson.Base64), Signatures: []Signature{}}
	for i, item := range r.Array("signatures") {
		o, ok := item.(ijson.Object)
		if !ok {
			r.Fail("signature %d is not an object", i+1)
			break
		}
		s := ijson.Read(o, "key", "sig")
		n.Signatures = append(n.Signatures, Signature{s.String("key"), s.String("sig")})
		r.Within(fmt.Sprintf("signature %d", i+1), s)
	}
	if r.Err != nil {
		return fmt.Errorf("envelope: %w", r.Err)
	}
	if err := n.check(); err != nil {
		return err
	}
	*e = n
	return nil
}

func (e *Envelope) check() error {
	if len(e.Payload) == 0 || len(e.Payload) > maxPayload {
		return fmt.Errorf("envelope: the payload has %d bytes, it should have 1 to %d", len(e.Payload), maxPayload)
	}
	if n := len(e.Signatures); n > maxEnvelopeSignatures {
		return fmt.Errorf("envelope: %d signatures, at most %d are looked at", n, maxEnvelopeSignatures)
	}
	for i, s := range e.Signatures {
		if !keyNameGrammar.MatchString(s.Key) {
			return fmt.Errorf("envelope: signature %d: the key's name %q is not 1 to 255 of visible ASCII without a colon", i+1, clipped(s.Key))
		}
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
	for _, s := range e.Signatures {
		for _, k := range keys {
			counted := slices.ContainsFunc(good, k.Same)
			if !counted && k.Verify(text, s.Key+":"+s.Sig) {
				good = append(good, k)
			}
		}
	}
	return good
}

// listed is some names for a message, which strangers must not make long.
func listed(names []string) string {
	var short []string
	for _, n := range names {
		short = append(short, clipped(n))
	}
	return cmp.Or(clip.List(short), "none")
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
	var claimed, count []string
	for _, s := range e.Signatures {
		if !slices.Contains(claimed, s.Key) {
			claimed = append(claimed, s.Key)
		}
	}
	for _, k := range keys {
		count = append(count, k.Name())
	}
	return nil, fmt.Errorf("%d of the %d needed signatures are good (signed by %s; keys that count: %s)", len(good), threshold, listed(claimed), listed(count))
}
