package e2e

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
)

// A Key signs as Nix does: "name:base64" of an Ed25519 seed and public key.
type Key struct {
	Name    string
	private ed25519.PrivateKey
}

// NewKey makes a key.
func NewKey(name string) Key {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return Key{Name: name, private: private}
}

// Secret is the text of a secret key file.
func (k Key) Secret() string { return k.Name + ":" + base64.StdEncoding.EncodeToString(k.private) }

// Public is the text for trusted-public-keys.
func (k Key) Public() string {
	return k.Name + ":" + base64.StdEncoding.EncodeToString(k.private.Public().(ed25519.PublicKey))
}

// Sign is the text of a Sig line.
func (k Key) Sign(message string) string {
	return k.Name + ":" + base64.StdEncoding.EncodeToString(ed25519.Sign(k.private, []byte(message)))
}

// Signed reports whether sig is this key's signature of message.
func (k Key) Signed(message, sig string) bool {
	return sig == k.Sign(message) // Ed25519 is deterministic
}
