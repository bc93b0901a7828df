package access

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"narwharf/signing/access/scope"
)

// shorts are short-lived tokens in a map.
type shorts map[string]struct {
	hash  Hash
	grant Grant
}

func (s shorts) Lookup(_ context.Context, id string) (Hash, Grant, error) {
	if id == "sh0rtbr0ke" {
		return Hash{}, Grant{}, errBroken
	}
	if t, ok := s[id]; ok {
		return t.hash, t.grant, nil
	}
	return Hash{}, Grant{}, fmt.Errorf("look up %s: %w", id, ErrNotFound)
}

// verifier knows two JWTs.
type verifier map[string]Grant

func (v verifier) Verify(_ context.Context, jwt string) (Grant, error) {
	if g, ok := v[jwt]; ok {
		return g, nil
	}
	if strings.HasPrefix(jwt, "away.") {
		return Grant{}, fmt.Errorf("%w: no route to the issuer", ErrUnchecked)
	}
	return Grant{}, errors.New("the JWT is signed by nobody who is known here")
}

// grantSite has a short-lived token and JWTs beside the tokens of a site.
func grantSite(t *testing.T) (s *site, o Options, short, id string) {
	t.Helper()
	s = newSite(t, scopes(t, "pull"))
	var hash Hash
	short, id, hash = DrawShort()
	ci := Grant{Kind: "oidc", Issuer: "github", Rule: "main", Subject: "repo:o/r:ref:refs/heads/main", Scopes: scopes(t, "push"), Ends: noon.Add(time.Hour)}
	host := Grant{Kind: "aws", Rule: "asg", Subject: "i-1", Host: "web-1", Owner: "x", Scopes: scopes(t, "follow:web")}
	o = Options{
		Tokens: s.store, Anonymous: scopes(t, "pull"), Clock: func() time.Time { return s.now },
		Short: shorts{id: {hash, ci}}, JWT: verifier{"a.b.c": ci, "h.o.st": host},
	}
	return s, o, short, id
}

func TestIdentifyGrants(t *testing.T) {
	s, o, short, id := grantSite(t)
	auth := NewAuthenticator(o)
	end := noon.Add(time.Hour)
	forged := secretPrefix + id + "_" + strings.Repeat("0", bodyLen)
	forged += checksum(forged)
	broken := secretPrefix + "sh0rtbr0ke_" + strings.Repeat("0", bodyLen)
	broken += checksum(broken)
	other, otherID, _ := DrawShort()
	for _, c := range []struct {
		what, header string
		now          time.Time
		want         Credential
		name, id     string
		scopes       string
	}{
		{"a short-lived token", "Bearer " + short, noon, Valid, "github/main", id, "pull,push"},
		{"in netrc", basic("nix:" + short), noon, Valid, "github/main", id, "pull,push"},
		{"at its end", "Bearer " + short, end, Expired, "github/main", id, "pull"},
		{"forged", "Bearer " + forged, noon, Unknown, "", id, "pull"},
		{"gone", "Bearer " + other, noon, Unknown, "", otherID, "pull"},
		{"not to be looked up", "Bearer " + broken, noon, Unchecked, "", "sh0rtbr0ke", "pull"},
		{"a JWT", "Bearer a.b.c", noon, Valid, "github/main", "github/main:repo:o/r:ref:refs/heads/main", "pull,push"},
		{"a JWT in netrc", basic(":a.b.c"), noon, Valid, "github/main", "github/main:repo:o/r:ref:refs/heads/main", "pull,push"},
		{"a JWT after its end", "Bearer a.b.c", end, Expired, "github/main", "github/main:repo:o/r:ref:refs/heads/main", "pull"},
		{"a machine's JWT", "Bearer h.o.st", end, Valid, "aws/asg", "aws/asg:i-1", "pull,follow:web"},
		{"an unknown JWT", "Bearer x.y.z", noon, Malformed, "", "", "pull"},
		{"a JWT while the issuer is away", "Bearer away.b.c", noon, Unchecked, "", "", "pull"},
		{"a token of ours", "Bearer " + s.ci, noon, Valid, "ci", s.ci[4:14], "pull,push,promote:web-*"},
	} {
		s.now = c.now
		p := auth.Identify(request(c.header))
		if p.Credential != c.want || p.Name+p.Former != c.name || p.TokenID != c.id || p.Scopes.String() != c.scopes {
			t.Errorf("%s: %+v", c.what, p)
		}
		if fromGrant := p.Grant.Kind != ""; fromGrant != (c.want == Valid && strings.Contains(c.name, "/")) {
			t.Errorf("%s: %+v", c.what, p.Grant)
		}
		if d := p.Deny(scope.Scope{Kind: scope.Admin}); d != nil {
			checkDenial(t, d)
		}
	}
	s.now = noon
	if p := auth.Identify(request("Bearer h.o.st")); p.DenyAs(scope.Scope{Kind: scope.Follow, Glob: "web"}, "web-1") != nil || p.DenyAs(scope.Scope{Kind: scope.Follow, Glob: "web"}, "web-2") == nil {
		t.Errorf("a machine's JWT acts as others: %+v", p)
	}
	o.Short, o.JWT = nil, nil
	without := NewAuthenticator(o)
	if p := without.Identify(request("Bearer " + short)); p.Credential != Unknown {
		t.Errorf("a short-lived token where there are none: %+v", p)
	}
	if p := without.Identify(request("Bearer a.b.c")); p.Credential != Malformed || !strings.Contains(p.Fault, "not a narwharf token") {
		t.Errorf("a JWT where there is no issuer: %+v", p)
	}
}

// A header goes before a cookie, and a cookie before a certificate.
func TestIdentifyWithoutAHeader(t *testing.T) {
	s, o, short, _ := grantSite(t)
	r, secret, certificate := request(), "", false
	delete(r.Header, "Authorization")
	o.Session = func(*http.Request) string { return secret }
	o.Certificate = func(*http.Request) (Grant, bool) {
		return Grant{Kind: "certificate", Rule: "ops", Subject: "CN=me", Scopes: scopes(t, "operate")}, certificate
	}
	auth := NewAuthenticator(o)
	if p := auth.Identify(r); p.Credential != None || p.Name != "" {
		t.Errorf("nothing: %+v", p)
	}
	certificate = true
	if p := auth.Identify(r); p.Credential != Valid || p.Name != "certificate/ops" || p.TokenID != "certificate/ops:CN=me" || p.Scopes.String() != "pull,operate" {
		t.Errorf("a certificate: %+v", p)
	}
	secret = short
	if p := auth.Identify(r); p.Credential != Valid || p.Name != "github/main" {
		t.Errorf("a cookie: %+v", p)
	}
	secret = "x"
	if p := auth.Identify(r); p.Credential != Malformed || p.Scopes.String() != "pull" {
		t.Errorf("a cookie with nothing: %+v", p)
	}
	if p := auth.Identify(request("Bearer " + s.ci)); p.Name != "ci" {
		t.Errorf("a header beside them: %+v", p)
	}
}

func TestAddress(t *testing.T) {
	auth := NewAuthenticator(Options{Tokens: inMemory(t)})
	for remote, want := range map[string]string{"192.0.2.1:80": "192.0.2.1", "[2001:db8::1]:0": "2001:db8::1", "@": "@", "": ""} {
		if p := auth.Identify(&http.Request{RemoteAddr: remote}); p.Address != want {
			t.Errorf("%q is %q", remote, p.Address)
		}
	}
}

// Ids say what kind a token is, and nobody draws another kind's.
func TestDrawShort(t *testing.T) {
	secret, id, hash := DrawShort()
	if got, err := ParseSecret(secret); err != nil || got != id || !IsShort(id) || IsJoin(secret) || hash == (Hash{}) {
		t.Errorf("%s: %s, %v", id, got, err)
	}
	if other, _, _ := DrawShort(); other == secret {
		t.Error("twice the same")
	}
	if plain, token, err := New("ci", "", scopes(t, "pull"), noon, time.Time{}); err != nil || IsShort(token.ID) || IsJoin(plain) {
		t.Errorf("%+v, %v", token, err)
	}
}

// A token with a scope of today says to an older narwharf that it is newer.
func TestTokenVersions(t *testing.T) {
	for words, want := range map[string]string{
		"pull,push,promote:web,follow:a,operate,metrics,admin": `{"v":1,`,
		"reboot:web": `{"v":4,`, "read:web": `{"v":3,`, "operate:web": `{"v":3,`, "promote:web/a": `{"v":3,`, "promote:web/a:test": `{"v":3,`,
	} {
		token := newToken(t, "x", noon, time.Time{}, words)
		value, err := encodeToken(token)
		if err != nil || !strings.HasPrefix(string(value), want) {
			t.Errorf("%s: %s, %v", words, value, err)
		}
		if again, err := decodeToken(token.ID, value); err != nil || again.Scopes.String() != token.Scopes.String() {
			t.Errorf("%s: %+v, %v", words, again, err)
		}
	}
}
