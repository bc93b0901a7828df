package access

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"narwharf/signing/access/scope"
)

func TestDeny(t *testing.T) {
	s := newSite(t, scopes(t, "pull"))
	operate := scope.Scope{Kind: scope.Operate}
	mistyped := s.ci[:30] + other(s.ci[30]) + s.ci[31:]
	for _, c := range []struct {
		what    string
		headers []string
		now     time.Time
		need    scope.Scope
		status  int
		want    string
	}{
		{"anonymous", nil, noon, operate, 401,
			"this needs the scope operate; the request carries no token: give one as the password in netrc, or as Authorization: Bearer"},
		{"lacks", []string{basic(":" + s.expiring)}, noon, scope.Scope{Kind: scope.Push}, 403,
			`this needs the scope push; the token "laptop" has pull only: make one with narwharf token new --scope push`},
		{"another channel", []string{basic(":" + s.ci)}, noon, scope.Scope{Kind: scope.Promote, Glob: "prod"}, 403,
			`this needs the scope promote:prod; the token "ci" has pull, push, promote:web-* only: make one with narwharf token new --scope promote:prod`},
		{"no channel", []string{basic(":" + s.ci)}, noon, scope.Scope{Kind: scope.Promote, Glob: "Prod\n"}, 403,
			`this needs the scope promote for what is not the name of a channel; the token "ci" has pull, push, promote:web-* only: check the name`},
		{"unknown", []string{basic(":" + s.elsewhere)}, noon, operate, 401,
			"this needs the scope operate; the token is not known here: revoked, or of another server; make one with narwharf token new --scope operate"},
		{"revoked", []string{basic(":" + s.revoked)}, noon, operate, 401,
			`this needs the scope operate; the token "gone" was revoked on 2026-03-04 12:00:00 UTC: make one with narwharf token new --scope operate`},
		{"expired", []string{basic(":" + s.expiring)}, noon.Add(2 * time.Hour), operate, 401,
			`this needs the scope operate; the token "laptop" expired on 2026-03-04 13:00:00 UTC: make one with narwharf token new --scope operate`},
		{"mistyped", []string{basic(":" + mistyped)}, noon, operate, 401,
			"this needs the scope operate; the token is mistyped (its checksum is wrong): copy it again"},
		{"another password", []string{basic("me:hunter2")}, noon, operate, 401,
			"this needs the scope operate; the token is not a narwharf token: those begin with nwt_"},
		{"two headers", []string{"Bearer x", "Bearer y"}, noon, operate, 401,
			"this needs the scope operate; the request has several Authorization headers: send one"},
		{"a route without a scope", nil, noon, scope.Scope{}, 403,
			"this is open to nobody: it names no scope, which is a bug in narwharf"},
	} {
		s.now = c.now
		p := s.auth.Identify(request(c.headers...))
		d := p.Deny(c.need)
		if d == nil {
			t.Errorf("%s: allowed", c.what)
			continue
		}
		if d.Status != c.status || d.Error() != c.want {
			t.Errorf("%s: %d %s\nwant %d %s", c.what, d.Status, d, c.status, c.want)
		}
		checkDenial(t, d)
		if d := p.Deny(scope.Scope{Kind: scope.Pull}); d != nil {
			t.Errorf("%s: a public read is refused: %v", c.what, d)
		}
	}

	p := Principal{Credential: Unchecked, Err: errors.New("password of the database is x")}
	if d := p.Deny(operate); d.Status != http.StatusServiceUnavailable || d.Error() != "this needs the scope operate; the token could not be checked now: try again soon" {
		t.Errorf("unchecked: %d %s", d.Status, d)
	}
	if d := (Principal{Credential: Valid, Name: "x"}).Deny(operate); !strings.Contains(d.Error(), `"x" has no scope: make`) {
		t.Errorf("no scopes: %s", d)
	}
}

func TestDenyAllowed(t *testing.T) {
	if d := (Principal{Scopes: scopes(t, "promote:pro*")}).Deny(scope.Scope{Kind: scope.Promote, Glob: "prod"}); d != nil {
		t.Errorf("refused: %v", d)
	}
}

// Whatever a Principal holds, the denial is one short line.
func TestDenyIsALine(t *testing.T) {
	long := rapid.OneOf(rapid.String(), rapid.StringMatching(`[a-z"\\]{0,300}`))
	genNeed := rapid.Custom(func(t *rapid.T) scope.Scope {
		return scope.Scope{
			Kind:   scope.Kind(rapid.IntRange(0, int(scope.Admin)+1).Draw(t, "kind")),
			Glob:   rapid.OneOf(long, rapid.StringMatching(`[a-z*]{1,128}`)).Draw(t, "glob"),
			Target: rapid.OneOf(long, rapid.Just(""), rapid.StringMatching(`[a-z*]{1,128}`)).Draw(t, "target"),
			Test:   rapid.Bool().Draw(t, "test"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		p := Principal{
			Name: long.Draw(t, "name"), Former: long.Draw(t, "former"), Fault: long.Draw(t, "fault"),
			Scopes:     rapid.SliceOfN(genNeed, 0, 5).Draw(t, "scopes"),
			Credential: Credential(rapid.IntRange(0, int(Unchecked)+1).Draw(t, "credential")),
			RevokedAt:  noon, ExpiredAt: noon,
		}
		if d := p.Deny(genNeed.Draw(t, "need")); d != nil {
			checkDenial(t, d)
		}
	})
	// The longest of each part at once.
	for c := None; c <= Unchecked; c++ {
		for _, size := range []int{1, 40, 41, 48, 49, scope.MaxGlob} {
			word := strings.Repeat("x", size)
			p := Principal{
				Name: strings.Repeat("n", maxName), Former: strings.Repeat("n", maxName), Fault: strings.Repeat("f", 300),
				Scopes:     scope.Set{{Kind: scope.Follow, Glob: strings.Repeat("y", 32)}, {Kind: scope.Follow, Glob: "ü"}, {Kind: scope.Follow, Glob: "zz"}},
				Credential: c, RevokedAt: noon, ExpiredAt: noon,
			}
			checkDenial(t, p.Deny(scope.Scope{Kind: scope.Promote, Glob: word}))
		}
	}
}

func checkDenial(t interface{ Fatalf(string, ...any) }, d *Denied) {
	text := d.Error()
	if text == "" || len(text) >= 800 {
		t.Fatalf("a denial of %d bytes: %s", len(text), text)
	}
	for _, c := range []byte(text) {
		if c < ' ' || c > '~' {
			t.Fatalf("a denial with byte %#x: %q", c, text)
		}
	}
	if d.Status != 401 && d.Status != 403 && d.Status != 503 {
		t.Fatalf("a denial with status %d", d.Status)
	}
}
