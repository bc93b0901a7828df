package dashboard

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"narwharf/signing/access"
)

// TestLoginByCode: at the issuer, back again, who one is, and out.
func TestLoginByCode(t *testing.T) {
	w := newWorld(t, "")
	b := w.browser()
	if got := b.get("/ui/"); got.path != "/ui/login" || got.status != 200 || !strings.Contains(got.text, `href="/ui/login/idp?next=%2fui%2f"`) {
		t.Fatalf("%s", got)
	}
	got := b.get("/ui/login/idp?next=%2fui%2f")
	if got.path != "/ui/" || got.status != 200 || !strings.Contains(got.text, "idp/ops (alice)") || !strings.Contains(got.text, "<code>operate</code>") {
		t.Fatalf("%s", got)
	}
	cookie, who := b.session()
	if cookie == nil || !strings.HasPrefix(cookie.Name, "__Host-narwharf-session-") || who.Name != "idp/ops" || who.Grant.Kind != "session" || who.Host != "" {
		t.Fatalf("%v %+v", cookie, who)
	}
	// It was set as it has to be.
	again := w.browser()
	again.follow = false
	again.post("/ui/login", url.Values{"token": {w.token("t", "pull")}})
	set := again.post("/ui/login", url.Values{"token": {w.token("u", "pull")}}).header.Get("Set-Cookie")
	for _, has := range []string{"; Path=/;", "; HttpOnly;", "; Secure;", "; SameSite=Lax"} {
		if !strings.Contains(set, has) || strings.Contains(set, "Domain") {
			t.Errorf("the cookie is set as %s", set)
		}
	}
	if got := b.post("/ui/logout", nil); got.path != "/ui/login" || b.loggedIn() {
		t.Errorf("after logging out: %s", got)
	}
	req := httptest.NewRequestWithContext(t.Context(), "GET", w.url, nil)
	req.AddCookie(cookie)
	if who := w.auth.Identify(req); who.Credential != access.Unknown {
		t.Errorf("the cookie of an ended session is worth %+v", who)
	}
}

// back is the URL to which the issuer sends a browser that logs in there.
func (b *window) back(next string) *url.URL {
	b.w.t.Helper()
	b.follow = false
	there := b.get("/ui/login/idp?next=" + url.QueryEscape(next))
	req, err := http.NewRequestWithContext(b.w.t.Context(), "GET", there.header.Get("Location"), nil)
	if err != nil {
		b.w.t.Fatal(err)
	}
	back, err := url.Parse(b.do(req).header.Get("Location"))
	if err != nil || back.Query().Get("state") == "" {
		b.w.t.Fatalf("%s: %v", back, err)
	}
	b.follow = true
	return back
}

// TestLoginRefused: what is not the answer to this browser's login gives no session.
func TestLoginRefused(t *testing.T) {
	for name, c := range map[string]struct {
		person map[string]any
		edit   func(w *world, b *window, q url.Values)
		words  string
		status int
	}{
		"wrong state":     {edit: func(_ *world, _ *window, q url.Values) { q.Set("state", "x") }, words: "another login"},
		"no state":        {edit: func(_ *world, _ *window, q url.Values) { q.Del("state") }, words: "another login"},
		"another browser": {edit: func(w *world, b *window, _ url.Values) { b.client.Jar = w.browser().client.Jar }, words: "another browser"},
		"another issuer":  {edit: func(_ *world, _ *window, q url.Values) { q.Set("iss", "https://evil.example.org") }, words: "another issuer"},
		"a made-up code":  {edit: func(_ *world, _ *window, q url.Values) { q.Set("code", "x") }, words: "invalid_grant"},
		"no code":         {edit: func(_ *world, _ *window, q url.Values) { q.Del("code") }, words: "did not log you in"},
		"refused there":   {edit: func(_ *world, _ *window, q url.Values) { q.Del("code"); q.Set("error", "access_denied") }, words: "access_denied"},
		"words of others": {edit: func(_ *world, _ *window, q url.Values) { q.Set("error", "<b>Call 555</b>") }, words: "did not log you in"},
		"too late":        {edit: func(w *world, _ *window, _ url.Values) { w.ahead.Add(int64(11 * time.Minute)) }, words: "is over"},
		"wrong azp":       {person: map[string]any{"sub": "alice", "email": "a@example.org", "azp": "other"}, words: "client"},
		"wrong aud":       {person: map[string]any{"sub": "alice", "email": "a@example.org", "aud": "other"}, words: "client"},
		"wrong nonce":     {person: map[string]any{"sub": "alice", "email": "a@example.org", "nonce": "other"}, words: "log in again"},
		"no rule":         {person: map[string]any{"sub": "mallory", "email": "mallory@evil.example"}, words: "rule"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "")
			if c.person != nil {
				w.issuer.Person(c.person)
			}
			b := w.browser()
			back := b.back("/ui/")
			q := back.Query()
			if c.edit != nil {
				c.edit(w, b, q)
			}
			got := b.get(back.Path + "?" + q.Encode())
			if got.status != 403 || !strings.Contains(got.text, c.words) || strings.Contains(got.text, "555") || b.loggedIn() {
				t.Errorf("%s, logged in: %v", got, b.loggedIn())
			}
		})
	}
}

// TestReplayedCode: an answer counts once, also with the cookie put back.
func TestReplayedCode(t *testing.T) {
	w := newWorld(t, "")
	b := w.browser()
	back := b.back("/ui/")
	at, err := url.Parse(w.url)
	if err != nil {
		t.Fatal(err)
	}
	kept := b.client.Jar.Cookies(at)
	if got := b.get(back.RequestURI()); got.status != 200 || !b.loggedIn() {
		t.Fatalf("%s", got)
	}
	thief := w.browser()
	if got := thief.get(back.RequestURI()); got.status != 403 || !strings.Contains(got.text, "another browser") {
		t.Errorf("without the cookie: %s", got)
	}
	thief.client.Jar.SetCookies(at, kept)
	if got := thief.get(back.RequestURI()); got.status != 403 || !strings.Contains(got.text, "invalid_grant") || thief.loggedIn() {
		t.Errorf("with it: %s", got)
	}
}

// TestIssuerAway: the page says so, and no more.
func TestIssuerAway(t *testing.T) {
	w := newWorld(t, "")
	w.issuer.Serve(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "down", http.StatusBadGateway) })
	})
	b := w.browser()
	if got := b.get("/ui/login/idp"); got.status != 503 || strings.Contains(got.text, "down") || b.loggedIn() {
		t.Errorf("%s", got)
	}
	if got := b.get("/ui/login/other"); got.status != 403 || !strings.Contains(got.text, "no issuer of that name") {
		t.Errorf("%s", got)
	}
}

// TestLoginByToken: a token is shown once; the session ends with it, and is no way to another.
func TestLoginByToken(t *testing.T) {
	w := newWorld(t, "")
	secret := w.token("ada", "operate")
	b := w.browser()
	for name, bad := range map[string]string{"none": "", "made up": "nwt_x", "cut short": secret[:40]} {
		if got := b.post("/ui/login", url.Values{"token": {bad}}); got.status != 403 || !strings.Contains(got.text, "no token of this server") || b.loggedIn() {
			t.Errorf("%s: %s", name, got)
		}
	}
	if got := b.post("/ui/login", url.Values{"token": {" " + secret + "\n"}}); got.status != 200 || got.path != "/ui/" || !strings.Contains(got.text, "session/ada") || strings.Contains(got.text, secret) {
		t.Fatalf("%s", got)
	}
	cookie, who := b.session()
	if who.Credential != access.Valid || cookie.Value == secret {
		t.Fatalf("%+v", who)
	}
	if got := w.browser().post("/ui/login", url.Values{"token": {cookie.Value}}); got.status != 403 {
		t.Errorf("a session for a session: %s", got)
	}
	if got := w.browser().get("/ui/login?token=" + secret); got.path != "/ui/login" || strings.Contains(got.text, secret) {
		t.Errorf("a token in the URL: %s", got)
	}
	if _, err := w.tokens.Revoke(t.Context(), "ada", w.now()); err != nil {
		t.Fatal(err)
	}
	if b.loggedIn() {
		t.Error("the session outlives its token")
	}
	if got := b.get("/ui/"); got.path != "/ui/login" {
		t.Errorf("%s", got)
	}
}

// TestFixation: a session that somebody has put into the browser is not the one after the login, and a
// login ends the one before.
func TestFixation(t *testing.T) {
	w := newWorld(t, "")
	mallory, b := w.browser(), w.browser()
	mallory.post("/ui/login", url.Values{"token": {w.token("mallory", "pull")}})
	planted, _ := mallory.session()
	at, err := url.Parse(w.url)
	if err != nil {
		t.Fatal(err)
	}
	b.client.Jar.SetCookies(at, []*http.Cookie{{Name: planted.Name, Value: planted.Value, Path: "/", Secure: true}})
	b.post("/ui/login", url.Values{"token": {w.token("ada", "operate")}})
	cookie, who := b.session()
	if who.Name != "session/ada" || cookie.Value == planted.Value {
		t.Errorf("%+v", who)
	}
	if mallory.loggedIn() {
		t.Error("the planted session goes on")
	}
}

// TestMadeUpCodes: whoever has the server ask an issuer about codes that he has thought up can do so a few times, and
// what comes without a login that was begun costs nobody anything.
func TestMadeUpCodes(t *testing.T) {
	w := newWorld(t, "")
	for range 50 {
		if got := w.browser().get("/ui/callback?state=x&code=x"); got.status != 403 {
			t.Fatalf("without a cookie: %s", got)
		}
	}
	last := 0
	for i := 1; i <= 20 && last != 503; i++ {
		b := w.browser()
		back := b.back("/ui/")
		q := back.Query()
		q.Set("code", "x")
		got := b.get(back.Path + "?" + q.Encode())
		if last = got.status; last == 503 && (i < 5 || !strings.Contains(got.text, "try again in a minute")) {
			t.Errorf("the %dth: %s", i, got)
		}
	}
	if last != 503 {
		t.Errorf("the last made-up code is answered with %d", last)
	}
}
