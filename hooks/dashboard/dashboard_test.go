package dashboard

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"narwharf/cache/state/memory"
	"narwharf/hooks/dashboard/frame"
	"narwharf/signing/access"
	"narwharf/signing/access/oidc"
	"narwharf/signing/access/oidc/oidctest"
	"narwharf/signing/access/rule"
	"narwharf/signing/access/scope"
	"narwharf/signing/access/session"
	"narwharf/signing/access/shortlived"
	"narwharf/signing/browser"
)

// world is a page, an issuer, and browsers.
type world struct {
	t       *testing.T
	ahead   atomic.Int64 // of the real time
	issuer  *oidctest.Issuer
	issuers *oidc.Issuers
	tokens  *access.Tokens
	auth    *access.Authenticator
	srv     *httptest.Server
	url     string
	cookies session.Cookies
}

var ops = map[string]any{"sub": "alice", "email": "alice@example.org"}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }

// newWorld makes a page at an https URL, or one of plain http at public.
func newWorld(t *testing.T, public string) *world {
	t.Helper()
	w := &world{t: t}
	w.srv = httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	if w.url = "https://" + w.srv.Listener.Addr().String(); public != "" {
		w.url = "http://" + w.srv.Listener.Addr().String()
	} else {
		public = w.url
	}
	at, err := url.Parse(public)
	if err != nil {
		t.Fatal(err)
	}
	w.cookies = session.Cookies{Public: at}
	w.issuer = oidctest.New(t, oidctest.Options{Clients: []oidctest.Client{{ID: "narwharf", Secret: "s3cret", Redirects: []string{public + session.Callback}}}})
	w.issuer.Person(ops)
	role, err := rule.New(rule.Spec{Name: "ops", Claims: map[string]any{"email": "*@example.org"}, Scopes: []string{"operate", "read:*"}}, w.issuer.URL)
	if err != nil {
		t.Fatal(err)
	}
	w.issuers = oidc.New(oidc.Options{Log: slog.New(slog.DiscardHandler), Roots: w.issuer.Roots(), Clock: w.now, Issuers: []oidc.Config{
		{Name: "idp", URL: w.issuer.URL, Audience: public, ClientID: "narwharf", Private: true, Rules: []*rule.Rule{role}},
	}})
	t.Cleanup(w.issuers.Close)
	st := memory.New(w.now)
	if w.tokens, _, err = access.Open(t.Context(), st, filepath.Join(t.TempDir(), "tokens")); err != nil {
		t.Fatal(err)
	}
	short, err := shortlived.Open(st, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	sessions := session.New(short, w.tokens)
	w.auth = access.NewAuthenticator(access.Options{
		Tokens: w.tokens, Short: sessions, JWT: w.issuers, Session: w.cookies.Secret, Clock: w.now, Guards: []access.Guard{browser.Guard(at, nil)},
	})
	w.srv.Config.Handler = New(Options{
		Access: w.auth, Sessions: sessions, Cookies: w.cookies, Log: slog.New(slog.DiscardHandler), Clock: w.now,
		Logins: &session.Logins{Issuers: w.issuers, Public: at, Secret: func(string) (string, error) { return "s3cret", nil }},
	})
	if strings.HasPrefix(w.url, "https") {
		w.srv.StartTLS()
	} else {
		w.srv.Start()
	}
	t.Cleanup(w.srv.Close)
	return w
}

func (w *world) token(name string, scopes ...string) (secret string) {
	w.t.Helper()
	set, err := scope.ParseSet(scopes)
	if err != nil {
		w.t.Fatal(err)
	}
	secret, tok, err := access.New(name, "", set, w.now(), time.Time{})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.tokens.Add(w.t.Context(), tok); err != nil {
		w.t.Fatal(err)
	}
	return secret
}

// window is a browser, with its cookies.
type window struct {
	w      *world
	client *http.Client
	follow bool // redirects
}

func (w *world) browser() *window {
	w.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(w.issuer.Certificate())
	if c := w.srv.Certificate(); c != nil {
		pool.AddCert(c)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	w.t.Cleanup(transport.CloseIdleConnections)
	b := &window{w: w, follow: true}
	b.client = &http.Client{Jar: jar, Transport: transport, Timeout: 20 * time.Second, CheckRedirect: func(_ *http.Request, via []*http.Request) error {
		if !b.follow || len(via) > 9 {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	return b
}

// seen is what a browser shows.
type seen struct {
	status int
	path   string // where it is
	text   string
	header http.Header
}

func (s seen) String() string { return fmt.Sprintf("%d %s %s", s.status, s.path, s.text) }

func (b *window) do(req *http.Request) seen {
	b.w.t.Helper()
	resp, err := b.client.Do(req)
	if err != nil {
		b.w.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.w.t.Fatal(err)
	}
	s := seen{resp.StatusCode, resp.Request.URL.Path, string(text), resp.Header}
	if challenge := resp.Header.Get("WWW-Authenticate"); challenge != "" || strings.Contains(s.text, "style=") || strings.Count(s.text, "<script") != strings.Count(s.text, `<script src="/ui/page.js?v=`) {
		b.w.t.Errorf("%s has a challenge (%s), a style attribute or a script of its own", s, challenge)
	}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") && resp.Request.URL.Host == b.w.srv.Listener.Addr().String() &&
		(resp.Header.Get("Content-Security-Policy") != frame.Policy || resp.Header.Get("X-Content-Type-Options") != "nosniff") {
		b.w.t.Errorf("%s has the headers %v", s, resp.Header)
	}
	return s
}

func (b *window) get(path string) seen {
	b.w.t.Helper()
	req, err := http.NewRequestWithContext(b.w.t.Context(), "GET", b.w.url+path, nil)
	if err != nil {
		b.w.t.Fatal(err)
	}
	return b.do(req)
}

func (b *window) post(path string, form url.Values, header ...string) seen {
	b.w.t.Helper()
	req, err := http.NewRequestWithContext(b.w.t.Context(), "POST", b.w.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		b.w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return b.do(req)
}

// session is the browser's, and what it is worth.
func (b *window) session() (cookie *http.Cookie, who access.Principal) {
	b.w.t.Helper()
	at, err := url.Parse(b.w.url)
	if err != nil {
		b.w.t.Fatal(err)
	}
	req := httptest.NewRequestWithContext(context.Background(), "GET", b.w.url+"/", nil)
	for _, c := range b.client.Jar.Cookies(at) {
		if req.AddCookie(c); strings.Contains(c.Name, "-session-") {
			cookie = c
		}
	}
	return cookie, b.w.auth.Identify(req)
}

func (b *window) loggedIn() bool { _, who := b.session(); return who.Credential == access.Valid }

// TestOpenRedirects: next is a path of the page, or nothing.
func TestOpenRedirects(t *testing.T) {
	for next, want := range map[string]string{
		"": "/ui/", "/ui/": "/ui/", "/ui/hosts?x=1": "/ui/hosts?x=1", "https://evil.example.org/ui/": "/ui/", "//evil.example.org/ui/": "/ui/", "/\\evil.example.org": "/ui/",
		"/ui//evil.example.org": "/ui/", "/ui/../api/v1/gc": "/ui/", "/ui/%2e%2e/x": "/ui/", "javascript:alert(1)": "/ui/", "/api/v1/gc": "/ui/", "/ui/\r\nSet-Cookie: a=b": "/ui/", "/ui/\\..\\": "/ui/", "/uix": "/ui/",
	} {
		if got := frame.Local(next); got != want {
			t.Errorf("%q leads to %s", next, got)
		}
	}
	w := newWorld(t, "")
	b := w.browser()
	b.follow = false
	got := b.post("/ui/login", url.Values{"token": {w.token("ada", "operate")}, "next": {"https://evil.example.org/"}})
	if got.header.Get("Location") != "/ui/" {
		t.Errorf("%v", got.header)
	}
	b.follow = true
	if got := b.get(b.back("//evil.example.org/").RequestURI()); got.path != "/ui/" {
		t.Errorf("%s", got)
	}
}

// TestOtherOrigins: no page of others logs somebody in or out, or changes anything by a session.
func TestOtherOrigins(t *testing.T) {
	w := newWorld(t, "")
	b := w.browser()
	form := url.Values{"token": {w.token("ada", "admin")}}
	for _, header := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Sec-Fetch-Site", "", "Origin", "https://evil.example.org"}, {"Sec-Fetch-Site", "", "Origin", "null"}} {
		if got := b.post("/ui/login", form, header...); got.status != 403 || b.loggedIn() {
			t.Errorf("%v: %s", header, got)
		}
	}
	b.post("/ui/login", form, "Sec-Fetch-Site", "", "Origin", w.url) // an older browser
	if !b.loggedIn() {
		t.Fatal("not logged in")
	}
	if got := b.post("/ui/logout", nil, "Sec-Fetch-Site", "cross-site"); got.status != 403 || !b.loggedIn() {
		t.Errorf("logged out by another page: %s", got)
	}
	cookie, _ := b.session()
	req := httptest.NewRequestWithContext(t.Context(), "DELETE", w.url+"/api/v1/channels/web", nil)
	req.AddCookie(cookie)
	for site, want := range map[string]int{"cross-site": 403, "same-origin": 0} {
		req.Header.Set("Sec-Fetch-Site", site)
		who, status := w.auth.Identify(req), 0
		if d := who.Deny(scope.Scope{Kind: scope.Admin}); d != nil {
			status = d.Status
		}
		if status != want {
			t.Errorf("a write of the API by a session, %s: %d", site, status)
		}
	}
}

// TestNoTLS: over http only this machine can log in.
func TestNoTLS(t *testing.T) {
	w := newWorld(t, "http://cache.lan")
	b := w.browser()
	if got := b.get("/ui/login"); got.status != 403 || !strings.Contains(got.text, "needs https") || strings.Contains(got.text, "<form") {
		t.Errorf("%s", got)
	}
	for _, got := range []seen{b.post("/ui/login", url.Values{"token": {w.token("ada", "operate")}}), b.get("/ui/login/idp")} {
		if got.status != 403 || !strings.Contains(got.text, "needs https") || got.header.Get("Set-Cookie") != "" {
			t.Errorf("%s", got)
		}
	}
	w = newWorld(t, "http://localhost:1")
	b = w.browser()
	if got := b.post("/ui/login", url.Values{"token": {w.token("ada", "operate")}}); got.path != "/ui/" || !b.loggedIn() {
		t.Errorf("%s", got)
	}
	if cookie, _ := b.session(); !strings.HasPrefix(cookie.Name, "narwharf-session-") {
		t.Errorf("%v", cookie)
	}
}

// TestSessions: the list is of one person, who ends one, or all of them, and no other's.
func TestSessions(t *testing.T) {
	w := newWorld(t, "")
	first, second, other := w.browser(), w.browser(), w.browser()
	first.get("/ui/login/idp")
	second.get("/ui/login/idp")
	w.issuer.Person(map[string]any{"sub": "bob", "email": "bob@example.org"})
	other.get("/ui/login/idp")
	list := first.get("/ui/")
	ids := regexp.MustCompile(`name="session" value="(\w+)"`).FindAllStringSubmatch(list.text, -1)
	if len(ids) != 2 || ids[1][1] != "all" || strings.Count(list.text, "this one") != 1 {
		t.Fatalf("%s", list)
	}
	_, bob := other.session()
	first.post("/ui/logout", url.Values{"session": {bob.TokenID}})
	if !other.loggedIn() || !second.loggedIn() {
		t.Fatal("another's session was ended")
	}
	if got := first.post("/ui/logout", url.Values{"session": {ids[0][1]}}); got.path != "/ui/me" || second.loggedIn() || !first.loggedIn() {
		t.Errorf("%s", got)
	}
	second.get("/ui/login/idp") // as bob, by now
	w.issuer.Person(ops)
	third := w.browser()
	third.get("/ui/login/idp")
	if got := first.post("/ui/logout", url.Values{"session": {"all"}}); got.path != "/ui/login" || first.loggedIn() || third.loggedIn() || !second.loggedIn() || !other.loggedIn() {
		t.Errorf("%s", got)
	}
}

// TestAdminEndsSessions: an admin sees all sessions, and ends any.
func TestAdminEndsSessions(t *testing.T) {
	w := newWorld(t, "")
	b, admin := w.browser(), w.browser()
	b.get("/ui/login/idp")
	if got := admin.post("/ui/login", url.Values{"token": {w.token("root", "admin")}}); !strings.Contains(got.text, "idp/ops (alice)") {
		t.Fatalf("%s", got)
	}
	_, who := b.session()
	if got := b.get("/ui/"); strings.Contains(got.text, "root") {
		t.Errorf("others are shown to who is no admin: %s", got)
	}
	if got := admin.post("/ui/logout", url.Values{"session": {who.TokenID}}); got.path != "/ui/me" || b.loggedIn() || !admin.loggedIn() {
		t.Errorf("%s", got)
	}
}

// TestSessionEnds: unused it ends after an hour; used it goes on, and not for more than twelve.
func TestSessionEnds(t *testing.T) {
	w := newWorld(t, "")
	b := w.browser()
	b.get("/ui/login/idp")
	w.ahead.Add(int64(61 * time.Minute))
	if got := b.get("/ui/"); got.path != "/ui/login" || b.loggedIn() {
		t.Errorf("an hour later: %s", got)
	}
	b.post("/ui/login", url.Values{"token": {w.token("ada", "operate")}})
	began := w.now()
	for w.now().Sub(began) < 11*time.Hour {
		w.ahead.Add(int64(40 * time.Minute))
		if got := b.get("/ui/"); got.path != "/ui/" {
			t.Fatalf("after %v: %s", w.now().Sub(began), got)
		}
	}
	w.ahead.Add(int64(41 * time.Minute))
	if got := b.get("/ui/"); got.path != "/ui/login" {
		t.Errorf("after %v: %s", w.now().Sub(began), got)
	}
}

// TestSessionsHaveABound: the twenty-first of a person ends the one that would end first.
func TestSessionsHaveABound(t *testing.T) {
	w := newWorld(t, "")
	secret := w.token("ada", "operate")
	var all []*window
	for range 21 {
		b := w.browser()
		b.post("/ui/login", url.Values{"token": {secret}})
		all = append(all, b)
		w.ahead.Add(int64(time.Second))
	}
	for i, b := range all {
		if b.loggedIn() != (i > 0) {
			t.Errorf("session %d: %v", i, b.loggedIn())
		}
	}
}

// TestCookiesOfOthers: another server of the same host has cookies of other names, and a second one of
// a name is nobody's.
func TestCookiesOfOthers(t *testing.T) {
	one, two := newWorld(t, ""), newWorld(t, "")
	b := one.browser()
	b.post("/ui/login", url.Values{"token": {one.token("ada", "operate")}})
	mine, _ := b.session()
	c := two.browser()
	c.client.Jar = b.client.Jar // the host is the same
	if got := c.post("/ui/login", url.Values{"token": {two.token("ada", "operate")}}); got.path != "/ui/" || !b.loggedIn() || !c.loggedIn() {
		t.Errorf("%s", got)
	}
	req := httptest.NewRequestWithContext(t.Context(), "GET", one.url, nil)
	req.AddCookie(mine)
	req.AddCookie(&http.Cookie{Name: mine.Name, Value: "nwt_another"})
	if got := one.cookies.Secret(req); got != "" {
		t.Error("one of two cookies of a name is taken")
	}
	req = httptest.NewRequestWithContext(t.Context(), "GET", one.url, nil)
	req.AddCookie(&http.Cookie{Name: strings.TrimPrefix(mine.Name, "__Host-"), Value: mine.Value})
	if got := one.cookies.Secret(req); got != "" {
		t.Error("a cookie that any page of the host could set is taken")
	}
}

// TestForms: what is no form, or too long, is said so.
func TestForms(t *testing.T) {
	w := newWorld(t, "")
	b := w.browser()
	if got := b.post("/ui/login", url.Values{"token": {strings.Repeat("x", 20<<10)}}); got.status != 413 {
		t.Errorf("%s", got)
	}
	req, err := http.NewRequestWithContext(t.Context(), "POST", w.url+"/ui/login", strings.NewReader("%zz=1"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if got := b.do(req); got.status != 400 {
		t.Errorf("%s", got)
	}
	for path, want := range map[string]int{"/ui/style.css": 200, "/ui": 200, "/ui/nothing": 404, "/ui/logout": 405} {
		if got := b.get(path); got.status != want {
			t.Errorf("%s: %s", path, got)
		}
	}
}
