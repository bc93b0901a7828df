package curve

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"regexp"
	"strings"

	"narwharf/signing/ijson"
)

// An Algorithm is how a key signs. It belongs to the key and stands in its text; no
// signature names it.
type Algorithm uint8

// The algorithms. Nix knows the first alone.
const (
	Ed25519 Algorithm = iota
	P256
)

// p256Word stands before the bytes in the text of a P-256 key.
const p256Word = "ecdsa-p256:"

var algorithmWord = regexp.MustCompile(`^[a-z][a-z0-9-]{2,31}:`)

// Public is a public key. Two of the same bytes are ==.
type Public struct {
	alg  Algorithm
	data [P256Public]byte // of Ed25519 the first 32
}

// PublicOf is an Ed25519 key of its bytes.
func PublicOf(key ed25519.PublicKey) (p Public) {
	copy(p.data[:ed25519.PublicKeySize], key)
	return p
}

// ParsePublic reads a public key's text: base64 of 32 bytes, as Nix has it, or
// "ecdsa-p256:" and base64 of 33 bytes.
func ParsePublic(text string) (p Public, err error) {
	digits, is := strings.CutPrefix(text, p256Word)
	if !is {
		return parseEd25519(text)
	}
	data, err := ijson.Base64(digits)
	switch {
	case err != nil:
		return p, errors.New("what follows ecdsa-p256: is not padded base64 on one line")
	case len(data) == P256Secret:
		return p, errors.New("this is a secret key (32 bytes); the public key (33 bytes) is needed. Make it with: narwharf key public < FILE")
	case point(data) == nil:
		return p, errors.New("it is not the compressed point of a P-256 key (33 bytes)")
	}
	p.alg = P256
	copy(p.data[:], data)
	return p, nil
}

func parseEd25519(text string) (p Public, err error) {
	data, err := Bytes(text)
	switch {
	case err != nil:
		return p, err
	case len(data) == ed25519.PrivateKeySize:
		return p, errors.New("this has 64 bytes, as a secret key or a signature has; the public key (32 bytes) is needed. Make it with: narwharf key public < FILE")
	case len(data) != ed25519.PublicKeySize:
		return p, errorLength(len(data), "a public key", ed25519.PublicKeySize)
	case SmallOrder([32]byte(data)):
		return p, errors.New("anyone can make signatures for these bytes (a point of small order); this is a placeholder or a trap, not a key")
	}
	return PublicOf(data), nil
}

// Bytes reads what follows the name in what Nix keeps: base64, of Ed25519. Its errors hold
// nothing of the text, which may be a secret.
func Bytes(text string) ([]byte, error) {
	switch {
	case text == "":
		return nil, errors.New("nothing follows the colon; Nix's format is name:base64")
	case strings.HasPrefix(text, p256Word):
		return nil, errors.New("it is an ECDSA P-256 key: releases can be signed with one; paths cannot, since Nix knows Ed25519 alone")
	case algorithmWord.MatchString(text):
		return nil, errors.New("its algorithm is not known here, ed25519 and ecdsa-p256 are: a newer narwharf may be needed")
	}
	data, err := ijson.Base64(text)
	if err != nil {
		return nil, errors.New("what follows the first colon is not padded base64 on one line")
	}
	return data, nil
}

// Algorithm is how the key signs.
func (p Public) Algorithm() Algorithm { return p.alg }

// String is the key's text.
func (p Public) String() string {
	if p.alg == P256 {
		return p256Word + base64.StdEncoding.EncodeToString(p.data[:])
	}
	return base64.StdEncoding.EncodeToString(p.data[:ed25519.PublicKeySize])
}

// Verify tells whether sig is a signature of msg.
func (p Public) Verify(msg, sig []byte) bool {
	if p.alg == P256 {
		return verifyP256(point(p.data[:]), msg, sig)
	}
	return ed25519.Verify(p.data[:ed25519.PublicKeySize], msg, sig)
}
