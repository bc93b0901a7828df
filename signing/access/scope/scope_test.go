package scope

import (
	"encoding/json"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParse(t *testing.T) {
	for _, s := range []string{
		"pull", "push", "operate", "admin",
		"promote:*", "promote:prod", "promote:pro*", "promote:*-eu", "promote:a*b*c", "promote:0.1_x-",
		"follow:*", "follow:web", "follow:" + strings.Repeat("a", MaxGlob),
		"join:web", "read:*", "read:prod", "reboot:workers", "reboot:*", "operate:prod", "operate:*", "metrics",
		"promote:prod/web-1", "promote:prod/web-1:test", "promote:p*/*", "promote:*/role:web", "promote:*/role:web:test", "promote:a/B.c_d:e-",
		"promote:a/b:test:test", "promote:a/" + strings.Repeat("T", MaxGlob) + ":test",
	} {
		scope, err := Parse(s)
		if err != nil {
			t.Errorf("Parse(%q): %v", s, err)
		} else if scope.String() != s {
			t.Errorf("Parse(%q).String() = %q", s, scope)
		}
	}
	for s, want := range map[string]string{
		"":                  Valid,
		"reed":              Valid,
		"Pull":              Valid,
		" pull":             Valid,
		"pull\n":            Valid,
		"push,pull":         Valid,
		":":                 Valid,
		"kind(0)":           Valid,
		"promote":           "write promote:* for all channels",
		"promote:":          "write promote:* for all channels",
		"follow":            "write follow:* for all channels",
		"pull:web":          "pull takes no channel",
		"admin:":            "admin takes no channel",
		"promote:Prod":      "is no channel glob",
		"promote:-a":        "is no channel glob",
		"promote:.":         "is no channel glob",
		"promote:**":        "is no channel glob",
		"promote:a?":        "is no channel glob",
		"promote:[a]":       "is no channel glob",
		"promote:a:b":       "is no channel glob",
		"follow:a/b":        "is no channel glob",
		"read":              "write read:* for all channels",
		"read:":             "write read:* for all channels",
		"operate:":          "write operate:* for all channels",
		"operate:a/b":       "is no channel glob",
		"promote:/a":        "a channel has 1 to 128",
		"promote:a/":        "a target has 1 to 128",
		"promote:a/:test":   "a target has 1 to 128",
		"promote:a/b/c":     "is no target glob",
		"promote:a/:b":      "is no target glob",
		"promote:a/b**":     "is no target glob",
		"promote:a/b?":      "is no target glob",
		"promote:a/b\n":     "is no target glob",
		"promote:a/ü":       "is no target glob",
		"promote:a:test":    ":test stands after targets: promote:a/web-1:test",
		"promote:a:test/b":  ":test stands after targets: promote:a/web-1:test",
		"promote:a/b:boot,": "is no target glob",
		"promote:ü":         "is no channel glob",
		"promote:a b":       "is no channel glob",
		"follow:" + strings.Repeat("a", MaxGlob+1): "1 to 128 characters",
	} {
		scope, err := Parse(s)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q) = %v, %v; want an error with %q", s, scope, err, want)
		}
	}
}

func TestParseSet(t *testing.T) {
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
		{[]string{"promote:a/b:test,operate:b,read:a,promote:a,promote:a/b,operate,promote:a/b:test"}, "promote:a,promote:a/b,promote:a/b:test,operate,operate:b,read:a", ""},
		{[]string{"pull,\tpush"}, "", `is not one of`},
	} {
		got, err := ParseSet(c.values)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) || got != nil {
				t.Errorf("ParseSet(%q) = %v, %v; want error %q", c.values, got, err, c.err)
			}
			continue
		}
		if err != nil || got.String() != c.want {
			t.Errorf("ParseSet(%q) = %v, %v; want %s", c.values, got, err, c.want)
		}
	}
}

func TestAllows(t *testing.T) {
	for _, c := range []struct {
		have, allowed, refused string
	}{
		{"", "", "pull push promote:web follow:web operate read:web operate:web admin"},
		{"pull", "pull", "push promote:web follow:web operate admin"},
		{"push", "push pull", "promote:web follow:web operate admin"},
		{"operate", "operate operate:web operate:* read:web read:*", "pull push promote:web follow:web admin"},
		{"operate:*", "operate:web operate:* read:web read:*", "operate pull push promote:web follow:web admin"},
		{"operate:web", "operate:web read:web", "operate operate:* operate:db read:db read:* pull push promote:web metrics"},
		{"operate:w*", "operate:web read:web read:w*", "operate operate:* read:*"},
		{"read:web", "read:web", "read:* read:db operate:web operate pull push promote:web metrics admin"},
		{"read:*", "read:web read:*", "operate:web pull"},
		{"reboot:w*", "reboot:web reboot:w*", "reboot:* reboot:db pull follow:web read:web operate:web operate metrics"},
		{"metrics", "metrics", "reboot:web pull read:web operate admin"},
		{"promote:web/a", "promote:web/a promote:web/a:test pull read:web", "promote:web promote:web/b promote:web/b:test promote:web/* promote:db/a read:db operate:web"},
		{"promote:web/a:test", "promote:web/a:test pull read:web", "promote:web promote:web/a promote:web/b:test"},
		{"promote:*/web-*", "promote:web/web-1 promote:db/web-:test read:db", "promote:web promote:web/db promote:web/* promote:web/webx"},
		{"promote:web/*", "promote:web/a promote:web/* promote:web/role:web", "promote:web"},
		{"follow:web", "pull", "read:web"},
		{"join:web", "pull", "read:web follow:web"},
		{"promote:web", "promote:web promote:web/a promote:web/*:test pull read:web", "operate:web read:db promote:web2 promote:we promote:* follow:web push operate admin"},
		{"follow:web", "follow:web pull", "follow:db promote:web push operate admin"},
		{"promote:pro*", "promote:pro promote:prod promote:prod-eu promote:pro*-eu promote:pro*", "promote:pr promote:staging promote:*"},
		{"promote:*-eu", "promote:web-eu promote:0-eu", "promote:web-us promote:web-eu-x promote:-eu"},
		{"promote:a*b*c", "promote:abc promote:axbxbxc promote:aabbcc", "promote:ac promote:acb promote:xabc"},
		{"promote:*", "promote:web promote:* promote:a*b pull", "follow:web push"},
		{"pull,promote:a,promote:b", "pull promote:a promote:b", "promote:c"},
		{"admin", "pull push promote:web promote:* follow:web operate admin", ""},
	} {
		var have Set
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
	for _, bad := range []Scope{{}, {Kind: 99}, {Kind: Pull, Glob: "x"}, {Kind: Promote}, {Kind: Promote, Glob: "A"}, {Kind: Follow, Glob: "a/b"}, {Kind: Promote, Glob: "**"},
		{Kind: Read}, {Kind: Read, Glob: "A"}, {Kind: Operate, Glob: "A"}, {Kind: Promote, Glob: "a", Test: true}, {Kind: Promote, Glob: "a", Target: "b/c"}, {Kind: Follow, Glob: "a", Target: "b"}, {Kind: Operate, Test: true}} {
		if everything.Allows(bad) {
			t.Errorf("everything but admin allows %#v", bad)
		}
		for _, need := range append(slices.Clone(everything), bad) {
			if (Set{bad}).Allows(need) {
				t.Errorf("%#v allows %#v", bad, need)
			}
		}
	}
	admin := Set{{Kind: Admin}}
	if !admin.Allows(Scope{Kind: Promote, Glob: "No Channel"}) {
		t.Error("admin is forbidden a bad channel name instead of being told that it is one")
	}
	if admin.Allows(Scope{}) || admin.Allows(Scope{Kind: Admin + 1}) {
		t.Error("admin may do what names no scope")
	}
	if (Set{{Kind: Admin, Glob: "x"}}).Allows(Scope{Kind: Pull}) {
		t.Error("an invalid admin scope allows")
	}
}

func TestScopeText(t *testing.T) {
	var got struct{ Scopes Set }
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
	if _, err := json.Marshal(Set{{}}); err == nil {
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
		if s.Kind.hasGlob() && (s.Kind != Operate || rapid.Bool().Draw(t, "of channels")) {
			s.Glob = genGlob.Draw(t, "glob")
		}
		if s.Kind == Promote && rapid.Bool().Draw(t, "targets") {
			s.Target, s.Test = genGlob.Draw(t, "target"), rapid.Bool().Draw(t, "test")
		}
		return s
	})
	genScopes = rapid.Custom(func(t *rapid.T) Set { return rapid.SliceOfN(genScope, 0, 4).Draw(t, "scopes") })
)

func TestAllowsIsMonotone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		have, more, need := genScopes.Draw(t, "have"), genScopes.Draw(t, "more"), genScope.Draw(t, "need")
		before, all := have.Allows(need), have.Union(more)
		if before && !all.Allows(need) {
			t.Fatalf("%v allows %v, %v does not", have, need, all)
		}
		if all.Allows(need) != (before || more.Allows(need)) {
			t.Fatalf("%v: a union allows something else than its parts", all)
		}
		if !(Set{need}).Allows(need) {
			t.Fatalf("%v does not allow itself", need)
		}
		if need.Kind != Admin && !(Set{{Kind: Admin}}).Allows(need) {
			t.Fatalf("admin does not allow %v", need)
		}
	})
}

// A grant that covers a glob allows nothing less than that glob does.
func TestAllowsIsTransitive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := genScope.Draw(t, "a"), genScope.Draw(t, "b"), genScope.Draw(t, "c")
		if c.Glob != "" && rapid.Bool().Draw(t, "name") {
			c.Glob = genName.Draw(t, "channel")
		}
		if c.Target != "" && rapid.Bool().Draw(t, "one") {
			c.Target = genName.Draw(t, "target")
		}
		if (Set{a}).Allows(b) && (Set{b}).Allows(c) && !(Set{a}).Allows(c) {
			t.Fatalf("%v covers %v, which covers %v; but %[1]v does not cover %[3]v", a, b, c)
		}
	})
}

// Some is true exactly if there is a channel, and a target, that the set allows.
func TestSome(t *testing.T) {
	for have, want := range map[string]string{
		"pull": "pull", "push": "pull push", "metrics": "metrics",
		"promote:web": "pull promote read", "promote:w*/a:test": "pull promote read",
		"follow:web": "pull follow", "join:web": "pull join", "read:x": "read",
		"operate": "operate read", "operate:web": "operate read",
		"reboot:web": "reboot", "admin": "pull push promote follow join operate read reboot metrics admin",
	} {
		for kind := Pull; kind <= Admin; kind++ {
			_, got := scopes(t, have).Some(kind)
			if got != slices.Contains(strings.Fields(want), kind.String()) {
				t.Errorf("%s, some %s: %t", have, kind, got)
			}
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		have, need := genScopes.Draw(t, "have"), genScope.Draw(t, "need")
		if met, ok := have.Some(need.Kind); have.Allows(need) && !ok || ok && !have.Allows(met) {
			t.Fatalf("%v, some %v: %v, %t", have, need, met, ok)
		}
	})
}

// What is written is read again, and only that.
func TestScopeRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genScope.Draw(t, "scope")
		again, err := Parse(s.String())
		if err != nil || again != s || s.Check() != nil || !s.Named() {
			t.Fatalf("%#v is written %s, which is %#v, %v", s, s, again, err)
		}
	})
	// A target of this name is a need, and cannot be written without a *.
	s := Scope{Kind: Promote, Glob: "web", Target: "role:test"}
	if !s.Named() || s.Check() == nil || !scopes(t, "promote:web/role:tes*").Allows(s) || scopes(t, "promote:web/role:test").Allows(s) {
		t.Errorf("the target role:test: %t, %v", s.Named(), s.Check())
	}
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
	if !match(strings.Repeat("a*", MaxGlob/2), strings.Repeat("a", MaxGlob-1)+"b") {
		t.Error("a*a*…a* does not match aaa…b")
	}
	if match(strings.Repeat("*a", MaxGlob/2), strings.Repeat("a", MaxGlob-1)+"b") {
		t.Error("*a*a…*a matches aaa…b")
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"read:a", "operate:a*", "join:web", "metrics", "promote:a/b:test", "promote:a/b:test:test", "pull", "push", "promote:*", "promote", "follow:web-*", "admin", "operate:", "promote:a**", "\xff"} {
		f.Add(s)
	}
	form := regexp.MustCompile(`^(pull|push|operate|metrics|admin|(promote|follow|join|operate|read):[a-z0-9*][a-z0-9._*-]{0,127}|promote:[a-z0-9*][a-z0-9._*-]{0,127}/[a-zA-Z0-9*][a-zA-Z0-9._:*-]{0,127}(:test)?)$`)
	f.Fuzz(func(t *testing.T, s string) {
		scope, err := Parse(s)
		if want := form.MatchString(s) && !strings.Contains(s, "**"); want != (err == nil) {
			t.Fatalf("Parse(%q) = %v, %v", s, scope, err)
		}
		if err != nil {
			if scope != (Scope{}) || len(err.Error()) > 600 {
				t.Fatalf("Parse(%q) = %v, %v", s, scope, err)
			}
			return
		}
		if scope.String() != s || !scope.Named() || !(Set{scope}).Allows(scope) {
			t.Fatalf("Parse(%q) = %#v", s, scope)
		}
	})
}

// scopes parses what a test knows to be valid.
func scopes(t testing.TB, values ...string) Set {
	t.Helper()
	s, err := ParseSet(values)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// rawScope takes a scope apart without checking it: needs come from URLs.
func rawScope(s string) Scope {
	word, glob, _ := strings.Cut(s, ":")
	need := Scope{Kind: Kind(slices.Index(kindNames[:], word)), Glob: glob}
	if glob, target, of := strings.Cut(glob, "/"); of {
		need.Glob = glob
		need.Target, need.Test = strings.CutSuffix(target, ":test")
	}
	return need
}
