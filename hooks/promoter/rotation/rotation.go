// Package rotation changes which keys sign the releases of a channel: what narwharf channel
// keys does.
//
// A statement about the keys is built on the one before. What that is a server says, and it is
// believed as little as for releases: a statement has to be signed by a key that is trusted
// here, and before there is any, each key of the channel has to be. Otherwise a server could
// slip a key of its own into what a promoter signs.
//
// A change that more than one person signs goes round as a file, which is the body of the
// request: Save, ReadFile, (*File).Sign, Send.
package rotation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"narwharf/cache/state/durable"
	"narwharf/hooks/api"
	"narwharf/narinfo/clip"
	"narwharf/signing"
	"narwharf/signing/keyring"
)

// A Rotation is about the keys of one channel.
type Rotation struct {
	Client  *api.Client
	Channel string
	Signers []signing.Signer
	Trusted []signing.PublicKey // whose statements are built upon; those of Signers if nil
}

func (r *Rotation) trusted() []signing.PublicKey {
	if r.Trusted != nil {
		return r.Trusted
	}
	var keys []signing.PublicKey
	for _, s := range r.Signers {
		keys = append(keys, s.Public())
	}
	return keys
}

// ring is where the statements lead that the server has.
func (r *Rotation) ring(ctx context.Context) (keyring.Base, *keyring.Ring, error) {
	k, err := r.Client.Keys(ctx, r.Channel, nil)
	if err != nil {
		return keyring.Base{}, nil, err
	}
	b := keyring.Base{Origin: k.Origin, Channel: r.Channel, Version: k.Version, Threshold: k.Threshold, Accepted: k.Revocations}
	first := k.Keys
	if len(k.Statements) > 0 {
		b.Version, b.Threshold, first = 0, k.FirstThreshold, k.First
	}
	for _, text := range first {
		key, err := signing.ParsePromoterKey(text)
		if err != nil {
			return b, nil, fmt.Errorf("the channel's keys: %w", err)
		}
		b.Keys = append(b.Keys, key)
	}
	ring := keyring.Walk(b, k.Statements, nil)
	if ring.Version != k.Version {
		return b, nil, fmt.Errorf("the server says that the keys of %s are version %d, and what it shows leads to %d: %s", r.Channel, k.Version, ring.Version, ring.Why)
	}
	return b, ring, nil
}

// verified is ring, of which nothing is taken that no key trusted here vouches for.
func (r *Rotation) verified(ctx context.Context) (keyring.Base, *keyring.Ring, error) {
	b, ring, err := r.ring(ctx)
	if err != nil {
		return b, nil, err
	}
	trusted := r.trusted()
	if n := len(ring.Statements); n > 0 {
		if _, err := ring.Statements[n-1].Open(keyring.KeysKind, trusted, 1); err != nil {
			return b, nil, fmt.Errorf("version %d of the keys of %s cannot be built upon: %w; if you trust one of those who signed it, name the key with --trusted-key", ring.Version, r.Channel, err)
		}
		return b, ring, nil
	}
	for _, k := range ring.Keys {
		if !slices.ContainsFunc(trusted, k.Same) {
			return b, nil, fmt.Errorf("the server says that %s is one of the keys of %s: if that is so, name it with --trusted-key '%[1]s', with all others that count (a server could slip one of its own in)", k, r.Channel)
		}
	}
	return b, ring, nil
}

// Add makes the statement by which more keys sign, and signs it.
func (r *Rotation) Add(ctx context.Context, keys []signing.PublicKey, threshold int) (*File, error) {
	b, ring, err := r.verified(ctx)
	if err != nil {
		return nil, err
	}
	next := slices.Clone(ring.Keys)
	for _, k := range keys {
		if slices.ContainsFunc(next, k.Same) {
			return nil, fmt.Errorf("%s signs for %s already", k.Name(), r.Channel)
		}
		next = append(next, k)
	}
	return r.statement(b, ring, next, threshold)
}

// Retire makes the statement by which keys sign no more, named by their names or themselves,
// and signs it.
func (r *Rotation) Retire(ctx context.Context, names []string, threshold int) (*File, error) {
	b, ring, err := r.verified(ctx)
	if err != nil {
		return nil, err
	}
	gone, err := named(ring.Keys, names)
	if err != nil {
		return nil, fmt.Errorf("%w; those that sign for %s are %s", err, r.Channel, keyring.Names(ring.Keys))
	}
	next := slices.DeleteFunc(slices.Clone(ring.Keys), func(k signing.PublicKey) bool { return slices.ContainsFunc(gone, k.Same) })
	if len(next) == 0 {
		return nil, fmt.Errorf("no key would be left: add the next one first, with narwharf channel keys %s add KEY", r.Channel)
	}
	return r.statement(b, ring, next, threshold)
}

func (r *Rotation) statement(b keyring.Base, ring *keyring.Ring, keys []signing.PublicKey, threshold int) (*File, error) {
	if threshold == 0 {
		threshold = min(ring.Threshold, len(keys))
	}
	s := ring.Next(b, keys, threshold)
	s.Created = time.Now()
	e, err := s.Seal()
	if err != nil {
		return nil, err
	}
	f := &File{change: api.KeysChange{Statement: e}}
	_, err = f.sign(r.Signers)
	return f, err
}

// Revoke makes the revocation of keys, and signs it with the recovery key if that is among
// Signers. It vouches for the statements that the server has, but for those with a version
// above below, if that is not negative.
func (r *Rotation) Revoke(ctx context.Context, names []string, reason string, below int64) (*File, error) {
	b, ring, err := r.ring(ctx)
	if err != nil {
		return nil, err
	}
	known := slices.Concat(b.Keys, ring.Keys)
	for _, e := range ring.Statements {
		if s, err := keyring.ParseKeys(e.Payload); err == nil {
			known = append(known, s.Public()...)
		}
	}
	keys, err := named(known, names)
	if err != nil {
		return nil, fmt.Errorf("%w; those that have ever signed for %s are %s", err, r.Channel, keyring.Names(unique(known)))
	}
	if below >= 0 && below < ring.Version {
		ring = keyring.Walk(b, ring.Statements[:max(below-b.Version, 0)], nil)
	}
	v := &keyring.Revocation{Origin: b.Origin, Channel: b.Channel, Keys: keyring.Texts(unique(keys)), Version: ring.Version, Digest: ring.Digest, Reason: reason, Created: time.Now()}
	e, err := v.Seal()
	if err != nil {
		return nil, err
	}
	f := &File{change: api.KeysChange{Revocation: e}}
	_, err = f.sign(r.Signers)
	return f, err
}

func unique(keys []signing.PublicKey) (list []signing.PublicKey) {
	for _, k := range keys {
		if !slices.ContainsFunc(list, k.Same) {
			list = append(list, k)
		}
	}
	return list
}

// named are keys by name, or by their text, which need not be known.
func named(known []signing.PublicKey, names []string) (list []signing.PublicKey, err error) {
	for _, n := range names {
		if strings.Contains(n, ":") {
			k, err := signing.ParsePromoterKey(n)
			if err != nil {
				return nil, err
			}
			list = append(list, k)
			continue
		}
		at := slices.IndexFunc(known, func(k signing.PublicKey) bool { return k.Name() == n })
		if at < 0 {
			return nil, fmt.Errorf("no key is named %q", clip.ASCII(n, 80))
		}
		list = append(list, known[at])
	}
	if len(list) == 0 {
		return nil, errors.New("say which keys, by name")
	}
	return list, nil
}

// Send puts a change to the channel.
func (r *Rotation) Send(ctx context.Context, f *File) (*api.Keys, error) {
	if _, err := f.sign(r.Signers); err != nil {
		return nil, err
	}
	return r.Client.Keys(ctx, r.Channel, &f.change)
}

// Recovery names the keys by which a revocation may be signed.
func (r *Rotation) Recovery(ctx context.Context, keys []signing.PublicKey) (*api.Keys, error) {
	return r.Client.Keys(ctx, r.Channel, &api.KeysChange{Recovery: keyring.Texts(keys)})
}

// A File is a change of a channel's keys that waits for signatures. They are not verified.
type File struct {
	name   string
	change api.KeysChange
}

// ErrOther is that a file is no change of keys.
var ErrOther = errors.New("it is no change of a channel's keys")

// ReadFile reads what Save wrote.
func ReadFile(name string) (*File, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	f := &File{name: name}
	if err := json.Unmarshal(text, &f.change); err != nil || (f.change.Statement == nil) == (f.change.Revocation == nil) {
		return nil, fmt.Errorf("%s: %w", name, ErrOther)
	}
	if _, err := f.describe(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return f, nil
}

func (f *File) envelope() (*signing.Envelope, signing.Kind) {
	if f.change.Revocation != nil {
		return f.change.Revocation, keyring.RevocationKind
	}
	return f.change.Statement, keyring.KeysKind
}

func (f *File) sign(signers []signing.Signer) (signatures int, err error) {
	e, kind := f.envelope()
	for _, s := range signers {
		if err := e.SignBy(kind, s); err != nil {
			return 0, err
		}
	}
	return len(e.Signatures), nil
}

// Sign adds signatures and replaces the file. It returns how many there are.
func (f *File) Sign(signers []signing.Signer) (signatures int, err error) {
	n, err := f.sign(signers)
	if err != nil || len(signers) == 0 {
		return n, err
	}
	text, err := f.text()
	if err == nil {
		err = durable.WriteFile(f.name, text, 0o644)
	}
	return n, err
}

// Save writes a change to a new file.
func (f *File) Save(name string) error {
	text, err := f.text()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err == nil {
		_, err = out.Write(text)
		err = errors.Join(err, out.Sync(), out.Close())
	}
	if err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	return nil
}

func (f *File) text() ([]byte, error) {
	text, err := json.MarshalIndent(f.change, "", "  ")
	return append(text, '\n'), err
}

// Show prints what a signer vouches for.
func (f *File) Show(out io.Writer) error {
	lines, err := f.describe()
	if err != nil {
		return err
	}
	e, _ := f.envelope()
	var signers []string
	for _, s := range e.Signatures {
		signers = append(signers, s.Key)
	}
	if len(signers) == 0 {
		signers = []string{"none"}
	}
	for _, l := range append(lines, [2]string{"signatures", strings.Join(signers, ", ") + " (not verified here)"}) {
		fmt.Fprintf(out, "%-10s %s\n", l[0], clip.Line(l[1], 4<<10))
	}
	return nil
}

func (f *File) describe() (lines [][2]string, err error) {
	e, _ := f.envelope()
	line := func(name, format string, args ...any) {
		lines = append(lines, [2]string{name, fmt.Sprintf(format, args...)})
	}
	if f.change.Revocation != nil {
		v, err := keyring.ParseRevocation(e.Payload)
		if err != nil {
			return nil, err
		}
		line("channel", "%s", v.Channel)
		line("origin", "%s", v.Origin)
		for _, k := range v.Keys {
			line("revokes", "%s", k)
		}
		line("reason", "%s", v.Reason)
		if v.Digest == nil {
			line("vouches", "for no statement about the keys")
		} else {
			line("vouches", "for version %d of the keys (%s), and those before it", v.Version, v.Digest)
		}
		line("made", "%s", api.TimeText(v.Created))
		return lines, nil
	}
	s, err := keyring.ParseKeys(e.Payload)
	if err != nil {
		return nil, err
	}
	line("channel", "%s", s.Channel)
	line("origin", "%s", s.Origin)
	line("version", "%d of its keys", s.Version)
	for _, k := range s.Keys {
		line("key", "%s", k)
	}
	line("threshold", "%d", s.Threshold)
	line("made", "%s", api.TimeText(s.Created))
	return lines, nil
}
