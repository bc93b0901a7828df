package narinfo

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/nix-community/go-nix/pkg/nixbase32"
	"pgregory.net/rapid"
)

// SHA-256 of "hello" as `nix hash convert` of Nix 2.34.8 prints it.
const (
	helloNix32  = "094qif9n4cq4fdg459qzbhg1c6wywawwaaivx0k0x8xhbyx4vwic"
	helloBase16 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
	helloSRI    = "sha256-LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="
)

func TestHashForms(t *testing.T) {
	want := Hash(sha256.Sum256([]byte("hello")))
	for _, s := range []string{"sha256:" + helloNix32, "sha256:" + helloBase16, "sha256:" + strings.ToUpper(helloBase16), helloSRI} {
		if h, err := ParseHash(s); err != nil || h != want {
			t.Errorf("ParseHash(%q) = %v, %v", s, h, err)
		}
	}
	if h, err := ParseBase32(helloNix32); err != nil || h != want {
		t.Errorf("ParseBase32 = %v, %v", h, err)
	}
	if want.String() != "sha256:"+helloNix32 || want.Base32() != helloNix32 || want.IsZero() {
		t.Errorf("printed %s, %s", want, want.Base32())
	}
	if zero := (Hash{}); !zero.IsZero() || zero.String() != "sha256:"+strings.Repeat("0", 52) {
		t.Errorf("zero printed %s", zero)
	}
}

func TestHashRefuses(t *testing.T) {
	const alphabet = "it has a character outside Nix's base-32 alphabet (digits and lower-case letters without e, o, t, u)"
	for _, c := range []struct{ in, want string }{
		{"", `hash "": it names no algorithm; "sha256:…" is needed`},
		{helloNix32, `hash "` + helloNix32 + `": it names no algorithm; "sha256:…" is needed`},
		{":" + helloNix32, `hash ":` + helloNix32 + `": it names no algorithm; "sha256:…" is needed`},
		{"sha512-x", `hash "sha512-x": its algorithm is "sha512"; only sha256 is taken here`},
		{"sha1:f572d396fae9206628714fb2ce00f72e94f2258f", `hash "sha1:f572d396fae9206628714fb2ce00f72e94f2258f": its algorithm is "sha1"; only sha256 is taken here`},
		{"SHA256:" + helloNix32, `hash "SHA256:` + helloNix32 + `": its algorithm is "SHA256"; only sha256 is taken here`},
		{"sha256:", `hash "sha256:": 0 digits are neither nix32 (52) nor base 16 (64)`},
		{"sha256:" + helloNix32 + " ", `hash "sha256:` + helloNix32 + ` ": 53 digits are neither nix32 (52) nor base 16 (64)`},
		{"sha256:" + helloNix32[1:] + "e", `hash "sha256:` + helloNix32[1:] + `e": ` + alphabet},
		{"sha256:e" + helloNix32[1:], `hash "sha256:e` + helloNix32[1:] + `": ` + alphabet},
		{"sha256:2" + helloNix32[1:], `hash "sha256:2` + helloNix32[1:] + `": it is larger than a SHA-256 can be`},
		{"sha256:" + helloBase16[1:] + "g", `hash "sha256:` + helloBase16[1:] + `g": it has 64 digits and they are not all base 16`},
		{"sha256:" + strings.Repeat("0", 52), `hash "sha256:` + strings.Repeat("0", 52) + `": it is all zeros, which no content has`},
		{"sha256:" + strings.Repeat("0", 64), `hash "sha256:` + strings.Repeat("0", 64) + `": it is all zeros, which no content has`},
		{"sha256-" + strings.Repeat("A", 43) + "=", `hash "sha256-` + strings.Repeat("A", 43) + `=": it is all zeros, which no content has`},
		{helloSRI[:50], `hash "` + helloSRI[:50] + `": what follows sha256- is not base64 of 32 bytes`},
		{helloSRI[:len(helloSRI)-2] + "R=", `hash "` + helloSRI[:len(helloSRI)-2] + `R=": what follows sha256- is not base64 of 32 bytes`},
		{helloSRI + "?x", `hash "` + helloSRI + `?x": what follows sha256- is not base64 of 32 bytes`},
		{helloSRI[:20] + "\n" + helloSRI[20:], `hash "` + helloSRI[:20] + `\n` + helloSRI[20:] + `": what follows sha256- is not base64 of 32 bytes`},
		{"sha256-", `hash "sha256-": what follows sha256- is not base64 of 32 bytes`},
	} {
		h, err := ParseHash(c.in)
		if err == nil || err.Error() != c.want || !h.IsZero() {
			t.Errorf("ParseHash(%q) = %v\ngot  %v\nwant %s", c.in, h, err, c.want)
		}
	}
	for _, c := range []struct{ in, want string }{
		{"", `hash "": 0 characters are not the 52 of a SHA-256 in nix32`},
		{"sha256:" + helloNix32, `hash "sha256:` + helloNix32 + `": 59 characters are not the 52 of a SHA-256 in nix32`},
		{strings.Repeat("0", 52), `hash "` + strings.Repeat("0", 52) + `": it is all zeros, which no content has`},
	} {
		h, err := ParseBase32(c.in)
		if err == nil || err.Error() != c.want || !h.IsZero() {
			t.Errorf("ParseBase32(%q) = %v\ngot  %v\nwant %s", c.in, h, err, c.want)
		}
	}
}

func hashes() *rapid.Generator[Hash] {
	return rapid.Custom(func(t *rapid.T) Hash {
		var h Hash
		copy(h[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "bytes"))
		if h.IsZero() {
			h[0] = 1
		}
		return h
	})
}

func TestNix32AgreesWithGoNix(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := hashes().Draw(t, "hash")
		if want := nixbase32.EncodeToString(h[:]); h.Base32() != want {
			t.Fatalf("encoded %s, want %s", h.Base32(), want)
		}
		for _, s := range []string{h.String(), "sha256:" + hex.EncodeToString(h[:]), "sha256-" + base64.StdEncoding.EncodeToString(h[:])} {
			if got, err := ParseHash(s); err != nil || got != h {
				t.Fatalf("ParseHash(%q) = %v, %v", s, got, err)
			}
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringOfN(rapid.RuneFrom([]rune(nixbase32.Alphabet+"e")), 52, 52, -1).Draw(t, "digits")
		h, err := ParseBase32(s)
		want, wantErr := nixbase32.DecodeString(s)
		if (err == nil) != (wantErr == nil) || err == nil && !bytes.Equal(h[:], want) {
			t.Fatalf("ParseBase32(%q) = %v, %v; go-nix: %x, %v", s, h, err, want, wantErr)
		}
	})
}
