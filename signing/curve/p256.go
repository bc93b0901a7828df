package curve

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"narwharf/signing/ijson"
)

// Sizes in bytes.
const (
	P256Public    = 33 // the compressed point
	P256Secret    = 32
	SignatureSize = 64 // of either curve
)

var (
	order = elliptic.P256().Params().N
	half  = new(big.Int).Rsh(order, 1)
)

func errorLength(n int, what string, want int) error {
	return fmt.Errorf("it has %d bytes where %s has %d; it may be cut short", n, what, want)
}

// point is a public key of its bytes, nil if they are none.
func point(b []byte) *ecdsa.PublicKey {
	if len(b) != P256Public {
		return nil
	}
	x, y := elliptic.UnmarshalCompressed(elliptic.P256(), b)
	if x == nil {
		return nil
	}
	return &ecdsa.PublicKey{Curve: elliptic.P256(), X: x, Y: y}
}

func verifyP256(key *ecdsa.PublicKey, msg, sig []byte) bool {
	if key == nil || len(sig) != SignatureSize {
		return false
	}
	r, s := new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])
	digest := sha256.Sum256(msg)
	return s.Cmp(half) <= 0 && ecdsa.Verify(key, digest[:], r, s)
}

// Secret is a P-256 secret key. It prints as nothing of itself: its text comes from Text.
type Secret struct{ key *ecdsa.PrivateKey }

// Format keeps the key out of whatever prints it.
func (s *Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("(secret)")) }

// ParseSecret reads "ecdsa-p256:" and base64 of the scalar; is tells whether it has that
// form at all.
func ParseSecret(text string) (s *Secret, is bool, err error) {
	digits, is := strings.CutPrefix(text, p256Word)
	if !is {
		return nil, false, nil
	}
	data, err := ijson.Base64(digits)
	switch {
	case err != nil:
		return nil, true, errors.New("what follows ecdsa-p256: is not padded base64 on one line")
	case len(data) == P256Public:
		return nil, true, errors.New("this is a public key (33 bytes); the secret key (32 bytes) is needed, the other file that the key was made with")
	}
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), data)
	if err != nil {
		return nil, true, errors.New("it is not the scalar of a P-256 key (32 bytes)")
	}
	return &Secret{key}, true, nil
}

// Generate makes a new secret key.
func Generate() (*Secret, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return &Secret{key}, err
}

// Text is the secret as ParseSecret reads it.
func (s *Secret) Text() string {
	scalar, err := s.key.Bytes()
	if err != nil {
		panic("curve: " + err.Error()) // it is on the curve
	}
	return p256Word + base64.StdEncoding.EncodeToString(scalar)
}

// Public is the key that verifies what s signs.
func (s *Secret) Public() Public {
	p := Public{alg: P256}
	copy(p.data[:], elliptic.MarshalCompressed(elliptic.P256(), s.key.X, s.key.Y))
	return p
}

// Sign signs by RFC 6979: the same key and message always give the same signature.
func (s *Secret) Sign(msg []byte) []byte {
	digest := sha256.Sum256(msg)
	der, err := s.key.Sign(nil, digest[:], crypto.SHA256) // without randomness it is deterministic
	var sig []byte
	if err == nil {
		sig, err = FromDER(der)
	}
	if err != nil {
		panic("curve: " + err.Error())
	}
	return sig
}

// FromDER makes the form that is used here of the ASN.1 that OpenSSL and most key
// services answer with.
func FromDER(der []byte) ([]byte, error) {
	var sig struct{ R, S *big.Int }
	rest, err := asn1.Unmarshal(der, &sig)
	if err != nil || len(rest) > 0 || sig.R.Sign() <= 0 || sig.S.Sign() <= 0 || sig.R.BitLen() > 256 || sig.S.BitLen() > 256 {
		return nil, errors.New("it is no signature in DER")
	}
	return Lower(append(sig.R.FillBytes(make([]byte, 32)), sig.S.FillBytes(make([]byte, 32))...)), nil
}

// Lower is a signature of P-256 with the lower s of the two that fit it.
func Lower(sig []byte) []byte {
	s := new(big.Int).SetBytes(sig[32:])
	if s.Cmp(half) > 0 && s.Cmp(order) < 0 {
		s.Sub(order, s)
	}
	return append(append(make([]byte, 0, SignatureSize), sig[:32]...), s.FillBytes(make([]byte, 32))...)
}
