package signing

import (
	"encoding/base64"
	"fmt"
	"math/big"
	"strings"
	"testing"
)

// TestP256Key: text, signing, and what is refused.
func TestP256Key(t *testing.T) {
	k, err := GenerateP256("alice-2")
	if err != nil {
		t.Fatal(err)
	}
	text := k.String()
	if back, err := ParsePromoterSecretKey(" " + text + "\n"); err != nil || back.String() != text || back.Public() != k.Public() {
		t.Errorf("%v", err)
	}
	if p, err := ParsePromoterKey(k.Public().String()); err != nil || p != k.Public() || p.NixKnows() {
		t.Errorf("%v", err)
	}
	msg := []byte("message")
	sig := k.Sign(msg)
	if sig != k.Sign(msg) || !k.Public().Verify(msg, sig) || k.Public().Verify([]byte("another"), sig) {
		t.Errorf("%s", sig)
	}
	if s := fmt.Sprintf("%v %+v %#v %s", k, k, k, struct{ K SecretKey }{k}); strings.Contains(s, text[len(text)-20:]) {
		t.Error(s)
	}
	// The other s that fits.
	_, digits, _ := strings.Cut(sig, ":")
	raw, _ := base64.StdEncoding.DecodeString(digits)
	n, _ := new(big.Int).SetString("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551", 16)
	high := new(big.Int).Sub(n, new(big.Int).SetBytes(raw[32:]))
	if k.Public().Verify(msg, encode("alice-2", append(raw[:32:32], high.FillBytes(make([]byte, 32))...))) {
		t.Error("a signature with the higher s is good")
	}
	for _, bad := range [][]byte{make([]byte, 64), append(make([]byte, 32), raw[32:]...), append(raw[:32:32], make([]byte, 32)...)} {
		if k.Public().Verify(msg, encode("alice-2", bad)) {
			t.Errorf("%x is a signature", bad)
		}
	}
	for _, tt := range []struct{ text, want string }{
		{k.Public().String(), "releases can be signed with one; paths cannot, since Nix knows Ed25519 alone"},
		{"x:ed448:AAAA", "its algorithm is not known here, ed25519 and ecdsa-p256 are"},
	} {
		if _, err := ParsePublicKey(tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.text, err)
		}
	}
	if _, err := ParseSecretKey(text); err == nil || !strings.Contains(err.Error(), "Nix knows Ed25519 alone") || strings.Contains(err.Error(), text[20:]) {
		t.Errorf("%v", err)
	}
	point := strings.Repeat("/", 44)
	for _, tt := range []struct{ text, want string }{
		{text, "this is a secret key (32 bytes)"},
		{"alice-2:ecdsa-p256:", "not the compressed point"},
		{"alice-2:ecdsa-p256:" + point, "not the compressed point"},
		{"alice-2:ecdsa-p256:$", "not padded base64"},
		{":ecdsa-p256:" + point, "no name"},
		{"x:ed448:AAAA", "its algorithm is not known here"},
		{ciSecret, "the public key (32 bytes) is needed"},
	} {
		if _, err := ParsePromoterKey(tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.text, err)
		}
	}
	for _, tt := range []struct{ text, want string }{
		{k.Public().String(), "this is a public key (33 bytes)"},
		{"alice-2:ecdsa-p256:" + base64.StdEncoding.EncodeToString(make([]byte, 32)), "not the scalar"},
		{"alice-2:ecdsa-p256:AA", "not padded base64"},
		{"alice-2", "no colon"},
	} {
		if _, err := ParsePromoterSecretKey(tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.text, err)
		}
	}
	if _, err := GenerateP256("a b"); err == nil {
		t.Error("a name with a space")
	}
}

// twice signs otherwise each time, as a device does.
type twice struct {
	SecretKey
	n int
}

func (s *twice) Signature(msg []byte) (string, error) {
	s.n++
	if s.n > 1 {
		return "", fmt.Errorf("it is asked for %d signatures", s.n)
	}
	return s.Sign(msg), nil
}

// TestMixedEnvelope: keys of both kinds sign one release, each once; a reader that knows
// one kind passes over the other.
func TestMixedEnvelope(t *testing.T) {
	ed := testKey(t, alice)
	p, err := GenerateP256("bob-2")
	if err != nil {
		t.Fatal(err)
	}
	e := Seal(HeadKind, []byte("payload"), ed)
	device := &twice{SecretKey: p}
	for range 2 {
		if err := e.SignBy(HeadKind, device); err != nil {
			t.Fatal(err)
		}
	}
	if len(e.Signatures) != 2 || device.n != 1 {
		t.Errorf("%d signatures, asked %d times", len(e.Signatures), device.n)
	}
	var back Envelope
	if err := back.UnmarshalJSON(mustJSON(t, e)); err != nil {
		t.Fatal(err)
	}
	if _, err := back.Open(HeadKind, []PublicKey{ed.Public(), p.Public()}, 2); err != nil {
		t.Error(err)
	}
	if _, err := back.Open(HeadKind, []PublicKey{ed.Public()}, 1); err != nil {
		t.Error(err)
	}
	if _, err := back.Open(HeadKind, []PublicKey{p.Public(), p.Public()}, 2); err == nil {
		t.Error("one key counts twice")
	}
}
