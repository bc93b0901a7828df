package people

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/api/login"
	"narwharf/hooks/dashboard/frame/frametest"
)

// made are credentials that are made up.
type made struct {
	tokens  []Token
	rules   []Rule
	revoked []string
	fails   error
}

func (m *made) Tokens(context.Context) ([]Token, error) { return slices.Clone(m.tokens), nil }
func (m *made) Rules() []Rule                           { return m.rules }
func (m *made) Revoke(_ context.Context, id string) error {
	m.revoked = append(m.revoked, id)
	return m.fails
}
func (m *made) RevokeRule(_ context.Context, name string) error {
	m.revoked = append(m.revoked, name)
	return m.fails
}

func sample() *made {
	ends := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	return &made{tokens: []Token{
		{ID: "aaa", Name: "ci", State: "active", Scopes: []string{"promote:web"}, Expires: &ends, By: "root"},
		{ID: "bbb", Name: "old", State: "revoked", Scopes: []string{"push"}},
		{ID: "ccc", Name: "ssh/web-1", State: "active", Scopes: []string{"follow:web"}, Host: "web-1", Kind: "ssh", Subject: "SHA256:x"},
		{ID: "ddd", Name: "join-web", State: "active", Uses: 3, Used: 1},
	}, rules: []Rule{{Name: "github/main", Claims: []string{"repository = octo/web"}, Scopes: []string{"promote:web"}, TTL: time.Hour}}}
}

func world(t *testing.T, m *made, scopes ...string) *frametest.World {
	w := frametest.New(t, scopes, Room(m))
	w.API["GET /api/v1/sessions"] = map[string]any{"sessions": []login.Session{{ID: "s1", Name: "idp/ops", Subject: "ada", From: "192.0.2.1 Firefox"}, {ID: "s2", This: true}}}
	return w
}

// TestAccess: lists, filters, and what is for admins alone.
func TestAccess(t *testing.T) {
	m := sample()
	w := world(t, m, "admin")
	a := w.See("/ui/access", "promote:web", "/ui/access/tokens/aaa/revoke", `href="/ui/hosts/web-1"`, "1 of 3 uses", "/ui/access/rules/github/main/revoke", "repository = octo/web", "/ui/access/sessions/s1/end", "narwharf token new")
	if strings.Contains(a.Text, "bbb") || strings.Contains(a.Text, "/sessions/s2/end") {
		t.Errorf("%s", a.Text)
	}
	w.See("/ui/access?all=1", "bbb", "revoked")
	w.Absent("/ui/access?all=1", "/ui/access/tokens/bbb/revoke")
	w.Absent("/ui/access?q=web-1", "aaa")
	w.See("/ui/access?q=WEB-1&sort=-expires", "ccc", `aria-sort="descending"`)
	for range 250 {
		m.tokens = append(m.tokens, Token{ID: "x", Name: "many", State: "active"})
	}
	w.See("/ui/access?page=2", "101–200 of 253")
	for _, scopes := range [][]string{{"operate"}, {"read:*"}, {"pull"}} {
		if got := world(t, m, scopes...).Get("/ui/access"); got.Status == 200 {
			t.Errorf("%v may look", scopes)
		}
		if world(t, m, scopes...).Post("/ui/access/tokens/aaa/revoke", nil); len(m.revoked) > 0 {
			t.Errorf("%v may revoke", scopes)
		}
	}
}

// TestRevoke: after a confirmation that says what will happen.
func TestRevoke(t *testing.T) {
	m := sample()
	w := world(t, m, "admin")
	w.See("/ui/access/tokens/ccc/revoke", "host web-1 has to join again", "ssh/web-1 (ccc)")
	w.See("/ui/access/tokens/bbb/revoke", "It is revoked already.")
	w.See("/ui/access/rules/github/main/revoke", "github/main")
	w.See("/ui/access/sessions/s1/end", "idp/ops (ada)", "Firefox")
	for _, path := range []string{"/ui/access/tokens/none/revoke", "/ui/access/rules/a/b/revoke", "/ui/access/sessions/none/end"} {
		if got := w.Get(path); got.Status != 404 {
			t.Errorf("%s: %d", path, got.Status)
		}
	}
	for _, path := range []string{"/ui/access/tokens/ccc/revoke", "/ui/access/rules/github/main/revoke", "/ui/access/sessions/s1/end"} {
		if got := w.Post(path, nil); got.Status != 303 || got.To != "/ui/access" {
			t.Errorf("%s: %+v", path, got)
		}
	}
	if !slices.Equal(m.revoked, []string{"ccc", "github/main"}) || !slices.Equal(w.Sent, []string{"DELETE /api/v1/sessions/s1"}) {
		t.Errorf("%q %q", m.revoked, w.Sent)
	}
	m.fails = api.Errorf(api.NotFound, "it is gone")
	if got := w.Post("/ui/access/tokens/ccc/revoke", nil); got.Status != 404 || !strings.Contains(got.Text, "it is gone") {
		t.Errorf("%+v", got)
	}
}

// TestNasties: whatever names, subjects and browsers say.
func TestNasties(t *testing.T) {
	m := sample()
	w := world(t, m, "admin")
	w.Nasties("/ui/access?all=1", func(text string) {
		s := login.Session{}
		frametest.Fill(&m.tokens, text, nil)
		frametest.Fill(&m.rules, text, nil)
		frametest.Fill(&s, text, nil)
		w.API["GET /api/v1/sessions"] = map[string]any{"sessions": []login.Session{s}}
	})
}
