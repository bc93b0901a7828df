package signing

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Keys that Nix 2.34.8 made; the vectors of package narinfo are signed with
// them. They protect nothing.
const (
	serverSecret = "narwharf.example.org-1:rC2+7jrbcU/zntjdVe8z/1hbRtYLD8e3grIQN3Iq1vyY8WuSUVt6S80108uzhN14cUEFHBg3Cr8PrfOiJtDGYg=="
	serverPublic = "narwharf.example.org-1:mPFrklFbekvNNdPLs4TdeHFBBRwYNwq/D63zoibQxmI="
	ciSecret     = "ci-1:VL/Rs898STcBkt0nnB8u9TnQ88yoXgBT9p2rDYsSVCIALw++rn6lDM/43TlCbveCe9h19Vi7sq3t0J2fCjCl9g=="
	ciPublic     = "ci-1:AC8Pvq5+pQzP+N05Qm73gnvYdfVYu7Kt7dCdnwowpfY="
)

func secretKey(t testing.TB, s string) SecretKey {
	t.Helper()
	k, err := ParseSecretKey(s)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func publicKey(t testing.TB, s string) PublicKey {
	t.Helper()
	k, err := ParsePublicKey(s)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKeysPrintAsNixWroteThem(t *testing.T) {
	for secret, public := range map[string]string{serverSecret: serverPublic, ciSecret: ciPublic} {
		k := secretKey(t, " \r\n"+secret+"\n")
		if k.String() != secret || k.Public().String() != public {
			t.Errorf("printed %s and %s", k.String(), k.Public())
		}
		if p := publicKey(t, "\t"+public+"\n"); p != k.Public() || p.Name() != k.Name() || p.String() != public {
			t.Errorf("public key read as %s", p)
		}
	}
}

func TestGenerateKey(t *testing.T) {
	k, err := GenerateKey("example.org-1")
	if err != nil {
		t.Fatal(err)
	}
	again := secretKey(t, k.String())
	msg := []byte("message")
	sig := again.Sign(msg)
	if k.Name() != "example.org-1" || sig != k.Sign(msg) || !k.Public().Verify(msg, sig) {
		t.Error("a generated key does not survive printing and parsing")
	}
	other, err := GenerateKey("example.org-1")
	if err != nil {
		t.Fatal(err)
	}
	if other.String() == k.String() || other.Public() == k.Public() {
		t.Error("two generated keys are the same")
	}
	for _, name := range []string{"", "a b", "a:b", "a\n", "\x00", "a\u0085", "\xff"} {
		want := fmt.Sprintf("generate key: %q cannot be the name of a key; use something like cache.example.org-1", name)
		if _, err := GenerateKey(name); err == nil || err.Error() != want {
			t.Errorf("GenerateKey(%q): %v", name, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	const (
		secret = "parse secret key: "
		public = "parse public key: "
		sign   = "parse signature: "
	)
	digits := strings.TrimPrefix(ciSecret, "ci-1:")
	zeros := func(n int) string { return "x:" + base64.StdEncoding.EncodeToString(make([]byte, n)) }
	for _, c := range []struct{ in, secret, public, sign string }{
		{"", "it has no colon; Nix's format is name:base64", "=", "="},
		{digits, "it has no colon; Nix's format is name:base64", "=", "="},
		{":" + digits, "it has no name before the colon; Nix's format is name:base64", "=", "="},
		{"ci-1:", "nothing follows the colon; Nix's format is name:base64", "=", "="},
		{"ci 1:" + digits, "its name has a space or something that does not print; Nix's format is name:base64 on one line", "=", "="},
		{"a\nci-1:" + digits, "its name has a space or something that does not print; Nix's format is name:base64 on one line", "=", "="},
		{"ci-1: " + digits, "what follows the first colon is not padded base64 on one line", "=", "="},
		{"ci-1:x:" + digits, "what follows the first colon is not padded base64 on one line", "=", "="},
		{"ci-1:" + digits[:40] + "\n" + digits[40:], "what follows the first colon is not padded base64 on one line", "=", "="},
		{"ci-1:" + digits[:40] + "\r" + digits[40:], "what follows the first colon is not padded base64 on one line", "=", "="},
		{ciSecret[:len(ciSecret)-2], "what follows the first colon is not padded base64 on one line", "=", "="},
		{ciSecret[:len(ciSecret)-3] + "h==", "what follows the first colon is not padded base64 on one line", "=", "="},
		{ciPublic[:len(ciPublic)-2] + "Z=", "what follows the first colon is not padded base64 on one line", "=", "="},
		{strings.NewReplacer("/", "_", "+", "-").Replace(ciSecret), "what follows the first colon is not padded base64 on one line", "=", "="},
		{ciSecret + ciSecret, "what follows the first colon is not padded base64 on one line", "=", "="},

		{zeros(48), "it has 48 bytes where a secret key has 64; the file may be cut short",
			"it has 48 bytes where a public key has 32; it may be cut short", "it has 48 bytes where a signature has 64"},
		{zeros(65), "it has 65 bytes where a secret key has 64; the file may be cut short",
			"it has 65 bytes where a public key has 32; it may be cut short", "it has 65 bytes where a signature has 64"},
		{ciPublic, "this is a public key (32 bytes); the secret key (64 bytes) is needed, the other file that the key was made with",
			"", "it has 32 bytes where a signature has 64"},
		{ciSecret, "",
			"this has 64 bytes, as a secret key or a signature has; the public key (32 bytes) is needed. Make it with: narwharf key public < FILE", ""},
		{zeros(64), "its two halves do not belong together; this is a signature or a damaged key",
			"this has 64 bytes, as a secret key or a signature has; the public key (32 bytes) is needed. Make it with: narwharf key public < FILE", ""},
		{zeros(32), "this is a public key (32 bytes); the secret key (64 bytes) is needed, the other file that the key was made with",
			"anyone can make signatures for these bytes (a point of small order); this is a placeholder or a trap, not a key", "it has 32 bytes where a signature has 64"},
	} {
		if c.public == "=" {
			c.public, c.sign = c.secret, c.secret
		}
		for _, p := range []struct {
			prefix, want string
			parse        func() error
		}{
			{secret, c.secret, func() error { _, err := ParseSecretKey(c.in); return err }},
			{public, c.public, func() error { _, err := ParsePublicKey(c.in); return err }},
			{sign, c.sign, func() error { _, _, err := ParseSignature(c.in); return err }},
		} {
			err := p.parse()
			if p.want == "" {
				if err != nil {
					t.Errorf("%q: %v", c.in, err)
				}
			} else if err == nil || err.Error() != p.prefix+p.want {
				t.Errorf("%q:\ngot  %v\nwant %s%s", c.in, err, p.prefix, p.want)
			}
		}
	}
	if _, _, err := ParseSignature(" " + ciSecret); err == nil {
		t.Error("ParseSignature takes white space")
	}
}

// seedIn is the first half of what a secret key's text has.
func seedIn(t *testing.T, k SecretKey) []byte {
	t.Helper()
	_, digits, _ := strings.Cut(k.String(), ":")
	raw, err := base64.StdEncoding.DecodeString(digits)
	if err != nil {
		t.Fatal(err)
	}
	return raw[:ed25519.SeedSize]
}

func TestVerify(t *testing.T) {
	ci, server := secretKey(t, ciSecret), secretKey(t, serverSecret)
	msg := []byte("1;a;b;1;")
	sig := ci.Sign(msg)
	key := ci.Public()
	if !key.Verify(msg, sig) {
		t.Error("own signature refused")
	}
	name, raw, err := ParseSignature(sig)
	if err != nil || name != "ci-1" || !ed25519.Verify(ed25519.NewKeyFromSeed(seedIn(t, ci)).Public().(ed25519.PublicKey), msg, raw) {
		t.Errorf("ParseSignature: %s %x %v", name, raw, err)
	}
	for what, bad := range map[string]bool{
		"other message":   key.Verify([]byte("1;a;b;2;"), sig),
		"other key":       server.Public().Verify(msg, sig),
		"other name":      key.Verify(msg, "ci-2"+sig[4:]),
		"changed":         key.Verify(msg, sig[:5]+"A"+sig[6:]) && sig[5] != 'A',
		"malformed":       key.Verify(msg, sig+"\n"),
		"none":            key.Verify(msg, ""),
		"zero public key": PublicKey{}.Verify(msg, sig),
		"zero, no name":   PublicKey{}.Verify(msg, strings.TrimPrefix(sig, "ci-1")),
	} {
		if bad {
			t.Errorf("%s: accepted", what)
		}
	}
}

func TestVerifyAnyTriesEveryKeyOfAName(t *testing.T) {
	first, err := GenerateKey("ci-1")
	if err != nil {
		t.Fatal(err)
	}
	second, other := secretKey(t, ciSecret), secretKey(t, serverSecret)
	msg := []byte("message")
	keys := []PublicKey{first.Public(), second.Public()}
	for _, k := range []SecretKey{first, second} {
		if got, ok := VerifyAny(msg, []string{"junk", other.Sign(msg), k.Sign([]byte("x")), k.Sign(msg)}, keys); !ok || got != k.Public() {
			t.Errorf("VerifyAny = %v, %v, want %v", got, ok, k.Public())
		}
	}
	if k, ok := VerifyAny(msg, []string{other.Sign(msg), second.Sign([]byte("x")), ""}, keys); ok || k != (PublicKey{}) {
		t.Errorf("VerifyAny accepted %v", k)
	}
	if _, ok := VerifyAny(msg, nil, keys); ok {
		t.Error("VerifyAny accepted no signature")
	}
	if _, ok := VerifyAny(msg, []string{second.Sign(msg)}, nil); ok {
		t.Error("VerifyAny accepted without a key")
	}
}

// leaks reports whether s shows 6 characters in a row of the secret's base64,
// or of its bytes as fmt prints those.
func leaks(s string, secret SecretKey) bool {
	_, digits, _ := strings.Cut(secret.String(), ":")
	raw, _ := base64.StdEncoding.DecodeString(digits)
	forms := []string{digits, string(raw)}
	for _, verb := range []string{"%x", "%X", "%d", "%#v"} {
		forms = append(forms, strings.Trim(fmt.Sprintf(verb, raw), "[]byte{}"))
	}
	for _, form := range forms {
		for i := 0; i+6 <= len(form); i++ {
			if strings.Contains(s, form[i:i+6]) {
				return true
			}
		}
	}
	return false
}

func TestSecretsDoNotPrint(t *testing.T) {
	k := secretKey(t, ciSecret)
	if !leaks(k.String(), k) || !leaks(fmt.Sprintf("%v", *k.pair()), k) || leaks("ci-1:(secret)", k) {
		t.Fatal("leaks does not see a leak")
	}
	type inside struct {
		Exported SecretKey
		hidden   SecretKey
		list     []SecretKey
	}
	nested := inside{k, k, []SecretKey{k}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%10s"} {
		for _, v := range []any{k, &k, []SecretKey{k}, nested, &nested, map[string]SecretKey{"k": k}} {
			if s := fmt.Sprintf(verb, v); leaks(s, k) {
				t.Errorf("%s of %T prints %s", verb, v, s)
			}
		}
	}
	if s := fmt.Sprint(k); s != "ci-1:(secret)" {
		t.Errorf("printed as %s", s)
	}
	if s := fmt.Sprint(SecretKey{}); s != "no secret key" {
		t.Errorf("the zero key printed as %s", s)
	}
	var log bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(h).Info("m", "key", k, "nested", nested, "group", slog.GroupValue(slog.Any("k", k)))
	}
	if leaks(log.String(), k) || !strings.Contains(log.String(), "ci-1:(secret)") {
		t.Errorf("logged as %s", &log)
	}
}

// However a secret key is damaged, and whatever it is taken for, no error shows
// a part of it.
func TestErrorsHoldNoKeyMaterial(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.SliceOfN(rapid.Byte(), ed25519.SeedSize, ed25519.SeedSize).Draw(t, "seed")
		secret := encode("ci-1", ed25519.NewKeyFromSeed(seed))
		k, err := ParseSecretKey(secret)
		if err != nil {
			t.Fatal(err)
		}
		s := secret
		for range rapid.IntRange(1, 3).Draw(t, "changes") {
			from := rapid.IntRange(0, len(s)).Draw(t, "from")
			to := rapid.IntRange(from, min(len(s), from+6)).Draw(t, "to")
			s = s[:from] + rapid.SampledFrom([]string{"", ":", " ", "\n", "=", "A", "\x00", "ci-1:"}).Draw(t, "by") + s[to:]
		}
		if rapid.Bool().Draw(t, "swapped") {
			name, digits, _ := strings.Cut(s, ":")
			s = digits + ":" + name
		}
		_, err1 := ParseSecretKey(s)
		_, err2 := ParsePublicKey(s)
		_, _, err3 := ParseSignature(s)
		if msg := fmt.Sprint(err1, err2, err3); leaks(msg, k) {
			t.Fatalf("%q: %s", s, msg)
		}
	})
}
