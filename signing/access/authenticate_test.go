package access

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"narwharf/signing/access/scope"
)

// site is an Authenticator over a store with a token in every state. Its secrets are
// the same each time: a fuzzing worker must know those of the process that made the
// inputs.
type site struct {
	store                            *Tokens
	now                              time.Time
	auth                             *Authenticator
	ci, expiring, revoked, elsewhere string
}

func newSite(t testing.TB, anonymous scope.Set) *site {
	t.Helper()
	s := &site{store: inMemory(t), now: noon}
	s.auth = NewAuthenticator(Options{Tokens: s.store, Anonymous: anonymous, Clock: func() time.Time { return s.now }})
	form := func(n int) string {
		body := strings.Repeat(symbols[n:]+symbols[:n], 2)
		secret := secretPrefix + body[:idLen] + "_" + body[idLen:idLen+bodyLen]
		return secret + checksum(secret)
	}
	add := func(n int, name string, expires time.Time, words ...string) string {
		secret := form(n)
		token := newToken(t, name, noon, expires, words...)
		token.ID, token.Hash = secret[len(secretPrefix):len(secretPrefix)+idLen], sha256.Sum256([]byte(secret))
		mustAdd(t, s.store, token)
		return secret
	}
	s.ci = add(1, "ci", time.Time{}, "push", "promote:web-*")
	s.expiring = add(2, "laptop", noon.Add(time.Hour), "pull")
	s.revoked = add(3, "gone", time.Time{}, "admin")
	if _, err := s.store.Revoke(t.Context(), "gone", noon); err != nil {
		t.Fatal(err)
	}
	s.elsewhere = form(4)
	return s
}

func request(authorization ...string) *http.Request {
	return &http.Request{Header: http.Header{"Authorization": authorization}}
}

func basic(userinfo string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(userinfo))
}

func TestIdentify(t *testing.T) {
	s := newSite(t, scopes(t, "pull"))
	for _, c := range []struct {
		what    string
		headers []string
		want    Credential
		scopes  string
		name    string // Name or Former
		fault   string
	}{
		{"nothing", nil, None, "pull", "", ""},
		{"bearer", []string{"Bearer " + s.ci}, Valid, "pull,push,promote:web-*", "ci", ""},
		{"scheme in capitals, two spaces", []string{"BEARER  " + s.ci + " "}, Valid, "pull,push,promote:web-*", "ci", ""},
		{"netrc with login", []string{basic("nix:" + s.ci)}, Valid, "pull,push,promote:web-*", "ci", ""},
		{"netrc with password only", []string{basic(":" + s.ci)}, Valid, "pull,push,promote:web-*", "ci", ""},
		{"user:pass@ in the URL, odd user", []string{strings.Replace(basic("ü@x:"+s.ci), "Basic", "basic", 1)}, Valid, "pull,push,promote:web-*", "ci", ""},
		{"token as user name", []string{basic(s.ci + ":")}, Valid, "pull,push,promote:web-*", "ci", ""},
		{"token twice", []string{basic(s.ci + ":" + s.ci)}, Valid, "pull,push,promote:web-*", "ci", ""},
		{"expiring", []string{basic(":" + s.expiring)}, Valid, "pull", "laptop", ""},

		{"another server's", []string{basic(":" + s.elsewhere)}, Unknown, "pull", "", ""},
		{"revoked", []string{"Bearer " + s.revoked}, Revoked, "pull", "gone", ""},

		{"two headers", []string{"Bearer " + s.ci, "Bearer " + s.ci}, Malformed, "pull", "", "several Authorization headers"},
		{"two in one", []string{"Bearer " + s.ci + ", Bearer " + s.ci}, Malformed, "pull", "", "too long"},
		{"empty", []string{""}, Malformed, "pull", "", "neither Basic nor Bearer"},
		{"bare token", []string{s.ci}, Malformed, "pull", "", "neither Basic nor Bearer"},
		{"digest", []string{"Digest username=x"}, Malformed, "pull", "", "neither Basic nor Bearer"},
		{"bearer of nothing", []string{"Bearer"}, Malformed, "pull", "", "not a narwharf token"},
		{"basic of nothing", []string{"Basic "}, Malformed, "pull", "", "no colon"},
		{"not base64", []string{"Basic " + s.ci}, Malformed, "pull", "", "not valid base64"},
		{"no colon", []string{basic(s.ci)}, Malformed, "pull", "", "no colon"},
		{"no user, no password", []string{basic(":")}, Malformed, "pull", "", "not a narwharf token"},
		{"another password", []string{basic("me:hunter2")}, Malformed, "pull", "", "not a narwharf token"},
		{"token as user name beside a password", []string{basic(s.ci + ":x")}, Malformed, "pull", "", "not a narwharf token"},
		{"cut short", []string{basic(":" + s.ci[:40])}, Malformed, "pull", "", "cut short (40 of 74 characters)"},
		{"mistyped", []string{basic(":" + s.ci[:73] + other(s.ci[73]))}, Malformed, "pull", "", "mistyped"},
		{"too long", []string{"Bearer " + strings.Repeat("x", maxCredential)}, Malformed, "pull", "", "too long"},
	} {
		p := s.auth.Identify(request(c.headers...))
		if p.Credential != c.want || p.Scopes.String() != c.scopes || p.Name+p.Former != c.name || !strings.Contains(p.Fault, c.fault) || (p.Fault == "") != (c.want != Malformed) {
			t.Errorf("%s: %+v", c.what, p)
		}
		if (p.Name != "") != (c.want == Valid) || (p.TokenID == "") != (c.want == None || c.want == Malformed) || p.Err != nil {
			t.Errorf("%s: %+v", c.what, p)
		}
	}
}

// other returns a symbol that is not c.
func other(c byte) string {
	if c == '0' {
		return "1"
	}
	return "0"
}

func TestIdentifyExpiry(t *testing.T) {
	s := newSite(t, nil)
	end := noon.Add(time.Hour)
	for now, want := range map[time.Time]Credential{
		noon:                      Valid,
		end.Add(-time.Nanosecond): Valid,
		end:                       Expired,
		end.Add(time.Hour):        Expired,
	} {
		s.now = now
		p := s.auth.Identify(request("Bearer " + s.expiring))
		if p.Credential != want || (want == Expired) != (p.ExpiredAt == end) || (want == Expired) != (p.Former == "laptop") || (want == Valid) != p.Scopes.Allows(scope.Scope{Kind: scope.Pull}) {
			t.Errorf("at %v: %+v", now, p)
		}
	}
	// Revoked after its end: the revocation is what is told.
	if _, err := s.store.Revoke(t.Context(), "laptop", s.now); err != nil {
		t.Fatal(err)
	}
	s.now = end
	if p := s.auth.Identify(request("Bearer " + s.expiring)); p.Credential != Revoked {
		t.Errorf("%+v", p)
	}
}

// Whoever knows an id, which is public, and forges the rest learns nothing of the
// token that has it.
func TestIdentifyForged(t *testing.T) {
	s := newSite(t, nil)
	for _, real := range []string{s.ci, s.revoked, s.expiring} {
		s.now = noon.Add(2 * time.Hour)
		forged := real[:len(secretPrefix)+idLen+1] + s.elsewhere[len(secretPrefix)+idLen+1:secretLen-sumLen]
		forged += checksum(forged)
		p := s.auth.Identify(request("Bearer " + forged))
		if p.Credential != Unknown || p.Name+p.Former != "" || !p.RevokedAt.IsZero() || !p.ExpiredAt.IsZero() || len(p.Scopes) != 0 {
			t.Errorf("%+v", p)
		}
	}
}

func TestIdentifyRevokedFromTheNextRequestOn(t *testing.T) {
	s := newSite(t, nil)
	r := request("Bearer " + s.ci)
	if p := s.auth.Identify(r); p.Credential != Valid {
		t.Fatalf("%+v", p)
	}
	if _, err := s.store.Revoke(t.Context(), "ci", noon); err != nil {
		t.Fatal(err)
	}
	if p := s.auth.Identify(r); p.Credential != Revoked || p.RevokedAt != noon || len(p.Scopes) != 0 {
		t.Errorf("%+v", p)
	}
}

// brokenStore is one that cannot be reached.
type brokenStore struct{ Store }

var errBroken = errors.New("no connection")

func (*brokenStore) Lookup(context.Context, string) (Token, error) { return Token{}, errBroken }

func TestIdentifyBrokenStore(t *testing.T) {
	auth := NewAuthenticator(Options{Tokens: new(brokenStore), Anonymous: scopes(t, "pull")})
	p := auth.Identify(request("Bearer " + newSecret(t)))
	if p.Credential != Unchecked || !errors.Is(p.Err, errBroken) || p.Scopes.String() != "pull" || p.Name != "" {
		t.Errorf("%+v", p)
	}
	if p := auth.Identify(request()); p.Credential != None || p.Err != nil {
		t.Errorf("%+v", p)
	}
}

// The anonymous scopes given are copied: changing them later opens nothing.
func TestAuthenticatorCopiesAnonymous(t *testing.T) {
	anonymous := scopes(t, "pull")
	auth := NewAuthenticator(Options{Tokens: inMemory(t), Anonymous: anonymous})
	anonymous[0].Kind = scope.Admin
	if p := auth.Identify(request()); p.Scopes.String() != "pull" {
		t.Errorf("anonymous may do %v", p.Scopes)
	}
}

// In the inputs $c, $e and $r stand for a good secret, another, and a
// revoked one, which no mutation of bytes would hit upon.
func FuzzIdentify(f *testing.F) {
	s := newSite(f, scopes(f, "pull"))
	secrets := []string{s.ci, s.expiring, s.revoked}
	f.Add("Bearer ", "$c", false, "", false)
	f.Add("Bearer ", "$r", false, "", false)
	f.Add("Basic ", ":$c", true, "", false)
	f.Add("Basic ", "$e:", true, "", false)
	f.Add("Basic ", "$c:$r", true, "", false)
	f.Add("Basic ", "$c", false, "Bearer $c", true)
	f.Add("bearer  ", "nwt_0123456789_", false, "", false)
	expand := strings.NewReplacer("$c", s.ci, "$e", s.expiring, "$r", s.revoked)
	f.Fuzz(func(t *testing.T, scheme, rest string, encode bool, second string, two bool) {
		rest = expand.Replace(rest)
		first := scheme + rest
		if encode {
			first = scheme + base64.StdEncoding.EncodeToString([]byte(rest))
		}
		headers := []string{first}
		if two {
			headers = append(headers, expand.Replace(second))
		}
		p := s.auth.Identify(request(headers...))
		switch p.Credential {
		case None:
			t.Fatalf("%q is no credential", headers)
		case Valid:
			good := map[string]string{"ci": s.ci, "laptop": s.expiring}[p.Name]
			encoded := first[strings.IndexByte(first, ' ')+1:]
			decoded, _ := base64.StdEncoding.DecodeString(strings.Trim(encoded, " "))
			if two || good == "" || !strings.Contains(first+string(decoded), good) {
				t.Fatalf("%q is valid: %+v", headers, p)
			}
		default:
			if p.Scopes.String() != "pull" || p.Name != "" {
				t.Fatalf("%q, which is not valid, may %v as %q", headers, p.Scopes, p.Name)
			}
		}
		if p.Deny(scope.Scope{Kind: scope.Pull}) != nil {
			t.Fatalf("%+v may not pull", p)
		}
		d := p.Deny(scope.Scope{Kind: scope.Operate})
		checkDenial(t, d)
		for _, text := range []string{d.Error(), fmt.Sprintf("%+v", p)} {
			for _, secret := range secrets {
				if strings.Contains(text, secret[15:27]) {
					t.Fatalf("%s holds a secret", text)
				}
			}
			if len(first) > 30 && strings.Contains(text, first[15:]) {
				t.Fatalf("%s echoes the header", text)
			}
		}
	})
}

func BenchmarkIdentify(b *testing.B) {
	memory := newSite(b, scopes(b, "pull"))
	store := mustOpen(b, openDB(b, filepath.Join(b.TempDir(), "db")))
	all, err := memory.store.List(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	for _, token := range all {
		token.Revoked = time.Time{}
		mustAdd(b, store, token)
	}
	auth := NewAuthenticator(Options{Tokens: store, Anonymous: scopes(b, "pull")})
	for _, c := range []struct {
		name string
		r    *http.Request
	}{
		{"anonymous", &http.Request{Header: http.Header{"User-Agent": {"curl"}}}},
		{"basic", request(basic(":" + memory.ci))},
		{"bearer", request("Bearer " + memory.ci)},
		{"unknown", request("Bearer " + memory.elsewhere)},
		{"malformed", request(basic("me:hunter2"))},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if p := auth.Identify(c.r); !p.Scopes.Allows(scope.Scope{Kind: scope.Pull}) {
					b.Fatal(p)
				}
			}
		})
	}
}
