package rule

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"narwharf/signing/access/scope"
)

func tests(scopes ...string) Spec {
	return spec(func(s *Spec) {
		s.Claims = map[string]any{"repository": "octo/web", "ref": "refs/heads/test-*"}
		s.Scopes = scopes
	})
}

// The branch test-web-1 may try web-1, and what is no name of a target fits nothing.
func TestTargetOfAClaim(t *testing.T) {
	r, err := New(tests("push", "promote:web/{ref}:test"), own)
	if err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]string{
		`"refs/heads/test-web-1"`:   "push promote:web/web-1:test",
		`"refs/heads/test-test-"`:   "push promote:web/test-:test",
		`"refs/heads/test-*"`:       "",
		`"refs/heads/test-web-*"`:   "",
		`"refs/heads/test-"`:        "",
		`"refs/heads/test-a/b"`:     "",
		`"refs/heads/test-a:test"`:  "",
		`"refs/heads/test-a b"`:     "",
		`"refs/heads/test-a\n"`:     "",
		`"refs/heads/test-ü"`:       "",
		`["refs/heads/test-web-1"]`: "", // of several it would be another's that counts
		`["x","refs/heads/test-a"]`: "",
		`"refs/heads/main"`:         "",
		`null`:                      "",
	} {
		in := claims(t, `{"repository":"octo/web","ref":`+ref+`}`)
		got := ""
		_, g := Match("forge", []*Rule{r}, in)
		for _, s := range g.Scopes {
			got = strings.TrimSpace(got + " " + s.String())
		}
		if got != want {
			t.Errorf("%s gives %q, want %q", ref, got, want)
		}
		if v := Explain([]*Rule{r}, in)[0]; v.Fits != (want != "") || !v.Fits && len(v.Differences) != 1 {
			t.Errorf("%s: %+v", ref, v)
		}
	}
}

func TestTargetOfAClaimIsChecked(t *testing.T) {
	for text, says := range map[string]string{
		"promote:{ref}":                "for a target alone",
		"promote:{ref}/web-1":          "for a target alone",
		"promote:web/a{ref}":           "for a target alone",
		"promote:web/{ref}/x":          "for a target alone",
		"promote:web/{ref}:boot":       "for a target alone",
		"follow:{ref}":                 "for a target alone",
		"promote:web/{}":               "for a target alone",
		"promote:web/{repository}":     "one text with one *",
		"promote:web/{event}:test":     "one text with one *",
		"promote:web/{a b}:test":       "is no claim",
		"promote:we b/{ref}:test":      "scope",
		"promote:web/{ref}{ref}:test":  "for a target alone",
		"promote:web/{ref}:test:test}": "for a target alone",
	} {
		if _, err := New(tests(text), own); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", text, err)
		}
	}
	list := tests("promote:web/{ref}")
	list.Claims["ref"] = []any{"refs/heads/test-*", "refs/heads/try-*"}
	if _, err := New(list, own); err == nil {
		t.Error("a list of texts is taken")
	}
}

// Whatever a JWT says, a rule gives no right for a target that is not in its claim, and none for several.
func TestTargetOfAClaimIsOne(t *testing.T) {
	r, err := New(tests("promote:web/{ref}:test"), own)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.OneOf(rapid.StringMatching(`[a-z*:/.{}-]{0,8}`), rapid.String()).Draw(t, "name")
		_, g := Match("forge", []*Rule{r}, map[string]any{"repository": "octo/web", "ref": "refs/heads/test-" + name})
		if len(g.Scopes) == 0 {
			return
		}
		if len(g.Scopes) != 1 || g.Scopes[0] != (scope.Scope{Kind: scope.Promote, Glob: "web", Target: name, Test: true}) || strings.ContainsAny(name, "*/:{}") {
			t.Fatalf("%q gives %v", name, g.Scopes)
		}
	})
}
