package rule

import (
	"encoding/json"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"narwharf/signing/access"
	"narwharf/signing/access/scope"
)

const own = "https://forge.example.org/api/actions"

// claims decodes JSON as the verifier does.
func claims(t testing.TB, text string) map[string]any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var c map[string]any
	if err := d.Decode(&c); err != nil {
		t.Fatal(err)
	}
	return c
}

func spec(change ...func(*Spec)) Spec {
	s := Spec{Name: "main", Claims: map[string]any{"repository": "octo/web"}, Scopes: []string{"push"}}
	for _, fn := range change {
		fn(&s)
	}
	return s
}

func TestMatchValues(t *testing.T) {
	for _, c := range []struct {
		rule any
		json string
		fits bool
	}{
		{"a", `"a"`, true},
		{"a", `"A"`, false},
		{"a", `"ab"`, false},
		{"a", `null`, false},
		{"a", ``, false},
		{"a", `{"a":"a"}`, false},
		{"a", `["b","a"]`, true},
		{"a", `["b"]`, false},
		{"a", `[]`, false},
		{"a", `[["a"]]`, false},
		{"a*", `["b","abc"]`, true},
		{int64(7), `7`, true},
		{int64(7), `"7"`, true},
		{"7", `7`, true},
		{int64(7), `7.0`, false},
		{int64(7), `77`, false},
		{true, `true`, true},
		{true, `"true"`, true},
		{"true", `true`, true},
		{true, `false`, false},
		{false, `null`, false},
		{[]any{"push", "workflow_dispatch"}, `"push"`, true},
		{[]any{"push", "workflow_dispatch"}, `"workflow_dispatch"`, true},
		{[]any{"push", int64(3)}, `[1,3]`, true},
		{[]any{"push"}, `"pull_request"`, false},
		{map[string]any{"b": "c"}, `{"b":"c","d":1}`, true},
		{map[string]any{"b": "c"}, `{"b":"d"}`, false},
		{map[string]any{"b": "c"}, `{}`, false},
		{map[string]any{"b": "c"}, `"c"`, false},
		{map[string]any{"b": "c"}, ``, false},
		{map[string]any{"b": "c"}, `[{"b":"c"}]`, false},
		{map[string]any{"kubernetes.io": map[string]any{"namespace": "ci"}}, `{"kubernetes.io":{"namespace":"ci"}}`, true},
		{"refs/heads/release-*", `"refs/heads/release-1.2"`, true},
		{"refs/heads/release-*", `"refs/heads/release-1/x"`, false},
		{"refs/heads/release-*", `"refs/heads/release-"`, true},
		{"refs/*", `"refs/heads/main"`, false},
		{"refs/*/main", `"refs/heads/main"`, true},
		{"repo:octo/*:*", `"repo:octo/web:environment:prod"`, false},
		{"repo:octo/*:environment:prod", `"repo:octo/web:environment:prod"`, true},
		{"repo:octo/*:environment:prod", `"repo:octo/web:x:environment:prod"`, false},
		{"*", `""`, true},
		{"*", `"a b"`, true},
		{"*", `"a/b"`, false},
		{"*", `"a:b"`, false},
		{"a*b*c", `"a1b2b3c"`, true},
		{"a*b*c", `"abcb"`, false},
		{"a?[b]", `"a?[b]"`, true},
		{"a?[b]", `"axb"`, false},
		{`a\*`, `"a\\x"`, true},
	} {
		r, err := New(spec(func(s *Spec) { s.Claims = map[string]any{"c": c.rule} }), own)
		if err != nil {
			t.Errorf("%v: %v", c.rule, err)
			continue
		}
		text := `{"c":` + c.json + `}`
		if c.json == "" {
			text = `{}`
		}
		got, _ := Match("forge", []*Rule{r}, claims(t, text))
		v := Explain([]*Rule{r}, claims(t, text))[0]
		if (got != nil) != c.fits || v.Fits != c.fits || (len(v.Differences) == 0) != c.fits {
			t.Errorf("%v and %s: %v, %+v, want %v", c.rule, c.json, got != nil, v, c.fits)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	deep := map[string]any{"a": "b"}
	for range maxDepth {
		deep = map[string]any{"a": deep}
	}
	for _, c := range []struct {
		says   string
		change func(*Spec)
	}{
		{"letters, digits", func(s *Spec) { s.Name = "a/b" }},
		{"letters, digits", func(s *Spec) { s.Name = "" }},
		{"claims: there are none", func(s *Spec) { s.Claims = nil }},
		{"claims: c: there are none", func(s *Spec) { s.Claims = map[string]any{"c": map[string]any{}} }},
		{"empty", func(s *Spec) { s.Claims = map[string]any{"c": ""} }},
		{"1 to 100", func(s *Spec) { s.Claims = map[string]any{"c": []any{}} }},
		{"no text", func(s *Spec) { s.Claims = map[string]any{"c": 1.5} }},
		{"no text", func(s *Spec) { s.Claims = map[string]any{"c": time.Now()} }},
		{"no text", func(s *Spec) { s.Claims = map[string]any{"c": []any{[]any{"a"}}} }},
		{"**", func(s *Spec) { s.Claims = map[string]any{"c": "a**b"} }},
		{"longer than", func(s *Spec) { s.Claims = map[string]any{"c": strings.Repeat("a", maxText+1)} }},
		{"deep", func(s *Spec) { s.Claims = deep }},
		{"scopes: there are none", func(s *Spec) { s.Scopes = nil }},
		{"scope \"fly\"", func(s *Spec) { s.Scopes = []string{"fly"} }},
		{"join tokens", func(s *Spec) { s.Scopes = []string{"join:web"} }},
		{"ttl", func(s *Spec) { s.TTL = 12*time.Hour + 1 }},
		{"ttl", func(s *Spec) { s.TTL = time.Second }},
		{"no scope follow", func(s *Spec) { s.Hosts = []string{"web-*"} }},
		{"no scope follow", func(s *Spec) { s.HostClaim = "oid" }},
		{"no scope follow", func(s *Spec) { s.Forget = time.Hour }},
		{"which names", func(s *Spec) { s.Scopes = []string{"follow:web"} }},
		{"is no claim", func(s *Spec) { s.Scopes, s.HostClaim = []string{"follow:web"}, "kubernetes.io/pod" }},
		{"no glob", func(s *Spec) { s.Scopes, s.Hosts = []string{"follow:web"}, []string{"a/b"} }},
	} {
		_, err := New(spec(c.change), own)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("want %q: %v", c.says, err)
		}
	}
}

// A rule for an issuer that strangers share says whose JWTs it means.
func TestShared(t *testing.T) {
	for issuer, want := range map[string]bool{
		"https://token.actions.githubusercontent.com":              true,
		"https://token.actions.githubusercontent.com/octo":         true,
		"https://gitlab.com":                                       true,
		"https://codeberg.org/api/actions":                         true,
		"https://agent.buildkite.com":                              true,
		"https://oidc.circleci.com/org/0b1c":                       true,
		"https://accounts.google.com":                              true,
		"https://gitlab.com.example.org":                           false,
		"https://forge.example.org/api/actions":                    false,
		"https://abc.tokens.sts.global.api.aws":                    false,
		"https://token.actions.githubusercontent.com.example.org/": false,
	} {
		if got := Shared(issuer); got != want {
			t.Errorf("Shared(%s) = %v", issuer, got)
		}
	}
	const github = "https://token.actions.githubusercontent.com"
	for _, c := range []struct {
		claims map[string]any
		starts bool
	}{
		{map[string]any{"repository": "octo/web"}, true},
		{map[string]any{"repository": "octo/*"}, true},
		{map[string]any{"repository": "octo*/web"}, false},
		{map[string]any{"repository": "*/web"}, false},
		{map[string]any{"repository": []any{"octo/web", "*/web"}}, false},
		{map[string]any{"repository_id": int64(7)}, true},
		{map[string]any{"repository_id": "7*"}, false},
		{map[string]any{"repository_owner": "octo"}, true},
		{map[string]any{"repository_owner_id": "12"}, true},
		{map[string]any{"project_id": "12"}, true},
		{map[string]any{"project_path": "group/*"}, true},
		{map[string]any{"namespace_id": "12"}, true},
		{map[string]any{"organization_id": "12"}, true},
		{map[string]any{"organization_slug": "acme"}, true},
		{map[string]any{"organization_slug": "acme*"}, false},
		{map[string]any{"email": "ann@example.org"}, true},
		{map[string]any{"email": "*@example.org"}, false},
		{map[string]any{"sub": "repo:octo/web:ref:refs/heads/main"}, true},
		{map[string]any{"sub": "repo:octo/*:environment:production"}, true},
		{map[string]any{"sub": "repo:octo@1/*:ref:*"}, true},
		{map[string]any{"sub": "repo:*/*:environment:production"}, false},
		{map[string]any{"sub": "repo:octo*/web:environment:production"}, false},
		{map[string]any{"sub": "*"}, false},
		{map[string]any{"sub": "org/0b1c/project/*"}, true},
		{map[string]any{"sub": "org/*/project/1"}, false},
		{map[string]any{"sub": "1234567890"}, true},
		{map[string]any{"sub": "123456789*"}, false},
		{map[string]any{"google": map[string]any{"compute_engine": map[string]any{"project_id": "p-1"}}}, true},
		{map[string]any{"google": map[string]any{"compute_engine": map[string]any{"project_id": "p-*"}}}, false},
		{map[string]any{"google": map[string]any{"compute_engine": map[string]any{"zone": "z"}}}, false},
		{map[string]any{"google": "x"}, false},
		{map[string]any{"ref": "refs/heads/main", "actor": "ann", "iss": github}, false},
		{map[string]any{"repository": map[string]any{"a": "b"}}, false},
	} {
		_, err := New(spec(func(s *Spec) { s.Claims = c.claims }), github)
		if (err == nil) != c.starts || err != nil && !strings.Contains(err.Error(), "strangers") {
			t.Errorf("%v: %v, want it to start: %v", c.claims, err, c.starts)
		}
		if _, err := New(spec(func(s *Spec) { s.Claims = c.claims }), own); err != nil {
			t.Errorf("%v, at an issuer of one's own: %v", c.claims, err)
		}
	}
}

func TestGrant(t *testing.T) {
	first, err := New(spec(func(s *Spec) {
		s.Name, s.Claims, s.TTL = "release", map[string]any{"ref": "refs/tags/*"}, 2*time.Hour
		s.Scopes = []string{"promote:prod", "push"}
	}), own)
	if err != nil {
		t.Fatal(err)
	}
	second, err := New(spec(), own)
	if err != nil {
		t.Fatal(err)
	}
	rules := []*Rule{first, second}
	const both = `{"sub":"repo:octo/web\u001b","repository":"octo/web","ref":"refs/tags/v1"}`
	r, g := Match("forge", rules, claims(t, both))
	want := access.Grant{
		Kind: "oidc", Issuer: "forge", Rule: "release", Subject: "repo:octo/web?", TTL: 2 * time.Hour,
		Scopes: scope.Set{{Kind: scope.Push}, {Kind: scope.Promote, Glob: "prod"}},
	}
	if r != first || !reflect.DeepEqual(g, want) || g.Name() != "forge/release" || !reflect.DeepEqual(Shown(g), want) {
		t.Errorf("%+v, want %+v", g, want)
	}
	if r, g := Match("forge", rules, claims(t, `{"repository":"octo/web"}`)); r != second || g.TTL != time.Hour || g.Subject != "" {
		t.Errorf("%+v", g)
	}
	if r, g := Match("forge", rules, claims(t, `{"repository":"octo/other"}`)); r != nil || g.Scopes != nil {
		t.Errorf("%+v", g)
	}
	if r, _ := Match("forge", nil, claims(t, both)); r != nil {
		t.Error("a rule out of nothing")
	}
}

func TestMachines(t *testing.T) {
	for _, c := range []struct {
		hostClaim string
		hosts     []string
		json      string
		fits      bool
		host      string
	}{
		{"oid", nil, `{"oid":"3f2c"}`, true, "3f2c"},
		{"oid", nil, `{}`, false, ""},
		{"oid", nil, `{"oid":["a"]}`, false, ""},
		{"oid", nil, `{"oid":"a/b"}`, false, ""},
		{"oid", nil, `{"oid":"a\nb"}`, false, ""},
		{"oid", []string{"asg-*"}, `{"oid":"asg-1"}`, true, "asg-1"},
		{"oid", []string{"asg-*", "db-1"}, `{"oid":"db-1"}`, true, "db-1"},
		{"oid", []string{"asg-*"}, `{"oid":"web-1"}`, false, ""},
		{"google.compute_engine.instance_name", nil, `{"google":{"compute_engine":{"instance_name":"vm-7"}}}`, true, "vm-7"},
		{`"kubernetes.io".pod.name`, nil, `{"kubernetes.io":{"pod":{"name":"runner-0"}}}`, true, "runner-0"},
		{`"https://sts.amazonaws.com/"."x"`, nil, `{"https://sts.amazonaws.com/":{"x":7}}`, true, "7"},
		{"", []string{"asg-*"}, `{}`, true, ""},
	} {
		r, err := New(spec(func(s *Spec) {
			s.Claims, s.Scopes = map[string]any{"sub": "me"}, []string{"follow:web", "metrics"}
			s.HostClaim, s.Hosts, s.Forget = c.hostClaim, c.hosts, 24*time.Hour
		}), own)
		if err != nil {
			t.Errorf("%s: %v", c.hostClaim, err)
			continue
		}
		in := claims(t, c.json)
		in["sub"] = "me"
		got, g := Match("gcp", []*Rule{r}, in)
		if (got != nil) != c.fits || g.Host != c.host {
			t.Errorf("%s %v %s: %+v, want %v %q", c.hostClaim, c.hosts, c.json, g, c.fits, c.host)
		}
		if got == nil {
			continue
		}
		if g.Owner != "gcp/me" || g.Forget != 24*time.Hour || !r.Machines() {
			t.Errorf("%+v", g)
		}
		// Shown as it is, it does not follow.
		if is := Shown(g); is.Host != "" || is.Scopes.String() != "pull,metrics" {
			t.Errorf("shown it gives %s as %q", is.Scopes, is.Host)
		}
	}
	r, err := New(spec(func(s *Spec) { s.Scopes, s.Hosts = []string{"follow:web"}, []string{"asg-*"} }), own)
	if err != nil || !r.MayName("asg-17") || r.MayName("web-1") || r.MayName("asg-1/2") || r.MayName("") {
		t.Errorf("MayName: %v", err)
	}
	long := strings.Repeat("s", 300)
	if _, g := Match("gcp", []*Rule{r}, map[string]any{"repository": "octo/web", "sub": long}); len(g.Owner) > 100 || len(g.Subject) > 128 {
		t.Errorf("the owner is %q, the subject %q", g.Owner, g.Subject)
	}
}

func TestExplain(t *testing.T) {
	main, err := New(spec(func(s *Spec) {
		s.Claims = map[string]any{
			"repository_id": int64(7), "ref": "refs/heads/main", "environment": "production",
			"event_name": []any{"push", "workflow_dispatch"}, "kubernetes.io": map[string]any{"namespace": "ci"},
		}
	}), own)
	if err != nil {
		t.Fatal(err)
	}
	any, err := New(spec(func(s *Spec) { s.Name, s.Claims = "any", map[string]any{"repository_id": "7"} }), own)
	if err != nil {
		t.Fatal(err)
	}
	got := Explain([]*Rule{main, any}, claims(t, `{"repository_id":"7","ref":"refs/heads/dev","event_name":"pull_request_target"}`))
	if len(got) != 2 || got[0].Rule != "main" || got[0].Fits || got[1].Rule != "any" || !got[1].Fits || len(got[1].Differences) != 0 {
		t.Fatalf("%+v", got)
	}
	want := []string{
		`environment is not there, and has to be "production"`,
		`event_name is "pull_request_target", and has to be one of "push", "workflow_dispatch"`,
		`"kubernetes.io".namespace is not there, and has to be "ci"`,
		`ref is "refs/heads/dev", and has to be "refs/heads/main"`,
	}
	for i, d := range got[0].Differences {
		if i >= len(want) || d.String() != want[i] {
			t.Errorf("%s", d)
		}
	}
	if len(got[0].Differences) != len(want) {
		t.Errorf("%q", got[0].Differences)
	}
}

// What a glob fits is what its regular expression does.
func TestMatchIsARegexp(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		glob := rapid.StringMatching(`[ab*/:]{0,12}`).Draw(rt, "glob")
		text := rapid.StringMatching(`[ab/:]{0,16}`).Draw(rt, "text")
		re := regexp.MustCompile(`^` + strings.ReplaceAll(regexp.QuoteMeta(glob), `\*`, `[^/:]*`) + `$`)
		if got := match(glob, text); got != re.MatchString(text) {
			rt.Errorf("match(%q, %q) = %v", glob, text, got)
		}
	})
}

func TestMatchIsNotExponential(t *testing.T) {
	if match(strings.Repeat("a*", 300)+"b", strings.Repeat("a", 16<<10)) {
		t.Error("it fits")
	}
}

// Another claim more makes a rule fit no more claims, and a claim that a rule does not name is nothing to it.
func TestRulesAreMonotone(t *testing.T) {
	words := rapid.SampledFrom([]string{"a", "b", "a*", "b/*"})
	names := rapid.SampledFrom([]string{"x", "y", "z"})
	rapid.Check(t, func(rt *rapid.T) {
		want := map[string]any{}
		for name, text := range rapid.MapOfN(names, words, 1, 3).Draw(rt, "rule") {
			want[name] = text
		}
		has := map[string]any{}
		for name, text := range rapid.MapOfN(names, rapid.SampledFrom([]string{"a", "ab", "b/a", "c"}), 0, 3).Draw(rt, "claims") {
			has[name] = text
		}
		fits := func(want, has map[string]any) bool {
			r, err := New(Spec{Name: "r", Claims: want, Scopes: []string{"pull"}}, own)
			if err != nil {
				rt.Fatal(err)
			}
			got, _ := Match("i", []*Rule{r}, has)
			return got != nil
		}
		before := fits(want, has)
		more := map[string]any{"w": "more"}
		for name, v := range want {
			more[name] = v
		}
		if fits(more, has) {
			rt.Error("it fits without a claim that it names")
		}
		has["v"] = "unnamed"
		if fits(want, has) != before {
			rt.Error("a claim that is not named counts")
		}
	})
}

func FuzzExplain(f *testing.F) {
	f.Add(`{"ref":"refs/heads/main","a":[1,{"b":null}],"google":{"compute_engine":{"instance_name":"vm"}}}`)
	f.Add(`{"ref":["refs/heads/x","\u202e"],"google":[]}`)
	r, err := New(Spec{
		Name: "r", Claims: map[string]any{"ref": "refs/heads/*", "a": []any{"1", true}, "google": map[string]any{"x": int64(1)}},
		Scopes: []string{"follow:web"}, HostClaim: "google.compute_engine.instance_name", Hosts: []string{"vm*"},
	}, own)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		var c map[string]any
		if d.Decode(&c) != nil {
			return
		}
		got, g := Match("i", []*Rule{r}, c)
		v := Explain([]*Rule{r}, c)[0]
		if v.Fits != (got != nil) || v.Fits != (len(v.Differences) == 0) {
			t.Fatalf("%+v and %+v", v, g)
		}
		if got != nil && !r.MayName(g.Host) {
			t.Fatalf("the host is %q", g.Host)
		}
		for _, d := range v.Differences {
			if s := d.String(); len(s) > 900 || strings.ContainsAny(s, "\n\x1b") {
				t.Fatalf("%q", s)
			}
		}
	})
}

func FuzzMatch(f *testing.F) {
	f.Add("refs/heads/*", "refs/heads/main")
	f.Add("*:*/*", "a:b/c")
	f.Fuzz(func(t *testing.T, glob, text string) {
		if len(glob) > 100 || len(text) > 1000 {
			return
		}
		got := match(glob, text)
		if !strings.Contains(glob, "*") && got != (glob == text) {
			t.Fatalf("match(%q, %q) = %v", glob, text, got)
		}
		if got && strings.Count(glob, "/")+strings.Count(glob, ":") != strings.Count(text, "/")+strings.Count(text, ":") {
			t.Fatalf("match(%q, %q): a * has taken a / or a :", glob, text)
		}
	})
}

func FuzzParsePath(f *testing.F) {
	for _, s := range []string{"a.b", `"a.b".c`, `"`, `a."b`, `"a"b`, "."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		path, err := parsePath(s)
		if err != nil {
			return
		}
		if len(path) == 0 || len(path) > maxDepth {
			t.Fatalf("%q: %q", s, path)
		}
		for _, name := range path {
			if name == "" {
				t.Fatalf("%q: %q", s, path)
			}
		}
	})
}
