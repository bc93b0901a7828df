package access

import (
	"encoding/json"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParseScope(t *testing.T) {
	for _, s := range []string{
		"pull", "push", "operate", "admin",
		"promote:*", "promote:prod", "promote:pro*", "promote:*-eu", "promote:a*b*c", "promote:0.1_x-",
		"follow:*", "follow:web", "follow:" + strings.Repeat("a", maxGlob),
	} {
		scope, err := ParseScope(s)
		if err != nil {
			t.Errorf("ParseScope(%q): %v", s, err)
		} else if scope.String() != s {
			t.Errorf("ParseScope(%q).String() = %q", s, scope)
		}
	}
	for s, want := range map[string]string{
		"":             validScopes,
		"read":         validScopes,
		"Pull":         validScopes,
		" pull":        validScopes,
		"pull\n":       validScopes,
		"push,pull":    validScopes,
		":":            validScopes,
		"kind(0)":      validScopes,
		"promote":      "write promote:* for all channels",
		"promote:":     "write promote:* for all channels",
		"follow":       "write follow:* for all channels",
		"pull:web":     "pull takes no channel",
		"admin:":       "admin takes no channel",
		"promote:Prod": "is no channel glob",
		"promote:-a":   "is no channel glob",
		"promote:.":    "is no channel glob",
		"promote:**":   "is no channel glob",
		"promote:a?":   "is no channel glob",
		"promote:[a]":  "is no channel glob",
		"promote:a/b":  "is no channel glob",
		"promote:a:b":  "is no channel glob",
		"promote:ü":    "is no channel glob",
		"promote:a b":  "is no channel glob",
		"follow:" + strings.Repeat("a", maxGlob+1): "1 to 128 characters",
	} {
		scope, err := ParseScope(s)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseScope(%q) = %v, %v; want an error with %q", s, scope, err, want)
		}
	}
}

func TestParseScopes(t *testing.T) {
	for _, c := range []struct {
		values []string
		want   string
		err    string
	}{
		{nil, "", ""},
		{[]string{"pull"}, "pull", ""},
		{[]string{"push,pull", "push"}, "pull,push", ""},
		{[]string{"admin", "promote:web, promote:db", "pull"}, "pull,promote:db,promote:web,admin", ""},
		{[]string{""}, "", `scope "" is not one of`},
		{[]string{"pull,"}, "", `scope "" is not one of`},
		{[]string{"pull", "pul"}, "", `scope "pul" is not one of`},
		{[]string{"pull,\tpush"}, "", `is not one of`},
	} {
		got, err := ParseScopes(c.values)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) || got != nil {
				t.Errorf("ParseScopes(%q) = %v, %v; want error %q", c.values, got, err, c.err)
			}
			continue
		}
		if err != nil || got.String() != c.want {
			t.Errorf("ParseScopes(%q) = %v, %v; want %s", c.values, got, err, c.want)
		}
	}
}

func TestAllows(t *testing.T) {
	for _, c := range []struct {
		have, allowed, refused string
	}{
		{"", "", "pull push promote:web follow:web operate admin"},
		{"pull", "pull", "push promote:web follow:web operate admin"},
		{"push", "push pull", "promote:web follow:web operate admin"},
		{"operate", "operate", "pull push promote:web follow:web admin"},
		{"promote:web", "promote:web pull", "promote:web2 promote:we promote:* follow:web push operate admin"},
		{"follow:web", "follow:web pull", "follow:db promote:web push operate admin"},
		{"promote:pro*", "promote:pro promote:prod promote:prod-eu promote:pro*-eu promote:pro*", "promote:pr promote:staging promote:*"},
		{"promote:*-eu", "promote:web-eu promote:0-eu", "promote:web-us promote:web-eu-x promote:-eu"},
		{"promote:a*b*c", "promote:abc promote:axbxbxc promote:aabbcc", "promote:ac promote:acb promote:xabc"},
		{"promote:*", "promote:web promote:* promote:a*b pull", "follow:web push"},
		{"pull,promote:a,promote:b", "pull promote:a promote:b", "promote:c"},
		{"admin", "pull push promote:web promote:* follow:web operate admin", ""},
	} {
		var have Scopes
		if c.have != "" {
			have = scopes(t, c.have)
		}
		for word := range strings.FieldsSeq(c.allowed) {
			if !have.Allows(rawScope(word)) {
				t.Errorf("%q does not allow %s", c.have, word)
			}
		}
		for word := range strings.FieldsSeq(c.refused) {
			if have.Allows(rawScope(word)) {
				t.Errorf("%q allows %s", c.have, word)
			}
		}
	}
}

// What cannot be parsed grants nothing and is not granted by anything but admin,
// which is told elsewhere that the channel's name is none.
func TestAllowsInvalid(t *testing.T) {
	everything := scopes(t, "pull", "push", "promote:*", "follow:*", "operate")
	for _, bad := range []Scope{{}, {Kind: 99}, {Kind: Pull, Glob: "x"}, {Kind: Promote}, {Kind: Promote, Glob: "A"}, {Kind: Follow, Glob: "a/b"}, {Kind: Promote, Glob: "**"}} {
		if everything.Allows(bad) {
			t.Errorf("everything but admin allows %#v", bad)
		}
		for _, need := range append(slices.Clone(everything), bad) {
			if (Scopes{bad}).Allows(need) {
				t.Errorf("%#v allows %#v", bad, need)
			}
		}
	}
	admin := Scopes{{Kind: Admin}}
	if !admin.Allows(Scope{Promote, "No Channel"}) {
		t.Error("admin is forbidden a bad channel name instead of being told that it is one")
	}
	if admin.Allows(Scope{}) || admin.Allows(Scope{Kind: Admin + 1}) {
		t.Error("admin may do what names no scope")
	}
	if (Scopes{{Kind: Admin, Glob: "x"}}).Allows(Scope{Kind: Pull}) {
		t.Error("an invalid admin scope allows")
	}
}

func TestScopeText(t *testing.T) {
	var got struct{ Scopes Scopes }
	if err := json.Unmarshal([]byte(`{"scopes":["push","promote:web-*"]}`), &got); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(got)
	if err != nil || string(out) != `{"Scopes":["push","promote:web-*"]}` {
		t.Errorf("Marshal = %s, %v", out, err)
	}
	if err := json.Unmarshal([]byte(`{"scopes":["promote"]}`), &got); err == nil || !strings.Contains(err.Error(), "promote:*") {
		t.Errorf("Unmarshal of a bare promote: %v", err)
	}
	if _, err := json.Marshal(Scopes{{}}); err == nil {
		t.Error("Marshal wrote a scope without a kind")
	}
	if s := (Scope{Kind: 200}).String(); s != "kind(200)" {
		t.Errorf("String of no kind = %q", s)
	}
}

var (
	genName  = rapid.StringMatching(`[ab0][ab0.-]{0,5}`)
	genGlob  = rapid.StringMatching(`([ab0]\*?|\*)([ab0.-]\*?){0,4}`)
	genScope = rapid.Custom(func(t *rapid.T) Scope {
		s := Scope{Kind: Kind(rapid.IntRange(int(Pull), int(Admin)).Draw(t, "kind"))}
		if s.Kind.hasGlob() {
			s.Glob = genGlob.Draw(t, "glob")
		}
		return s
	})
	genScopes = rapid.Custom(func(t *rapid.T) Scopes { return rapid.SliceOfN(genScope, 0, 4).Draw(t, "scopes") })
)

func TestAllowsIsMonotone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		have, more, need := genScopes.Draw(t, "have"), genScopes.Draw(t, "more"), genScope.Draw(t, "need")
		before, all := have.Allows(need), have.union(more)
		if before && !all.Allows(need) {
			t.Fatalf("%v allows %v, %v does not", have, need, all)
		}
		if all.Allows(need) != (before || more.Allows(need)) {
			t.Fatalf("%v: a union allows something else than its parts", all)
		}
		if !(Scopes{need}).Allows(need) {
			t.Fatalf("%v does not allow itself", need)
		}
		if need.Kind != Admin && !(Scopes{{Kind: Admin}}).Allows(need) {
			t.Fatalf("admin does not allow %v", need)
		}
	})
}

// A grant that covers a glob allows nothing less than that glob does.
func TestAllowsIsTransitive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := genScope.Draw(t, "a"), genScope.Draw(t, "b"), genScope.Draw(t, "c")
		if c.Kind.hasGlob() && rapid.Bool().Draw(t, "name") {
			c.Glob = genName.Draw(t, "channel")
		}
		if (Scopes{a}).Allows(b) && (Scopes{b}).Allows(c) && !(Scopes{a}).Allows(c) {
			t.Fatalf("%v covers %v, which covers %v; but %[1]v does not cover %[3]v", a, b, c)
		}
	})
}

func TestMatchIsPathMatch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		glob, name := genGlob.Draw(t, "glob"), genName.Draw(t, "name")
		want, err := path.Match(glob, name)
		if err != nil {
			t.Fatal(err)
		}
		if got := match(glob, name); got != want {
			t.Fatalf("match(%q, %q) = %v", glob, name, got)
		}
	})
}

// A glob made to blow up a backtracking matcher.
func TestMatchIsNotExponential(t *testing.T) {
	if !match(strings.Repeat("a*", maxGlob/2), strings.Repeat("a", maxGlob-1)+"b") {
		t.Error("a*a*…a* does not match aaa…b")
	}
	if match(strings.Repeat("*a", maxGlob/2), strings.Repeat("a", maxGlob-1)+"b") {
		t.Error("*a*a…*a matches aaa…b")
	}
}

func FuzzParseScope(f *testing.F) {
	for _, s := range []string{"pull", "push", "promote:*", "promote", "follow:web-*", "admin", "operate:", "promote:a**", "\xff"} {
		f.Add(s)
	}
	form := regexp.MustCompile(`^(pull|push|operate|admin|(promote|follow):[a-z0-9*][a-z0-9._*-]{0,127})$`)
	f.Fuzz(func(t *testing.T, s string) {
		scope, err := ParseScope(s)
		if want := form.MatchString(s) && !strings.Contains(s, "**"); want != (err == nil) {
			t.Fatalf("ParseScope(%q) = %v, %v", s, scope, err)
		}
		if err != nil {
			if scope != (Scope{}) || len(err.Error()) > 600 {
				t.Fatalf("ParseScope(%q) = %v, %v", s, scope, err)
			}
			return
		}
		if scope.String() != s || !scope.valid() || !(Scopes{scope}).Allows(scope) {
			t.Fatalf("ParseScope(%q) = %#v", s, scope)
		}
	})
}

// scopes parses what a test knows to be valid.
func scopes(t testing.TB, values ...string) Scopes {
	t.Helper()
	s, err := ParseScopes(values)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// rawScope takes a scope apart without checking it: needs come from URLs.
func rawScope(s string) Scope {
	word, glob, _ := strings.Cut(s, ":")
	return Scope{Kind(slices.Index(kindNames[:], word)), glob}
}
