package keyring

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"narwharf/narinfo/clip"
	"narwharf/signing"
	"narwharf/signing/ijson"
)

// The kinds of statements.
const (
	KeysKind       signing.Kind = "narwharf/keys/v1"
	RevocationKind signing.Kind = "narwharf/revocation/v1"
)

// Bounds. What is past them is refused by every reader.
const (
	MaxStatements  = 100 // of a channel: decades of rotations
	MaxRevocations = 16
	maxKeys        = 32       // of one statement
	maxPayload     = 16 << 10 // bytes
	maxReason      = 1024
)

// Keys is a statement: who may sign from now on.
type Keys struct {
	V         int             `json:"v"` // 1
	Origin    string          `json:"origin"`
	Channel   string          `json:"channel"`
	Version   int64           `json:"version"`  // from 1
	Previous  *signing.Digest `json:"previous"` // of the payload of the statement before; null in the first
	Keys      []string        `json:"keys"`
	Threshold int             `json:"threshold"`
	Created   time.Time       `json:"created"`

	keys   []signing.PublicKey
	digest signing.Digest
}

// Public are its keys.
func (k *Keys) Public() []signing.PublicKey { return k.keys }

// Digest is of its payload.
func (k *Keys) Digest() signing.Digest { return k.digest }

// A Revocation is a statement of a recovery key: which keys count no more.
type Revocation struct {
	V       int      `json:"v"` // 1
	Origin  string   `json:"origin"`
	Channel string   `json:"channel"`
	Keys    []string `json:"keys"`
	// Version and Digest are of the last statement that is known to be right; 0 and null if
	// there was none.
	Version int64           `json:"version"`
	Digest  *signing.Digest `json:"digest"`
	Reason  string          `json:"reason"`
	Created time.Time       `json:"created"`

	keys []signing.PublicKey
}

// Public are the keys that count no more.
func (r *Revocation) Public() []signing.PublicKey { return r.keys }

// DigestOf is the digest of a payload.
func DigestOf(payload []byte) signing.Digest { return sha256.Sum256(payload) }

func open(payload []byte) (ijson.Object, error) {
	if len(payload) > maxPayload {
		return nil, fmt.Errorf("%d bytes, at most %d", len(payload), maxPayload)
	}
	o, err := ijson.Parse(payload)
	if err != nil {
		return nil, err
	}
	if i := o.Find("v"); i >= 0 { // first of all: another version may have other fields
		if v, ok := o[i].Value.(int64); ok && v != 1 {
			return nil, fmt.Errorf("version %d of the format is not known here (1 is): a newer narwharf made it", v)
		}
	}
	return o, nil
}

// ParseKeys reads and checks the payload of a keys statement.
func ParseKeys(payload []byte) (*Keys, error) {
	o, err := open(payload)
	if err != nil {
		return nil, fmt.Errorf("keys statement: %w", err)
	}
	r := ijson.Read(o, "v", "origin", "channel", "version", "previous", "keys", "threshold", "created")
	k := &Keys{
		V: int(r.Int("v")), Origin: r.String("origin"), Channel: r.String("channel"), Version: r.Int("version"),
		Keys: texts(r, "keys"), Threshold: int(r.Int("threshold")), Created: ijson.Text(r, "created", ijson.ParseTime), digest: DigestOf(payload),
	}
	k.Previous = digestOrNull(r, "previous")
	if r.Err == nil {
		r.Err = k.check()
	}
	if r.Err != nil {
		return nil, fmt.Errorf("keys statement: %w", r.Err)
	}
	return k, nil
}

// ParseRevocation reads and checks the payload of a revocation.
func ParseRevocation(payload []byte) (*Revocation, error) {
	o, err := open(payload)
	if err != nil {
		return nil, fmt.Errorf("revocation: %w", err)
	}
	r := ijson.Read(o, "v", "origin", "channel", "keys", "version", "digest", "reason", "created")
	v := &Revocation{
		V: int(r.Int("v")), Origin: r.String("origin"), Channel: r.String("channel"), Version: r.Int("version"),
		Keys: texts(r, "keys"), Reason: r.String("reason"), Created: ijson.Text(r, "created", ijson.ParseTime),
	}
	v.Digest = digestOrNull(r, "digest")
	if r.Err == nil {
		r.Err = v.check()
	}
	if r.Err != nil {
		return nil, fmt.Errorf("revocation: %w", r.Err)
	}
	return v, nil
}

func texts(r *ijson.Fields, name string) (list []string) {
	for _, item := range r.Array(name) {
		s, ok := item.(string)
		if !ok {
			r.Fail("%s: it has something that is no string", name)
		}
		list = append(list, s)
	}
	return list
}

// digestOrNull is a digest that has to be there, or null.
func digestOrNull(r *ijson.Fields, name string) *signing.Digest {
	if r.Null(name) {
		return nil
	}
	d := ijson.Text(r, name, signing.ParseDigest)
	if r.Err == nil && d.IsZero() {
		r.Fail("%s is all zeros", name)
	}
	return &d
}

func (k *Keys) check() (err error) {
	switch {
	case k.Version < 1 || k.Version > signing.MaxSeq:
		return fmt.Errorf("version %d is not between 1 and 2^53-1", k.Version)
	case (k.Version == 1) != (k.Previous == nil):
		return errors.New("previous is null in the first statement, and there alone")
	case k.Threshold < 1 || k.Threshold > len(k.Keys):
		return fmt.Errorf("a threshold of %d does not go with %d keys", k.Threshold, len(k.Keys))
	}
	if k.keys, err = parseKeys(k.Keys); err != nil {
		return err
	}
	return checkCommon(k.V, k.Origin, k.Channel, k.Created)
}

func (r *Revocation) check() (err error) {
	switch {
	case r.Version < 0 || r.Version > signing.MaxSeq:
		return fmt.Errorf("version %d is not between 0 and 2^53-1", r.Version)
	case (r.Version == 0) != (r.Digest == nil):
		return errors.New("digest is null with the version 0, and there alone")
	case len(r.Reason) > maxReason:
		return fmt.Errorf("reason: %d bytes, at most %d", len(r.Reason), maxReason)
	}
	if err := ijson.CheckText(r.Reason); err != nil {
		return fmt.Errorf("reason %w", err)
	}
	if r.keys, err = parseKeys(r.Keys); err != nil {
		return err
	}
	return checkCommon(r.V, r.Origin, r.Channel, r.Created)
}

func checkCommon(v int, origin, channel string, created time.Time) error {
	if v != 1 {
		return fmt.Errorf("version %d of the format is not known here (1 is)", v)
	}
	if err := signing.CheckOrigin(origin); err != nil {
		return err
	}
	if !ijson.PlainTime(created) {
		return errors.New("created is missing, before 1970, or not in UTC and whole seconds")
	}
	return signing.CheckChannel(channel)
}

// parseKeys takes each key once, in the one form of its text.
func parseKeys(list []string) (keys []signing.PublicKey, err error) {
	if len(list) == 0 || len(list) > maxKeys {
		return nil, fmt.Errorf("%d keys, it has 1 to %d", len(list), maxKeys)
	}
	for _, text := range list {
		k, err := signing.ParsePromoterKey(text)
		switch {
		case err != nil:
			return nil, fmt.Errorf("key %q: %w", clip.ASCII(text, 80), err)
		case k.String() != text:
			return nil, fmt.Errorf("key %q is not in its shortest form", clip.ASCII(text, 80))
		case slices.ContainsFunc(keys, k.Same):
			return nil, fmt.Errorf("key %s is there twice", k.Name())
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// Seal checks a keys statement and puts it in an envelope that nobody has signed.
func (k *Keys) Seal() (*signing.Envelope, error) {
	k.V, k.Created = 1, k.Created.UTC().Truncate(time.Second)
	if err := k.check(); err != nil {
		return nil, fmt.Errorf("keys statement: %w", err)
	}
	payload, err := json.Marshal(k)
	if err != nil {
		return nil, err
	}
	k.digest = DigestOf(payload)
	return signing.Seal(KeysKind, payload), nil
}

// Seal checks a revocation and puts it in an envelope that nobody has signed.
func (r *Revocation) Seal() (*signing.Envelope, error) {
	r.V, r.Created = 1, r.Created.UTC().Truncate(time.Second)
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("revocation: %w", err)
	}
	payload, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return signing.Seal(RevocationKind, payload), nil
}
