package oidc

import (
	"context"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"narwharf/signing/access"
	"narwharf/signing/access/oidc/oidctest"
	"narwharf/signing/access/rule"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const here = "https://cache.example.org"

// clock is one that a test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// site is a server's Issuers, with one that serves.
type site struct {
	*Issuers
	issuer  *oidctest.Issuer
	clock   *clock
	metrics *prometheus.Registry
	alarms  atomic.Int64
	over    atomic.Int64 // times that it was said to work
}

func newRule(t testing.TB, issuer string, s rule.Spec) *rule.Rule {
	t.Helper()
	r, err := rule.New(s, issuer)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func newSite(t testing.TB, change ...func(c *Config)) *site {
	t.Helper()
	is := oidctest.New(t, oidctest.Options{Path: "/api/actions"})
	c := Config{Name: "forge", URL: is.URL, Audience: here, Private: true, Rules: []*rule.Rule{
		newRule(t, is.URL, rule.Spec{Name: "main", Claims: map[string]any{"ref": "refs/heads/main"}, Scopes: []string{"push"}}),
	}}
	for _, fn := range change {
		fn(&c)
	}
	s := &site{issuer: is, clock: &clock{now: time.Now()}, metrics: prometheus.NewRegistry()}
	s.Issuers = New(Options{
		Issuers: []Config{c}, Clock: s.clock.Now, Roots: is.Roots(), Metrics: s.metrics,
		Alarm: func(name, text string) {
			if name != "forge" {
				t.Errorf("an alarm about %q: %q", name, text)
			}
			if text == "" {
				s.over.Add(1)
			} else {
				s.alarms.Add(1)
			}
		},
	})
	t.Cleanup(s.Close)
	return s
}

// good are claims that fit.
func good(change ...map[string]any) map[string]any {
	c := map[string]any{"aud": here, "sub": "repo:octo/web", "ref": "refs/heads/main"}
	for _, more := range change {
		for name, v := range more {
			c[name] = v
		}
	}
	return c
}

// wantReason verifies a JWT, which is refused for a reason; "" if it is good.
func (s *site) wantReason(t testing.TB, what, jwt, want string) {
	t.Helper()
	g, err := s.Verify(t.Context(), jwt)
	if got := reasonOf(err); got != want {
		t.Errorf("%s: %+v, %v; want %q", what, g, err, want)
	}
	if err == nil {
		return
	}
	if len(g.Scopes) > 0 {
		t.Errorf("%s: it gives %s", what, g.Scopes)
	}
	if r := (*Refused)(nil); errors.As(err, &r) {
		if text := r.Error(); len(text) > 200 || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%s: the text is %q", what, text)
		}
	}
}

func reasonOf(err error) string {
	if err == nil {
		return ""
	}
	return reason(err)
}

// metric is the value of a metric that has a label of that value.
func (s *site) metric(t testing.TB, name, label string) float64 {
	t.Helper()
	families, err := s.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == name && l.GetValue() == label {
					return m.GetCounter().GetValue() + m.GetGauge().GetValue()
				}
			}
		}
	}
	return -1
}

// raw makes a JWT by hand.
func raw(header, claims string, sign func(text string) []byte) string {
	text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	return text + "." + base64.RawURLEncoding.EncodeToString(sign(text))
}

func TestVerify(t *testing.T) {
	s := newSite(t)
	for _, alg := range []string{oidctest.RS256, oidctest.ES256, oidctest.ES384, oidctest.EdDSA} {
		s.wantReason(t, alg, s.issuer.Sign(alg, nil, good()), "")
	}
	if n := s.issuer.Asked("/api/actions/jwks"); n != 1 {
		t.Errorf("the keys were asked for %d times", n)
	}
	g, err := s.Verify(t.Context(), s.issuer.Token(good(map[string]any{"exp": s.clock.Now().Unix() + 300})))
	if err != nil || g.Name() != "forge/main" || g.Kind != "oidc" || g.Subject != "repo:octo/web" || g.Scopes.String() != "push" || g.TTL != time.Hour ||
		!g.Ends.Equal(time.Unix(s.clock.Now().Unix()+300, 0).Add(skew)) {
		t.Errorf("%+v, %v", g, err)
	}
	for what, more := range map[string]map[string]any{
		"several audiences":          {"aud": []string{"https://other.example.org", here}},
		"a foreign azp":              {"azp": "104029384756102938475"},
		"just over":                  {"exp": s.clock.Now().Add(-skew + 2*time.Second).Unix()},
		"a moment early":             {"nbf": s.clock.Now().Add(skew - 2*time.Second).Unix(), "iat": s.clock.Now().Add(skew - 2*time.Second).Unix()},
		"no iat":                     {"iat": nil},
		"a time with a fraction":     {"exp": float64(s.clock.Now().Unix()) + 30.5},
		"claims that nobody asks of": {"x": map[string]any{"y": []any{1, nil, true}}},
	} {
		s.wantReason(t, what, s.issuer.Token(good(more)), "")
	}
	// Where there is one key that may have signed it, it need not be named.
	s.wantReason(t, "no kid", s.issuer.Sign(oidctest.ES256, map[string]any{"kid": nil}, good()), "")
}

func TestRefusals(t *testing.T) {
	s, other := newSite(t), newSite(t)
	now := s.clock.Now()
	claims, err := json.Marshal(good(map[string]any{"iss": s.issuer.URL, "exp": now.Add(time.Hour).Unix()}))
	if err != nil {
		t.Fatal(err)
	}
	none := func(string) []byte { return nil }
	some := func(string) []byte { return []byte("signature") }
	rsaID, private := s.issuer.Key(oidctest.RS256)
	public, err := x509.MarshalPKIXPublicKey(private.(*rsa.PrivateKey).Public())
	if err != nil {
		t.Fatal(err)
	}
	hmacBy := func(secret []byte) func(string) []byte {
		return func(text string) []byte {
			m := hmac.New(sha256.New, secret)
			m.Write([]byte(text))
			return m.Sum(nil)
		}
	}
	esID, _ := s.issuer.Key(oidctest.ES256)
	_, otherKey := other.issuer.Key(oidctest.ES256)
	token := s.issuer.Token(good())
	parts := strings.Split(token, ".")
	for _, c := range []struct{ what, jwt, want string }{
		{"nothing", "", "malformed"},
		{"two parts", "a.b", "malformed"},
		{"four parts", token + ".x", "malformed"},
		{"no JSON", "YQ.YQ.YQ", "malformed"},
		{"no signature", parts[0] + "." + parts[1] + ".", "malformed"},
		{"padding", parts[0] + "=." + parts[1] + "." + parts[2], "malformed"},
		{"a list of claims", raw(`{"alg":"ES256"}`, `[]`, some), "malformed"},
		{"null claims", raw(`{"alg":"ES256"}`, `null`, some), "malformed"},
		{"too long", s.issuer.Token(good(map[string]any{"x": strings.Repeat("a", maxToken)})), "malformed"},
		{"a long header", s.issuer.Sign(oidctest.ES256, map[string]any{"x": strings.Repeat("a", maxHeader)}, good()), "malformed"},
		{"none", raw(`{"alg":"none"}`, string(claims), some), "algorithm"},
		{"None", raw(`{"alg":"None"}`, string(claims), some), "algorithm"},
		{"none, without a signature", raw(`{"alg":"none"}`, string(claims), none), "malformed"},
		{"no alg", raw(`{}`, string(claims), some), "algorithm"},
		{"HS256 by the public key, DER", raw(`{"alg":"HS256","kid":"`+rsaID+`"}`, string(claims), hmacBy(public)), "algorithm"},
		{"HS256 by the public key, PEM", raw(`{"alg":"HS256","kid":"`+rsaID+`"}`, string(claims), hmacBy(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))), "algorithm"},
		{"HS256 by the JWKS", raw(`{"alg":"HS256","kid":"`+rsaID+`"}`, string(claims), hmacBy(s.issuer.JWKS())), "algorithm"},
		{"HMAC that says RS256", raw(`{"alg":"RS256","kid":"`+rsaID+`"}`, string(claims), hmacBy(public)), "signature"},
		{"PS256", raw(`{"alg":"PS256"}`, string(claims), some), "algorithm"},
		{"crit", s.issuer.Sign(oidctest.ES256, map[string]any{"crit": []string{"exp"}, "exp": 1}, good()), "crit"},
		{"an empty crit", raw(`{"alg":"ES256","crit":[]}`, string(claims), some), "crit"},
		{"another issuer", other.issuer.Token(good()), "issuer"},
		{"no issuer", s.issuer.Token(good(map[string]any{"iss": nil})), "issuer"},
		{"our issuer with a slash more", s.issuer.Token(good(map[string]any{"iss": s.issuer.URL + "/"})), "issuer"},
		{"another's key", other.issuer.Token(good(map[string]any{"iss": s.issuer.URL})), "signature"}, // names are alike
		{"a key that nobody has", other.issuer.Sign(oidctest.ES256, map[string]any{"kid": "x"}, good(map[string]any{"iss": s.issuer.URL})), "key"},
		{"a key in the header", other.issuer.Sign(oidctest.ES256, map[string]any{"kid": "x", "jwk": jose.JSONWebKey{Key: otherKey.(*ecdsa.PrivateKey).Public()}}, good(map[string]any{"iss": s.issuer.URL})), "key"},
		{"keys elsewhere", raw(`{"alg":"ES256","jku":"https://evil.example.org/","kid":"x"}`, string(claims), some), "key"},
		{"a key of another algorithm", raw(`{"alg":"RS256","kid":"`+esID+`"}`, string(claims), some), "key"},
		{"a changed claim", parts[0] + "." + base64.RawURLEncoding.EncodeToString(claims) + "." + parts[2], "signature"},
		{"another audience", s.issuer.Token(good(map[string]any{"aud": "https://other.example.org"})), "audience"},
		{"an audience that begins like it", s.issuer.Token(good(map[string]any{"aud": here + "/"})), "audience"},
		{"no audience", s.issuer.Token(good(map[string]any{"aud": nil})), "audience"},
		{"an audience that is none", s.issuer.Token(good(map[string]any{"aud": map[string]any{here: here}})), "audience"},
		{"over", s.issuer.Token(good(map[string]any{"exp": now.Add(-skew - time.Second).Unix()})), "expired"},
		{"no end", s.issuer.Token(good(map[string]any{"exp": nil})), "time"},
		{"an end that is a text", s.issuer.Token(good(map[string]any{"exp": "never"})), "time"},
		{"an end that is no time", s.issuer.Token(good(map[string]any{"exp": 1e300})), "time"},
		{"not yet", s.issuer.Token(good(map[string]any{"nbf": now.Add(2 * time.Minute).Unix()})), "time"},
		{"from tomorrow", s.issuer.Token(good(map[string]any{"iat": now.Add(24 * time.Hour).Unix(), "exp": now.Add(25 * time.Hour).Unix()})), "time"},
		{"no rule", s.issuer.Token(good(map[string]any{"ref": "refs/heads/dev"})), "rule"},
	} {
		s.wantReason(t, c.what, c.jwt, c.want)
	}
	s.wantReason(t, "a good one, after all that", token, "")
	if n := s.metric(t, "narwharf_oidc_refused_total", "audience"); n != 4 {
		t.Errorf("%v were refused for their audience", n)
	}
}

// A JWT that was good is so until its end, and no longer: not even from memory.
func TestReplayAfterExpiry(t *testing.T) {
	s := newSite(t)
	token := s.issuer.Token(good(map[string]any{"exp": s.clock.Now().Add(5 * time.Minute).Unix()}))
	s.wantReason(t, "at first", token, "")
	s.clock.add(5*time.Minute + skew - 2*time.Second)
	s.wantReason(t, "just before its end", token, "")
	s.clock.add(3 * time.Second)
	s.wantReason(t, "after its end", token, "expired")
}

// Of a person's JWT, for our client, azp is judged; of others it is not.
func TestClient(t *testing.T) {
	s := newSite(t, func(c *Config) { c.ClientID = "narwharf" })
	for _, c := range []struct {
		what string
		more map[string]any
		want string
	}{
		{"a person's", map[string]any{"aud": "narwharf"}, ""},
		{"with our azp", map[string]any{"aud": "narwharf", "azp": "narwharf"}, ""},
		{"with another's azp", map[string]any{"aud": "narwharf", "azp": "other"}, "azp"},
		{"with an azp that is no text", map[string]any{"aud": "narwharf", "azp": []string{"narwharf"}}, "azp"},
		{"for two, ours authorized", map[string]any{"aud": []string{"narwharf", "other"}, "azp": "narwharf"}, ""},
		{"for two, the other authorized", map[string]any{"aud": []string{"narwharf", "other"}, "azp": "other"}, "azp"},
		{"for two, nobody authorized", map[string]any{"aud": []string{"narwharf", "other"}}, "azp"},
		{"a machine's, with another's azp", map[string]any{"azp": "other"}, ""},
		{"for another client", map[string]any{"aud": "other", "azp": "narwharf"}, "audience"},
	} {
		s.wantReason(t, c.what, s.issuer.Token(good(c.more)), c.want)
	}
	login := func(what, want, name, nonce string, more map[string]any) {
		t.Helper()
		id, err := s.Login(t.Context(), name, s.issuer.Token(good(map[string]any{"aud": "narwharf", "nonce": "n"}, more)), nonce)
		if reasonOf(err) != want || (err == nil) != (id.Rule != nil) {
			t.Errorf("%s: %+v, %v; want %q", what, id, err, want)
		}
	}
	login("a login", "", "forge", "n", nil)
	login("another nonce", "nonce", "forge", "m", nil)
	login("no nonce", "nonce", "forge", "", map[string]any{"nonce": ""})
	login("for the server", "audience", "forge", "n", map[string]any{"aud": here})
	login("another azp", "azp", "forge", "n", map[string]any{"azp": "other"})
	login("another issuer", "audience", "gitlab", "n", nil)
	login("no rule", "rule", "forge", "n", map[string]any{"ref": "x"})
	login("over", "expired", "forge", "n", map[string]any{"exp": 1_000_000_000})
}

func TestTwoIssuers(t *testing.T) {
	one, two := oidctest.New(t, oidctest.Options{}), oidctest.New(t, oidctest.Options{})
	pool := x509.NewCertPool()
	for _, is := range []*oidctest.Issuer{one, two} {
		pool.AppendCertsFromPEM(is.Certificate())
	}
	of := func(name string, is *oidctest.Issuer, scope string) Config {
		return Config{Name: name, URL: is.URL, Audience: here, Private: true, Rules: []*rule.Rule{
			newRule(t, is.URL, rule.Spec{Name: "r", Claims: map[string]any{"sub": "me"}, Scopes: []string{scope}}),
		}}
	}
	s := New(Options{Issuers: []Config{of("one", one, "push"), of("two", two, "promote:prod")}, Roots: pool})
	t.Cleanup(s.Close)
	for is, want := range map[*oidctest.Issuer]string{one: "one/r push", two: "two/r promote:prod"} {
		g, err := s.Verify(t.Context(), is.Token(map[string]any{"aud": here, "sub": "me"}))
		if got := g.Name() + " " + g.Scopes.String(); err != nil || got != want {
			t.Errorf("%s, %v; want %s", got, err, want)
		}
	}
	if g, err := s.Verify(t.Context(), one.Token(map[string]any{"iss": two.URL, "aud": here, "sub": "me"})); reasonOf(err) != "signature" {
		t.Errorf("signed by the other: %+v, %v", g, err)
	}
	if s.Issuer("two").URL != two.URL || s.Issuer("three") != nil || len(s.All()) != 2 {
		t.Error("the issuers by their names")
	}
}

// Shown as it is, a machine's JWT reads; what it gives to who joins is more.
func TestMachine(t *testing.T) {
	s := newSite(t, func(c *Config) {
		c.Rules = []*rule.Rule{newRule(t, c.URL, rule.Spec{Name: "vm", Claims: map[string]any{"sub": "me"}, Scopes: []string{"follow:web"}, HostClaim: "vm"})}
	})
	jwt := s.issuer.Token(good(map[string]any{"sub": "me", "vm": "web-1"}))
	g, err := s.Verify(t.Context(), jwt)
	if err != nil || g.Scopes.String() != "pull" || g.Host != "" {
		t.Errorf("%+v, %v", g, err)
	}
	id, err := s.Judge(t.Context(), jwt)
	if err != nil || id.Grant.Scopes.String() != "follow:web" || id.Grant.Host != "web-1" || id.Grant.Owner != "forge/me" || !id.Rule.Machines() {
		t.Errorf("%+v, %v", id, err)
	}
}

func TestExplain(t *testing.T) {
	s := newSite(t)
	r := s.Explain(t.Context(), s.issuer.Token(good()))
	if r.Issuer != "forge" || r.Problem != "" || r.Rule != "main" || len(r.Rules) != 1 || !r.Rules[0].Fits {
		t.Errorf("%+v", r)
	}
	r = s.Explain(t.Context(), s.issuer.Token(good(map[string]any{"ref": "refs/heads/dev", "exp": 1_000_000_000})))
	if r.Issuer != "forge" || !strings.Contains(r.Problem, "expired") || r.Rule != "" || len(r.Rules) != 1 || r.Rules[0].Differences[0].Claim != "ref" {
		t.Errorf("%+v", r)
	}
	if r = s.Explain(t.Context(), "a.b.c"); r.Issuer != "" || r.Problem == "" || r.Rules != nil {
		t.Errorf("%+v", r)
	}
}

func TestEndpoint(t *testing.T) {
	s := newSite(t)
	e, err := s.Issuer("forge").Endpoint(t.Context())
	if err != nil || e.AuthURL != s.issuer.URL+"/authorize" || e.TokenURL != s.issuer.URL+"/token" || e.DeviceAuthURL != s.issuer.URL+"/device" {
		t.Errorf("%+v, %v", e, err)
	}
	away := newSite(t)
	away.issuer.Serve(func(http.Handler) http.Handler { return http.NotFoundHandler() })
	if _, err := away.Issuer("forge").Endpoint(t.Context()); !errors.Is(err, access.ErrUnchecked) {
		t.Errorf("of an issuer that is away: %v", err)
	}
}

var _ access.Verifier = (*Issuers)(nil)

func FuzzParse(f *testing.F) {
	f.Add("a.b.c")
	f.Add(raw(`{"alg":"ES256","kid":"x"}`, `{"iss":"https://a","aud":["b",1],"exp":1.5e9}`, func(string) []byte { return []byte("s") }))
	f.Add(raw(`{"alg":"ES256","crit":null}`, `{"exp":-1}`, func(string) []byte { return []byte("s") }))
	s := New(Options{Issuers: []Config{{Name: "a", URL: "https://a.invalid", Audience: "b"}}})
	f.Cleanup(s.Close)
	f.Fuzz(func(t *testing.T, jwt string) {
		tok, refused := parse(jwt)
		if (tok == nil) == (refused == nil) {
			t.Fatal("neither, or both")
		}
		if tok != nil && tok.issuer == "https://a.invalid" {
			return // it would be asked
		}
		g, err := s.Verify(context.Background(), jwt)
		if err == nil || len(err.Error()) > 200 {
			t.Fatalf("%+v, %v", g, err)
		}
	})
}
