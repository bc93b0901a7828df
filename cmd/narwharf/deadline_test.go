package main

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"narwharf/hooks/dashboard"
	"narwharf/hooks/fleetlock"
	"narwharf/signing/access"
	"narwharf/signing/access/oidc"
	people "narwharf/signing/access/session"
)

// taker is a connection that knows until when it is waited for.
type taker struct {
	*httptest.ResponseRecorder
	until time.Time
}

// SetWriteDeadline is what http.ResponseController looks for.
func (c *taker) SetWriteDeadline(t time.Time) error {
	c.until = t
	return nil
}

// TestAnswersHaveDeadlines: net/http sends what is left of an answer when its handler has returned. Whoever
// asks for much and reads nothing is not waited for without end, at whatever URL, known or not.
func TestAnswersHaveDeadlines(t *testing.T) {
	m := newMatrix(t)
	page := dashboard.New(dashboard.Options{
		Access: access.NewAuthenticator(access.Options{Tokens: m.dir.Tokens}), Log: slog.New(slog.DiscardHandler), Clock: time.Now, API: m.handler, Logins: &people.Logins{Issuers: oidc.New(oidc.Options{})},
	})
	ask := func(h http.Handler, method, path, body, token string) {
		req := httptest.NewRequest(method, path, strings.NewReader(body))
		req.Host = "127.0.0.1"
		req.Header.Set(fleetlock.Header, "true")
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		c := &taker{ResponseRecorder: httptest.NewRecorder()}
		h.ServeHTTP(c, req)
		if left := time.Until(c.until); left < time.Second || left > 3*time.Minute {
			t.Errorf("%s %s: %d, and a deadline in %s", method, path, c.Code, left)
		}
	}
	for _, g := range m.targets() {
		if !strings.HasSuffix(g.name, "-delete") {
			ask(m.handler, g.method, g.path, g.body, m.admin)
		}
		ask(m.handler, g.method, g.path, g.body, "")
	}
	for _, path := range []string{"/nothing", "/api/v1/nothing", "/fleetlock/v1/nothing", "/api/v1/challenge", "/nar/x", "/lan/", "/lan/nothing"} {
		for _, method := range []string{"GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"} {
			ask(m.handler, method, path, "{}", "")
		}
	}
	for _, path := range []string{"/ui", "/ui/", "/ui/login", "/ui/me", "/ui/style.css", "/ui/page.js", "/ui/nothing", "/ui/login/x", "/ui/callback", "/ui/live?view=/ui/"} {
		for _, method := range []string{"GET", "HEAD", "POST", "DELETE"} {
			for _, token := range []string{"", m.admin} {
				ask(page, method, path, "token=x", token)
			}
		}
	}
}
