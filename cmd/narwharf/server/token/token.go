// Package token is the jobs of `narwharf token`: tokens are made, listed and revoked, and
// the audit log says so.
package token

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"narwharf/cache/state"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/signing"
	"narwharf/signing/access"
	"narwharf/signing/access/scope"
	"narwharf/signing/access/shortlived"
)

// Store is where tokens are.
type Store struct {
	State  state.Store
	Tokens *access.Tokens // in State
	Short  *shortlived.Store
	Log    *slog.Logger
}

// New says which token to make.
type New struct {
	Name    string    `json:"name"`
	Scopes  []string  `json:"scopes"`
	Expires time.Time `json:"expires"`
	By      string    `json:"by"`
	Join    string    `json:"join,omitempty"` // channel
	Host    string    `json:"host,omitempty"`
	Uses    int       `json:"uses,omitempty"`
}

// Check fills in what a join token has by itself.
func (a *New) Check() error {
	switch {
	case a.Join == "" && len(a.Scopes) == 0:
		return errors.New("give --name and --scope, or --join CHANNEL for a host")
	case a.Join == "" && a.Uses != 0:
		return errors.New("--uses goes with --join: other tokens are used as often as one likes")
	case a.Join == "" && a.Name == "":
		a.Name = a.draw(a.Scopes[0])
		return nil
	case a.Join == "":
		return nil
	case len(a.Scopes) > 0:
		return errors.New("a join token has no other --scope: the host's own will have pull and follow")
	case a.Uses < 0:
		return fmt.Errorf("--uses %d is below 1", a.Uses)
	case a.Uses == 0:
		a.Uses = 1
	}
	if a.Name == "" {
		a.Name = "join-" + a.draw(cmp.Or(a.Host, a.Join))
	}
	return nil
}

// draw makes a name that no other token has.
func (a *New) draw(of string) string {
	of = strings.Map(func(r rune) rune {
		if strings.ContainsRune(":*,/", r) {
			return '-'
		}
		return r
	}, of)
	return fmt.Sprintf("%.48s-%s", of, strings.ToLower(rand.Text()[:8]))
}

func (a *New) make(now time.Time) (string, access.Token, error) {
	if a.Join != "" {
		if err := signing.CheckChannel(a.Join); err != nil {
			return "", access.Token{}, fmt.Errorf("--join: %w", err)
		}
		return access.NewJoin(a.Name, a.Join, a.Host, a.Uses, now, a.Expires)
	}
	scopes, err := scope.ParseSet(a.Scopes)
	if err != nil {
		return "", access.Token{}, fmt.Errorf("--scope: %w", err)
	}
	return access.New(a.Name, a.Host, scopes, now, a.Expires)
}

// Make is the job token-new: it prints the new token.
func Make(ctx context.Context, s Store, args New, out io.Writer) (int, error) {
	secret, t, err := args.make(time.Now())
	if err != nil {
		return 2, err
	}
	t.By = args.By
	err = s.change(ctx, func(c access.Change) (api.Event, error) {
		return event("token.made", "made", t), c.Add(t)
	})
	if errors.Is(err, access.ErrExists) {
		err = fmt.Errorf("%w: take another --name, or first run narwharf token revoke %s", err, args.Name)
	}
	if err == nil {
		_, err = fmt.Fprintln(out, secret)
	}
	return ended(err)
}

// change changes tokens, with a line in the audit log.
func (s Store) change(ctx context.Context, change func(c access.Change) (api.Event, error)) error {
	var refused error
	err := mirror.NewSet(s.State, s.Log).Update(ctx, []string{access.Lock}, func(tx *mirror.Tx) (err error) {
		var e api.Event
		if e, refused = change(s.Tokens.In(tx)); refused == nil {
			audit.Note(tx, e)
		}
		return refused
	})
	return cmp.Or(refused, err)
}

func event(kind, verb string, t access.Token) api.Event {
	return api.Event{Kind: kind, By: t.By, Host: t.Host, Text: fmt.Sprintf("%s the token %s (%s): %s", verb, t.Name, t.ID, t.Scopes),
		Data: map[string]string{"token": t.ID, "name": t.Name, "scopes": t.Scopes.String()}}
}

// ended is the end of a job that has an error or none.
func ended(err error) (exit int, _ error) {
	if err != nil {
		return 2, err
	}
	return 0, nil
}

// Listed is a token without its secret: an item of `token list --json`.
type Listed struct {
	ID      string     `json:"id"`
	Name    string     `json:"name"`
	Scopes  []string   `json:"scopes"`
	State   string     `json:"state"`
	Created time.Time  `json:"created"`
	Expires *time.Time `json:"expires"`
	Revoked *time.Time `json:"revoked"`
	By      string     `json:"by"`
	Host    string     `json:"host,omitempty"` // that it can act as
	Uses    int        `json:"uses,omitempty"` // of a join token
	Used    []string   `json:"used,omitempty"` // by which hosts

	// Of one that ends soon, whose name is that of the rule that gave it, "github/main".
	Kind    string `json:"kind,omitempty"`
	Subject string `json:"subject,omitempty"` // whose it is, in the issuer's words
}

// List is the job token-list. It answers a JSON array of Listed. Servers before it did so with the
// argument true alone.
func List(ctx context.Context, s Store, _ bool, out io.Writer) (int, error) {
	tokens, err := s.Tokens.List(ctx)
	if err != nil {
		return 2, err
	}
	now := time.Now()
	list := make([]Listed, 0, len(tokens))
	for _, t := range tokens {
		list = append(list, listed(t, now))
	}
	for _, t := range s.Short.List() {
		list = append(list, listedShort(t, now))
	}
	slices.SortStableFunc(list[len(tokens):], func(a, b Listed) int { return cmp.Compare(a.Name, b.Name) })
	text := json.NewEncoder(out)
	text.SetIndent("", "  ")
	return ended(text.Encode(list))
}

func listed(t access.Token, now time.Time) Listed {
	l := Listed{ID: t.ID, Name: t.Name, State: "active", Created: t.Created, By: t.By, Host: t.Host, Uses: t.Uses}
	for _, u := range t.Used {
		l.Used = append(l.Used, u.Host)
	}
	for _, scope := range t.Scopes {
		l.Scopes = append(l.Scopes, scope.String())
	}
	if !t.Expires.IsZero() {
		l.Expires = &t.Expires
	}
	switch {
	case !t.Revoked.IsZero():
		l.Revoked, l.State = &t.Revoked, "revoked"
	case t.Expired(now):
		l.State = "expired"
	case l.Uses > 0 && len(l.Used) == l.Uses:
		l.State = "used"
	}
	return l
}

// Revoke is the job token-revoke, by name or id.
func Revoke(ctx context.Context, s Store, name string, out io.Writer) (int, error) {
	if access.IsShort(name) { // or it is a name that begins like an id
		if exit, err := revokeShort(ctx, s, name, out); !errors.Is(err, access.ErrNotFound) {
			return exit, err
		}
	}
	var t access.Token
	err := s.change(ctx, func(c access.Change) (e api.Event, err error) {
		t, err = c.Revoke(name, time.Now())
		e = event("token.revoked", "revoked", t)
		e.By = ""
		return e, err
	})
	switch {
	case errors.Is(err, access.ErrNotFound) && strings.Contains(name, "/"):
		err = fmt.Errorf("%w: narwharf token revoke --rule %s ends those that a rule gave", err, name)
	case errors.Is(err, access.ErrNotFound):
		err = fmt.Errorf("%w: narwharf token list shows names and ids", err)
	}
	if err == nil {
		_, err = fmt.Fprintf(out, "revoked %s (%s)\n", t.Name, t.ID)
	}
	return ended(err)
}
