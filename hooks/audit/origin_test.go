package audit

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"narwharf/cache/state"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
)

// noteFor writes a line in a context of its own.
func (l *log) noteFor(ctx context.Context, e api.Event) {
	l.t.Helper()
	err := l.set.Update(ctx, nil, func(tx *mirror.Tx) error {
		Note(tx, e)
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
}

// TestFor: lines say for whom they are, and those that are for nobody do not.
func TestFor(t *testing.T) {
	l := newLog(t)
	l.note("by itself")
	actor := api.Actor{Credential: "oidc", Name: "github/main", Subject: "repo:a/b\x1b[2J" + strings.Repeat("x", 1000), Address: "::ffff:203.0.113.7"}
	l.noteFor(For(t.Context(), actor, "r-1"), api.Event{Kind: "test", Text: "for somebody"})
	list := l.all()
	if e := list[0]; e.Actor != nil || e.Request != "" {
		t.Errorf("%+v", e)
	}
	e := list[1]
	if e.Actor == nil || e.Request != "r-1" || e.Actor.Credential != "oidc" || e.Actor.Name != "github/main" || e.Actor.Address != "203.0.113.7" {
		t.Fatalf("%+v, %+v", e, e.Actor)
	}
	if s := e.Actor.Subject; len(s) > maxSubject || strings.Contains(s, "\x1b") || !strings.HasPrefix(s, "repo:a/b") {
		t.Errorf("the subject is %q", s)
	}
}

// TestOldLines: lines of servers before there were actors are read as they are, and name who
// did it by By.
func TestOldLines(t *testing.T) {
	l := newLog(t)
	err := l.set.Update(t.Context(), nil, func(tx *mirror.Tx) error {
		tx.Keep(tx.Append(bucket, func(uint64) ([]byte, error) {
			return []byte(`{"id":1,"time":"2026-01-02T03:04:05Z","kind":"host.held","by":"op","host":"web-1","text":"held"}`), nil
		}))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	q, err := ParseQuery(func(name string) string { return map[string]string{"who": "o*"}[name] })
	if err != nil {
		t.Fatal(err)
	}
	text, next, err := q.Page(l.set, new(Memory))
	if err != nil || next != 2 || !strings.Contains(string(text), `"by":"op"`) || strings.Contains(string(text), "actor") {
		t.Errorf("%s, %d, %v", text, next, err)
	}
}

func TestWho(t *testing.T) {
	e := &api.Event{By: "web-1", Actor: &api.Actor{Name: "github/main", Token: "abcdefghjk", Subject: "repo:acme/web:ref:refs/heads/main", Address: "2001:db8::7"}}
	for pattern, want := range map[string]bool{
		"": true, "*": true, "web-1": true, "web": false, "web-*": true, "github/*": true, "github/mai": false, "GITHUB/main": false,
		"abcdefghjk": true, "repo:acme/*": true, "*main": true, "2001:db8::7": true, "2001:db8::*": true, ".*": false, "web.1": false, "(": false,
	} {
		w, err := ParseWho(pattern)
		if err != nil {
			t.Errorf("%q: %v", pattern, err)
		} else if w.Did(e) != want {
			t.Errorf("%q is %v", pattern, !want)
		}
	}
	if _, err := ParseWho(strings.Repeat("*", 300)); err == nil {
		t.Error("a pattern of any length")
	}
	if w, _ := ParseWho("x*"); w.Did(&api.Event{}) {
		t.Error("nobody is x")
	}
}

// TestSecrets: whatever field a secret is in, the log does not have it, and remains JSON.
func TestSecrets(t *testing.T) {
	token := "nwt_abcdefghjk_" + strings.Repeat("0123456789", 6)[:59]
	jwt := "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJyZXBvOmEvYiJ9.c2lnbmF0dXJlLXNpZ25hdHVyZQ"
	key := "cache.example.org-1:" + strings.Repeat("A", 43) + "/+" + strings.Repeat("b", 41) + "=="
	url := "https://gitlab-ci-token:glcbt-64_secretsecret@gitlab.example/a/b.git"
	pem := "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjE\n-----END OPENSSH PRIVATE KEY-----\n"
	for secret, part := range map[string]string{
		token: token[len("nwt_abcdefghjk_"):], token[:40]: token[len("nwt_abcdefghjk_"):40],
		jwt: "c2lnbmF0dXJl", key: "AAAAAAAA", url: "secretsecret", pem: "b3BlbnNzaC1rZXktdjE",
	} {
		l := newLog(t)
		text := "before " + secret + " after"
		l.noteFor(For(t.Context(), api.Actor{Credential: "oidc", Name: text, Subject: text, Address: text}, text), api.Event{
			Kind: text, By: text, Channel: text, Host: text, Text: text, Data: map[string]string{"x": text, text: "y"},
		})
		err := l.set.View(func(tx state.Reader) error {
			lines, err := tx.ReadLog(bucket, 0, 10)
			if err != nil || len(lines) != 1 {
				t.Fatal(len(lines), err)
			}
			if line := string(lines[0].Value); strings.Contains(line, part) {
				t.Errorf("the log has %s", line)
			} else if !json.Valid(lines[0].Value) || !strings.Contains(line, "before ") {
				t.Errorf("it is %s", line)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	plain := `{"text":"see https://example.org/a?b=c@d, /nix/store/00000000000000000000000000000000-eyJx, user@host, sha256:` + strings.Repeat("ab", 32) + `, nwt_ tokens"}`
	if got := string(hidden([]byte(plain))); got != plain {
		t.Errorf("it is no secret: %s", got)
	}
}

// TestRefusals: one line for a token and a route in an hour, and no more than a hundred of all.
func TestRefusals(t *testing.T) {
	l := newLog(t)
	r := NewRefusals(l.set, func() time.Time { return l.now }, nil)
	for range 3 {
		r.Note(For(t.Context(), api.Actor{Credential: "token", Name: "ci"}, "r-1"), "a", "promote", "this needs the scope promote:prod")
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	r.Note(gone, "a", "gc", "this needs the scope admin") // the client has left
	if list := l.all(); len(list) != 2 || list[0].Kind != "access.denied" || list[0].Actor.Name != "ci" || list[1].Data["route"] != "gc" {
		t.Fatalf("%+v", list)
	}
	for i := range 1000 {
		r.Note(t.Context(), string(rune('b'+i)), "promote", "no")
	}
	if n := len(l.all()); n != maxRefusals {
		t.Errorf("%d lines", n)
	}
	l.now = l.now.Add(refusalPause)
	r.Note(t.Context(), "a", "promote", "no")
	if n := len(l.all()); n != maxRefusals+1 {
		t.Errorf("an hour later %d lines", n)
	}
}
