package declared_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"narwharf/cache/state/memory"
	"narwharf/cmd/narwharf/access/declared"
	"narwharf/cmd/narwharf/server/token"
	"narwharf/signing/access"
	"narwharf/signing/access/shortlived"
)

// A site is a server's tokens and a folder for those that are declared.
type site struct {
	t     *testing.T
	store token.Store
	dir   string
	fails string // the job that fails
}

func newSite(t *testing.T) *site {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	s := &site{t: t, dir: filepath.Join(t.TempDir(), "tokens.d"), store: token.Store{State: memory.New(nil), Log: log}}
	var err error
	if s.store.Tokens, _, err = access.Open(t.Context(), s.store.State, ""); err != nil {
		t.Fatal(err)
	}
	if s.store.Short, err = shortlived.Open(s.store.State, log); err != nil {
		t.Fatal(err)
	}
	return s
}

// run is the jobs of a server, with arguments as they come over its socket.
func (s *site) run(name string, args any, out io.Writer) error {
	if name == s.fails {
		return errors.New("the server is away")
	}
	raw, err := json.Marshal(args)
	if err != nil {
		return err
	}
	ctx := context.Background()
	switch name {
	case "token-new":
		var a token.New
		if err = json.Unmarshal(raw, &a); err == nil {
			_, err = token.Make(ctx, s.store, a, out)
		}
	case "token-list":
		_, err = token.List(ctx, s.store, true, out)
	case "token-revoke":
		var a string
		if err = json.Unmarshal(raw, &a); err == nil {
			_, err = token.Revoke(ctx, s.store, a, out)
		}
	default:
		err = fmt.Errorf("no job %s", name)
	}
	return err
}

func (s *site) apply(want map[string]declared.Token) (words string) {
	s.t.Helper()
	var b strings.Builder
	if err := declared.Apply(s.run, s.dir, want, "module", &b); err != nil {
		s.t.Fatal(err)
	}
	return b.String()
}

// byHand makes a token that nobody declared, and returns its id.
func (s *site) byHand(name string, scopes ...string) string {
	s.t.Helper()
	var out strings.Builder
	if err := s.run("token-new", token.New{Name: name, Scopes: scopes, By: "alice"}, &out); err != nil {
		s.t.Fatal(err)
	}
	id, err := access.ParseSecret(strings.TrimSpace(out.String()))
	if err != nil {
		s.t.Fatal(err)
	}
	return id
}

// good are the tokens that are active, as "name scopes host".
func (s *site) good() (list []string) {
	s.t.Helper()
	var out strings.Builder
	if err := s.run("token-list", true, &out); err != nil {
		s.t.Fatal(err)
	}
	var all []token.Listed
	if err := json.Unmarshal([]byte(out.String()), &all); err != nil {
		s.t.Fatal(err)
	}
	for _, t := range all {
		if t.State == "active" {
			list = append(list, strings.TrimSpace(t.Name+" "+strings.Join(t.Scopes, ",")+" "+t.Host))
		}
	}
	slices.Sort(list)
	return list
}

func (s *site) want(good ...string) {
	s.t.Helper()
	if is := s.good(); !slices.Equal(is, good) {
		s.t.Errorf("good are %q, want %q", is, good)
	}
}

func (s *site) secret(name string) string {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

var two = map[string]declared.Token{"ci": {Scopes: []string{"push", "promote:web"}, Expires: "90d"}, "web-1": {Scopes: []string{"follow:web"}, Host: "web-1"}}

// TestDeclared: tokens are made once, revoked when they are declared no more, and made anew when they are declared
// otherwise or their file is gone. What somebody made by hand stays.
func TestDeclared(t *testing.T) {
	s := newSite(t)
	if words := s.apply(nil); words != "" {
		t.Error(words)
	}
	if _, err := os.Stat(s.dir); !errors.Is(err, os.ErrNotExist) {
		t.Error("a folder was made for nothing")
	}
	s.byHand("laptop", "pull")
	s.apply(two)
	s.want("ci push,promote:web", "laptop pull", "web-1 follow:web web-1")
	ci, web := s.secret("ci"), s.secret("web-1")
	if st, err := os.Stat(filepath.Join(s.dir, "ci")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	if words := s.apply(two); words != "" || s.secret("ci") != ci {
		t.Errorf("declared again as it is: %s", words)
	}

	less := map[string]declared.Token{"ci": {Scopes: []string{"push"}, Expires: "90d"}, "web-1": two["web-1"]}
	s.apply(less)
	s.want("ci push", "laptop pull", "web-1 follow:web web-1")
	if s.secret("ci") == ci || s.secret("web-1") != web {
		t.Error("the one that changed is the same, or the other is another")
	}
	ci = s.secret("ci")
	if err := os.Remove(filepath.Join(s.dir, "ci")); err != nil {
		t.Fatal(err)
	}
	s.apply(less)
	s.want("ci push", "laptop pull", "web-1 follow:web web-1")
	if s.secret("ci") == ci {
		t.Error("a file that is gone came back with the same token")
	}

	if words := s.apply(map[string]declared.Token{"web-1": two["web-1"]}); !strings.Contains(words, "revoked the token ci") {
		t.Error(words)
	}
	s.want("laptop pull", "web-1 follow:web web-1")
	// A name that was declared once is free for people.
	s.byHand("ci", "metrics")
	s.apply(nil)
	s.want("ci metrics", "laptop pull")
	if files, err := os.ReadDir(s.dir); err != nil || len(files) != 1 {
		t.Errorf("left: %v, %v", files, err)
	}
	// And one that people have is not taken from them, nor does it keep the others from being made.
	if words := s.apply(two); !strings.Contains(words, "the token ci is not made: there is another of that name") || !strings.Contains(words, "alice") {
		t.Error(words)
	}
	s.want("ci metrics", "laptop pull", "web-1 follow:web web-1")
}

// TestOfBefore: files that the module before wrote, which noted no ids, are known by the tokens in them. One that
// somebody revoked, or that has expired, stays so.
func TestOfBefore(t *testing.T) {
	s := newSite(t)
	s.apply(two)
	if err := os.Remove(filepath.Join(s.dir, ".ids")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "notes.txt"), []byte("of an operator\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.apply(map[string]declared.Token{"web-1": two["web-1"]})
	s.want("web-1 follow:web web-1")
	if s.secret("notes.txt") != "of an operator\n" {
		t.Error("a file of somebody else is gone")
	}
	id, err := access.ParseSecret(strings.TrimSpace(s.secret("web-1")))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.run("token-revoke", id, io.Discard); err != nil {
		t.Fatal(err)
	}
	s.apply(map[string]declared.Token{"web-1": two["web-1"]})
	s.want()
}

// TestNothingHalfDone: what fails says so, and the next time goes on.
func TestNothingHalfDone(t *testing.T) {
	s := newSite(t)
	s.apply(two)
	s.fails = "token-revoke"
	if err := declared.Apply(s.run, s.dir, nil, "module", io.Discard); err == nil || s.secret("ci") == "" {
		t.Errorf("a token that cannot be revoked: %v", err)
	}
	s.fails = ""
	s.apply(nil)
	s.want()
	s.fails = "token-new"
	if err := declared.Apply(s.run, s.dir, two, "module", io.Discard); err == nil {
		t.Error("a token that cannot be made")
	}
	s.fails = ""
	s.apply(two)
	s.want("ci push,promote:web", "web-1 follow:web web-1")
	for name, bad := range map[string]map[string]declared.Token{
		"is that of a file": {"../ci": two["ci"]},
		"token x":           {"x": {Scopes: []string{"everything"}}},
		"expires":           {"x": {Scopes: []string{"pull"}, Expires: "soon"}},
	} {
		if err := declared.Apply(s.run, s.dir, bad, "module", io.Discard); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.want("ci push,promote:web", "web-1 follow:web web-1") // nothing was ended before the fault was seen
}
