package signing

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"

	"narwharf/narinfo"
	"narwharf/signing/curve"
)

// SecretKey signs. It is safe for concurrent use. The zero value is not a key:
// its methods panic.
type SecretKey struct {
	// A function, because fmt prints one as an address and with no verb follows
	// it, even in an unexported field of someone's struct, where fmt cannot call
	// Format. It does follow a pointer there.
	pair func() *keyPair
}

type keyPair struct {
	secret signature.SecretKey
	p256   *curve.Secret // instead of it
	public PublicKey
}

// ParseSecretKey reads the line that Nix keeps in a secret key file,
// "name:base64 of 64 bytes". White space around it is cut off. The error does
// not say which file it was; the caller should.
func ParseSecretKey(s string) (SecretKey, error) {
	name, data, err := split(strings.TrimSpace(s))
	switch {
	case err != nil:
		return SecretKey{}, fmt.Errorf("parse secret key: %w", err)
	case len(data) == ed25519.PublicKeySize:
		return SecretKey{}, errors.New("parse secret key: this is a public key (32 bytes); the secret key (64 bytes) is needed, the other file that the key was made with")
	case len(data) != ed25519.PrivateKeySize:
		return SecretKey{}, fmt.Errorf("parse secret key: it has %d bytes where a secret key has 64; the file may be cut short", len(data))
	}
	// libsodium and Go both sign with the public half as it stands, and a
	// signature made with a wrong one gives the secret away.
	if !bytes.Equal(ed25519.NewKeyFromSeed(data[:ed25519.SeedSize]), data) {
		return SecretKey{}, errors.New("parse secret key: its two halves do not belong together; this is a signature or a damaged key")
	}
	secret, err := signature.LoadSecretKey(encode(name, data))
	if err != nil {
		return SecretKey{}, errors.New("parse secret key: not in Nix's format")
	}
	return newSecretKey(secret), nil
}

// GenerateKey makes a new key of that name from the system's randomness.
func GenerateKey(name string) (SecretKey, error) {
	if !narinfo.ValidKeyName(name) {
		return SecretKey{}, fmt.Errorf("generate key: %q cannot be the name of a key; use something like cache.example.org-1", name)
	}
	secret, _, err := signature.GenerateKeypair(name, nil)
	if err != nil {
		return SecretKey{}, fmt.Errorf("generate key %s: %w", name, err)
	}
	return newSecretKey(secret), nil
}

func newSecretKey(secret signature.SecretKey) SecretKey {
	p := &keyPair{secret: secret}
	public := secret.ToPublicKey()
	p.public = PublicKey{public.Name, curve.PublicOf(public.Data)}
	return SecretKey{func() *keyPair { return p }}
}

// String is the secret as a key file has it, without a newline; fmt and slog do not use it.
func (k SecretKey) String() string {
	if p := k.pair(); p.p256 != nil {
		return p.public.name + ":" + p.p256.Text()
	}
	return k.pair().secret.String()
}

// Name is the part before the colon.
func (k SecretKey) Name() string { return k.pair().public.name }

// Public is the key that verifies what k signs.
func (k SecretKey) Public() PublicKey { return k.pair().public }

// Sign returns "name:base64" of the signature of msg. The same key and message
// always give the same text.
func (k SecretKey) Sign(msg []byte) string {
	if p := k.pair(); p.p256 != nil {
		return encode(p.public.name, p.p256.Sign(msg))
	}
	sig, err := k.pair().secret.Sign(nil, string(msg))
	if err != nil {
		// Ed25519 refuses only options that are not given here.
		panic("signing: " + err.Error())
	}
	return sig.String()
}

// Format prints the name and that this is a secret, whatever the verb.
func (k SecretKey) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, k.redacted())
}

// LogValue is what slog shows: the same as Format.
func (k SecretKey) LogValue() slog.Value { return slog.StringValue(k.redacted()) }

func (k SecretKey) redacted() string {
	if k.pair == nil {
		return "no secret key"
	}
	return k.Name() + ":(secret)"
}

// PublicKey verifies. Two of the same name and bytes are ==.
type PublicKey struct {
	name string
	key  curve.Public
}

// ParsePublicKey reads "name:base64 of 32 bytes", as in trusted-public-keys of
// nix.conf: a key whose signatures Nix knows. White space around it is cut off.
func ParsePublicKey(s string) (PublicKey, error) {
	k, err := ParsePromoterKey(s)
	if err == nil && k.key.Algorithm() != curve.Ed25519 {
		_, err = curve.Bytes(k.key.String()) // which says so
		err = fmt.Errorf("parse public key: %w", err)
	}
	if err != nil {
		return PublicKey{}, err
	}
	return k, nil
}

// ParsePromoterKey reads the public key of who signs releases: one in Nix's format, or
// "name:ecdsa-p256:base64 of 33 bytes", the compressed point.
func ParsePromoterKey(s string) (PublicKey, error) {
	name, text, err := cut(strings.TrimSpace(s))
	var key curve.Public
	if err == nil {
		key, err = curve.ParsePublic(text)
	}
	if err != nil {
		return PublicKey{}, fmt.Errorf("parse public key: %w", err)
	}
	return PublicKey{name, key}, nil
}

// String is the key as text: in Nix's format, if Nix knows its algorithm.
func (k PublicKey) String() string { return k.name + ":" + k.key.String() }

// Name is the part before the colon.
func (k PublicKey) Name() string { return k.name }

// Same tells whether two keys are one, under whatever names.
func (k PublicKey) Same(o PublicKey) bool { return k.key == o.key }

// Verify reports whether sig, "name:base64", is a signature of msg by k and
// under k's name. A malformed sig is not. The zero PublicKey verifies nothing.
func (k PublicKey) Verify(msg []byte, sig string) bool {
	_, ok := VerifyAny(msg, []string{sig}, []PublicKey{k})
	return ok
}

// ParseSignature reads "name:base64 of 64 bytes" strictly: what it takes is
// exactly what narinfo.Parse takes after "Sig: ".
func ParseSignature(s string) (name string, sig []byte, err error) {
	name, sig, err = split(s)
	if err != nil {
		return "", nil, fmt.Errorf("parse signature: %w", err)
	}
	if len(sig) != ed25519.SignatureSize {
		return "", nil, fmt.Errorf("parse signature: it has %d bytes where a signature has 64", len(sig))
	}
	return name, sig, nil
}

// VerifyAny returns a key of keys that made one of sigs over msg. Unlike Nix and
// go-nix it tries every key that has the signature's name. Malformed signatures
// are passed over.
func VerifyAny(msg []byte, sigs []string, keys []PublicKey) (PublicKey, bool) {
	for _, s := range sigs {
		name, sig, err := ParseSignature(s)
		if err != nil {
			continue
		}
		for _, k := range keys {
			if name == k.name && k.key.Verify(msg, sig) {
				return k, true
			}
		}
	}
	return PublicKey{}, false
}

// split reads "name:base64". Its errors hold nothing of s.
func split(s string) (name string, data []byte, err error) {
	name, text, err := cut(s)
	if err == nil {
		data, err = curve.Bytes(text)
	}
	return name, data, err
}

// cut parts a name from what follows it.
func cut(s string) (name, text string, err error) {
	name, text, ok := strings.Cut(s, ":")
	switch {
	case !ok:
		err = errors.New("it has no colon; Nix's format is name:base64")
	case name == "":
		err = errors.New("it has no name before the colon; Nix's format is name:base64")
	case !narinfo.ValidKeyName(name):
		err = errors.New("its name has a space or something that does not print; Nix's format is name:base64 on one line")
	}
	return name, text, err
}

func encode(name string, data []byte) string {
	return name + ":" + base64.StdEncoding.EncodeToString(data)
}

// SignInfo returns the signatures of i together with one by each of keys over
// i's fingerprint, sorted and unique. i itself is not changed, so an Info that
// several requests share can be signed. Signatures that i has are kept, also
// those of a key name that signs now: two keys may have one name.
//
// An Info without NarHash or NarSize gets no signature, as Nix refuses to sign
// one: it would vouch for nothing.
func SignInfo[K Signer](i *narinfo.Info, keys []K) ([]string, error) {
	sigs := slices.Clone(i.Sigs)
	if !i.NarHash.IsZero() && i.NarSize > 0 {
		msg := i.AppendFingerprint(nil)
		for _, k := range keys {
			sig, err := k.Signature(msg)
			if err != nil {
				return nil, fmt.Errorf("narinfo of %s: %w", i.Path, err)
			}
			sigs = append(sigs, sig)
		}
	}
	slices.Sort(sigs)
	return slices.Compact(sigs), nil
}
