package signing

import (
	"strings"
	"testing"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"

	"narwharf/narinfo"
	"narwharf/signing/curve"
)

func seeds(f *testing.F) {
	f.Helper()
	sig := secretKey(f, ciSecret).Sign([]byte("message"))
	for _, s := range []string{ciSecret, ciPublic, serverSecret, serverPublic, sig, " " + sig + "\n", sig + "=", "ä:" + sig[5:], "a:b:" + sig[5:], ":", "x:", "x:====", "x:AA==\n"} {
		f.Add(s)
	}
}

func FuzzParseSecretKey(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, s string) {
		k, err := ParseSecretKey(s)
		if err != nil {
			return
		}
		if k.String() != strings.TrimSpace(s) {
			t.Fatalf("%q printed as %q", s, k.String())
		}
		msg := []byte(s)
		if !k.Public().Verify(msg, k.Sign(msg)) {
			t.Fatalf("%q cannot verify what it signs", s)
		}
		if p, err := ParsePublicKey(k.Public().String()); err != nil || p != k.Public() {
			t.Fatalf("%q has a public key that is read as %v, %v", s, p, err)
		}
	})
}

func FuzzParsePublicKey(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, s string) {
		k, err := ParsePublicKey(s)
		if err != nil {
			return
		}
		if k.String() != strings.TrimSpace(s) {
			t.Fatalf("%q printed as %q", s, k.String())
		}
		if theirs, err := signature.ParsePublicKey(k.String()); err != nil || theirs.Name != k.Name() || curve.PublicOf(theirs.Data) != k.key {
			t.Fatalf("go-nix reads %q as %v, %v", s, theirs, err)
		}
	})
}

// What ParseSignature takes is what narinfo.Parse takes after "Sig: ", and a
// signature has one text.
func FuzzParseSignature(f *testing.F) {
	seeds(f)
	key := publicKey(f, ciPublic)
	f.Fuzz(func(t *testing.T, s string) {
		name, sig, err := ParseSignature(s)
		key.Verify(nil, s)
		if !strings.Contains(s, "\n") {
			text := "StorePath: /s/00000000000000000000000000000000-x\nURL: x\nCompression: none\n" +
				"NarHash: sha256:1000000000000000000000000000000000000000000000000000\nNarSize: 1\nSig: " + s + "\n"
			if _, err2 := narinfo.Parse([]byte(text)); (err == nil) != (err2 == nil) {
				t.Fatalf("%q: ParseSignature says %v, narinfo.Parse %v", s, err, err2)
			}
		}
		if err == nil && encode(name, sig) != s {
			t.Fatalf("%q printed as %q", s, encode(name, sig))
		}
	})
}
