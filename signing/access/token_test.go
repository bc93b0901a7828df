package access

import (
	"crypto/sha256"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"narwharf/signing/access/scope"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func TestNew(t *testing.T) {
	zone := time.FixedZone("east", 7200)
	secret, token, err := New("ci", "", scope.Set{{Kind: scope.Push}, {Kind: scope.Pull}, {Kind: scope.Push}}, noon.Add(300*time.Millisecond).In(zone), noon.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^nwt_[0-9a-hjkmnp-tv-z]{10}_[0-9a-hjkmnp-tv-z]{59}$`).MatchString(secret) || len(secret) != 74 {
		t.Errorf("secret %q has not the form that doc.go promises", secret)
	}
	if url.QueryEscape(secret) != secret || url.UserPassword("u", secret).String() != "u:"+secret {
		t.Errorf("secret %q needs escaping", secret)
	}
	if id, err := ParseSecret(secret); err != nil || id != token.ID {
		t.Errorf("ParseSecret = %q, %v; want %q", id, err, token.ID)
	}
	if token.Hash != sha256.Sum256([]byte(secret)) {
		t.Error("the hash is not the SHA-256 of the secret")
	}
	if token.Name != "ci" || token.Scopes.String() != "pull,push" || !token.Created.Equal(noon) || token.Created.Location() != time.UTC || !token.Revoked.IsZero() {
		t.Errorf("token %+v", token)
	}
	if body := secret[len("nwt_")+idLen:]; strings.Contains(fmt.Sprintf("%+v %#v", token, token), body) {
		t.Error("the token shows its secret")
	}
	other, _, err := New("ci", "", token.Scopes, noon, time.Time{})
	if err != nil || other == secret {
		t.Errorf("second secret %v, equal: %v", err, other == secret)
	}
}

func TestNewRefuses(t *testing.T) {
	pull := scope.Set{{Kind: scope.Pull}}
	for _, c := range []struct {
		name    string
		scopes  scope.Set
		now     time.Time
		expires time.Time
		want    string
	}{
		{"", pull, noon, time.Time{}, "1 to 64 letters"},
		{".ci", pull, noon, time.Time{}, "first a letter or digit"},
		{"a b", pull, noon, time.Time{}, "1 to 64 letters"},
		{"a\n", pull, noon, time.Time{}, "1 to 64 letters"},
		{"oidc:x", pull, noon, time.Time{}, "1 to 64 letters"},
		{"ü", pull, noon, time.Time{}, "1 to 64 letters"},
		{"nwt_ci", pull, noon, time.Time{}, "begins like a secret"},
		{strings.Repeat("a", 65), pull, noon, time.Time{}, "1 to 64 letters"},
		{"ci", nil, noon, time.Time{}, "no scopes"},
		{"ci", scope.Set{{}}, noon, time.Time{}, "is not one of pull, push"},
		{"ci", scope.Set{{Kind: scope.Promote}}, noon, time.Time{}, "is not one of pull, push"},
		{"ci", pull, time.Time{}, time.Time{}, "time of creation"},
		{"ci", pull, noon, noon, "would expire on 2026-03-04 12:00:00 UTC"},
		{"ci", pull, noon, noon.Add(-time.Hour), "would expire on"},
		{"ci", pull, noon.Add(100 * time.Millisecond), noon.Add(900 * time.Millisecond), "would expire on"},
	} {
		secret, token, err := New(c.name, "", c.scopes, c.now, c.expires)
		if err == nil || !strings.Contains(err.Error(), c.want) || secret != "" || token.ID != "" {
			t.Errorf("New(%q, %v) = %v; want error %q", c.name, c.scopes, err, c.want)
		}
	}
	for _, name := range []string{"a", "9", "github.com_acme-CI+x@y", strings.Repeat("a", 64)} {
		if _, _, err := New(name, "", pull, noon, noon.Add(time.Second)); err != nil {
			t.Errorf("New(%q): %v", name, err)
		}
	}
}

func TestActive(t *testing.T) {
	end := noon.Add(time.Hour)
	for _, c := range []struct {
		token Token
		now   time.Time
		want  bool
	}{
		{Token{}, noon, true},
		{Token{Expires: end}, end.Add(-time.Nanosecond), true},
		{Token{Expires: end}, end, false},
		{Token{Expires: end}, end.Add(time.Nanosecond), false},
		{Token{Expires: end, Revoked: noon}, noon.Add(-time.Hour), false}, // whatever the clock says
		{Token{Revoked: noon}, noon, false},
	} {
		if got := c.token.Active(c.now); got != c.want {
			t.Errorf("%v at %v: active %v", c.token, c.now, got)
		}
	}
}

func TestParseSecret(t *testing.T) {
	secret := newSecret(t)
	for _, c := range []struct{ s, want string }{
		{"", "not a narwharf token"},
		{"hunter2", "not a narwharf token"},
		{" " + secret, "not a narwharf token"},
		{strings.ToUpper(secret), "not a narwharf token"},
		{"nwt_", "cut short (4 of 74"},
		{secret[:73], "cut short (73 of 74"},
		{secret + "\n", "too long (75 characters"},
		{secret + secret, "too long (148 characters"},
		{"nwt_" + strings.ToUpper(secret[4:]), "mistyped"},
		{strings.Repeat("nwt_", 18) + "nw", "mistyped"},
		{secret[:14] + "-" + secret[15:], "mistyped"},
		{secret[:20] + "\x00" + secret[21:], "mistyped"},
	} {
		id, err := ParseSecret(c.s)
		if err == nil || !strings.Contains(err.Error(), c.want) || id != "" {
			t.Errorf("ParseSecret(%q) = %q, %v; want %q", c.s, id, err, c.want)
		}
	}
}

// The checksum finds every single wrong character and every swap of neighbours.
func TestChecksumFindsTypos(t *testing.T) {
	secret := newSecret(t)
	for i := len(secretPrefix); i < len(secret); i++ {
		for _, c := range []byte(symbols) {
			if typo := secret[:i] + string(c) + secret[i+1:]; typo != secret {
				if _, err := ParseSecret(typo); err == nil {
					t.Fatalf("%q for %q passes", typo, secret)
				}
			}
		}
		if i+1 < len(secret) && secret[i] != secret[i+1] {
			swapped := secret[:i] + secret[i+1:i+2] + secret[i:i+1] + secret[i+2:]
			if _, err := ParseSecret(swapped); err == nil {
				t.Fatalf("%q for %q passes", swapped, secret)
			}
		}
	}
}

// The format of tokens in the field, held by an example.
func TestSecretFormatIsFixed(t *testing.T) {
	const secret = "nwt_0123456789_abcdefghjkmnpqrstvwxyz0123456789abcdefghjkmnpqrstvwx" + "3qzsb19" // the sum by another program
	if id, err := ParseSecret(secret); err != nil || id != "0123456789" {
		t.Errorf("ParseSecret = %q, %v", id, err)
	}
}

func TestQuoteHidesSecrets(t *testing.T) {
	secret := newSecret(t)
	for _, s := range []string{secret, "x " + secret, strings.Repeat("a", 30) + secret} {
		if got := scope.Quote(s); strings.Contains(got, secret[15:19]) {
			t.Errorf("scope.Quote(%q) = %s", s, got)
		}
	}
	if got := scope.Quote("a\nb"); got != `"a\nb"` {
		t.Errorf("quote = %s", got)
	}
}

func newSecret(t testing.TB) string {
	t.Helper()
	secret, _, err := New("ci", "", scope.Set{{Kind: scope.Push}}, noon, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	return secret
}
