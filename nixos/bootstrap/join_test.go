package bootstrap

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"narwharf/signing/access"
	"narwharf/signing/access/scope"
)

// TestCheckJoinToken: join tokens show that they are; of one that an older narwharf made the
// server tells, and of no other token is a script made.
func TestCheckJoinToken(t *testing.T) {
	now := time.Now()
	join, _, err := access.NewJoin("j", "web", "", 1, now, now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := access.New("ci", "", scope.Set{{Kind: scope.Push}}, now, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	var status int
	var body string
	asked := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		if r.Header.Get("Authorization") != "Bearer "+other {
			t.Errorf("it was asked with %q", r.Header.Get("Authorization"))
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	defer srv.Close()
	check := func(token string) error {
		return (&Script{Channel: "web", Server: srv.URL, JoinToken: token}).CheckJoinToken(t.Context(), "")
	}
	if err := check(join); err != nil || asked != 0 {
		t.Errorf("a join token: %v, asked %d times", err, asked)
	}
	for name, c := range map[string]struct {
		status     int
		body, want string
	}{
		"of an older narwharf": {403, `{"kind":"forbidden","message":"this needs the scope operate; the token \"j\" has join:web only: make one"}`, ""},
		"that may upload":      {403, `{"kind":"forbidden","message":"this needs the scope operate; the token \"ci\" has push only: make one"}`, "that is no join token"},
		"of an operator":       {200, `{"hosts":[]}`, "that is no join token"},
		"void":                 {401, `{"kind":"unauthorized","message":"the token \"ci\" was revoked"}`, "was revoked"},
		"of who knows":         {404, `nothing here`, "token new --join web"},
	} {
		status, body = c.status, c.body
		if err := check(other); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("one %s: %v; want %q", name, err, c.want)
		}
	}
	if err := check("hunter2"); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("no token: %v", err)
	}
	srv.Close()
	if err := check(other); err == nil || !strings.Contains(err.Error(), "cannot be asked") {
		t.Errorf("no server: %v", err)
	}
}
