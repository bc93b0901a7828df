package signing

import (
	"fmt"
	"strings"

	"narwharf/narinfo"
	"narwharf/signing/curve"
)

// A Signer makes signatures by one key, which may be elsewhere: in a device, or behind a service.
type Signer interface {
	Public() PublicKey
	// Signature is "name:base64" of a signature over msg that Public verifies.
	Signature(msg []byte) (string, error)
}

// Signature implements Signer.
func (k SecretKey) Signature(msg []byte) (string, error) { return k.Sign(msg), nil }

// ParsePromoterSecretKey reads a key that signs releases: one in Nix's format, or
// "name:ecdsa-p256:base64 of the scalar's 32 bytes".
func ParsePromoterSecretKey(s string) (SecretKey, error) {
	name, text, err := cut(strings.TrimSpace(s))
	if err != nil {
		return ParseSecretKey(s) // which says the same
	}
	key, is, err := curve.ParseSecret(text)
	switch {
	case !is:
		return ParseSecretKey(s)
	case err != nil:
		return SecretKey{}, fmt.Errorf("parse secret key: %w", err)
	}
	return newP256(name, key), nil
}

// GenerateP256 makes a new P-256 key of that name.
func GenerateP256(name string) (SecretKey, error) {
	if !narinfo.ValidKeyName(name) {
		return SecretKey{}, fmt.Errorf("generate key: %q cannot be the name of a key; use something like alice-1", name)
	}
	key, err := curve.Generate()
	if err != nil {
		return SecretKey{}, fmt.Errorf("generate key %s: %w", name, err)
	}
	return newP256(name, key), nil
}

func newP256(name string, key *curve.Secret) SecretKey {
	p := &keyPair{p256: key, public: PublicKey{name, key.Public()}}
	return SecretKey{func() *keyPair { return p }}
}

// NixKnows tells whether Nix can verify what the key signs.
func (k PublicKey) NixKnows() bool { return k.key.Algorithm() == curve.Ed25519 }
