package access

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"narwharf/signing/access/scope"
)

// Store is what tests ask of Tokens.
type Store interface {
	lookup
	Add(ctx context.Context, t Token) error
	List(ctx context.Context) ([]Token, error)
	Revoke(ctx context.Context, nameOrID string, at time.Time) (Token, error)
	Redeem(ctx context.Context, joinID, instance string, fresh Token) error
}

// Redeem is that of a Change which does nothing else.
func (t *Tokens) Redeem(ctx context.Context, joinID, instance string, fresh Token) error {
	return t.update(ctx, func(c Change) error { return c.Redeem(joinID, instance, fresh) })
}

// testStore holds a Store to its contract; open returns a new, empty one.
func testStore(t *testing.T, open func(*testing.T) Store) {
	ctx := t.Context()
	later := noon.Add(time.Hour)

	t.Run("add and lookup", func(t *testing.T) {
		s := open(t)
		if _, err := s.Lookup(ctx, "0123456789"); !errors.Is(err, ErrNotFound) {
			t.Errorf("Lookup in an empty store: %v", err)
		}
		want := newToken(t, "ci", noon, later, "push", "promote:web-*")
		want.By = "root on server"
		mustAdd(t, s, want)
		got, err := s.Lookup(ctx, want.ID)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("Lookup = %+v, %v; want %+v", got, err, want)
		}
		got.Scopes[0] = scope.Scope{Kind: scope.Admin}
		want.Scopes[1] = scope.Scope{Kind: scope.Admin}
		if again, _ := s.Lookup(ctx, want.ID); again.Scopes.String() != "push,promote:web-*" {
			t.Errorf("the store shares its scopes: %v", again.Scopes)
		}
		for _, id := range []string{"", "ci", want.ID + " ", strings.ToUpper(want.ID) + "L"} {
			if _, err := s.Lookup(ctx, id); !errors.Is(err, ErrNotFound) {
				t.Errorf("Lookup(%q): %v", id, err)
			}
		}
	})

	t.Run("add normalises", func(t *testing.T) {
		s := open(t)
		token := newToken(t, "ci", noon, time.Time{}, "push")
		token.Created = noon.Add(999 * time.Millisecond).In(time.FixedZone("east", 3600))
		token.Scopes = scope.Set{{Kind: scope.Push}, {Kind: scope.Pull}, {Kind: scope.Push}}
		mustAdd(t, s, token)
		got, err := s.Lookup(ctx, token.ID)
		if err != nil || got.Created != noon || got.Scopes.String() != "pull,push" {
			t.Errorf("Lookup = %+v, %v", got, err)
		}
	})

	t.Run("names", func(t *testing.T) {
		s := open(t)
		first := newToken(t, "ci", noon, later, "push")
		mustAdd(t, s, first)
		for what, token := range map[string]Token{
			"same name":               newToken(t, "ci", later.Add(-time.Second), time.Time{}, "pull"),
			"same id":                 withID(newToken(t, "other", noon, later, "pull"), first.ID),
			"same id and name, later": withID(newToken(t, "ci", later, time.Time{}, "pull"), first.ID),
			"name is an id":           newToken(t, first.ID, noon, later, "pull"),
		} {
			if err := s.Add(ctx, token); !errors.Is(err, ErrExists) {
				t.Errorf("Add with %s: %v", what, err)
			}
		}
		mustAdd(t, s, newToken(t, "0123456789", noon, time.Time{}, "pull"))
		if err := s.Add(ctx, withID(newToken(t, "x", noon, later, "pull"), "0123456789")); !errors.Is(err, ErrExists) {
			t.Errorf("Add with an id that is a name: %v", err)
		}
		mustAdd(t, s, newToken(t, "ci", later, time.Time{}, "pull")) // the first has just expired
		if _, err := s.Revoke(ctx, "ci", later); err != nil {
			t.Fatal(err)
		}
		mustAdd(t, s, newToken(t, "ci", noon, time.Time{}, "pull")) // both are revoked, whatever the clock says
		if all, err := s.List(ctx); err != nil || len(all) != 4 {
			t.Errorf("List has %d, %v; want 4", len(all), err)
		}
	})

	t.Run("add refuses", func(t *testing.T) {
		s := open(t)
		for want, spoil := range map[string]func(*Token){
			"is not 10 symbols":   func(t *Token) { t.ID = "012345678" },
			"10 symbols of":       func(t *Token) { t.ID = "012345678l" },
			"letters, digits":     func(t *Token) { t.Name = "a/b" },
			"hash of the secret":  func(t *Token) { t.Hash = Hash{} },
			"no scopes":           func(t *Token) { t.Scopes = nil },
			"not one of":          func(t *Token) { t.Scopes = scope.Set{{Kind: scope.Follow}} },
			"time of creation":    func(t *Token) { t.Created = time.Time{} },
			"would expire":        func(t *Token) { t.Expires = t.Created },
			"one line of at most": func(t *Token) { t.By = "a\nb" },
			"128 bytes":           func(t *Token) { t.By = strings.Repeat("a", 129) },
			"bytes of text":       func(t *Token) { t.By = "\xff" },
		} {
			token := newToken(t, "ci", noon, later, "push")
			spoil(&token)
			if err := s.Add(ctx, token); err == nil || errors.Is(err, ErrExists) || !strings.Contains(err.Error(), want) {
				t.Errorf("Add(%+v): %v; want %q", token, err, want)
			}
		}
		if all, err := s.List(ctx); err != nil || len(all) != 0 {
			t.Errorf("refused tokens are listed: %v, %v", all, err)
		}
	})

	t.Run("revoke", func(t *testing.T) {
		s := open(t)
		ci, web := newToken(t, "ci", noon, time.Time{}, "push"), newToken(t, "web", noon, later, "pull")
		mustAdd(t, s, ci)
		mustAdd(t, s, web)
		at := noon.Add(time.Minute)
		for _, unknown := range []string{"", "db", "zzzzzzzzzz"} {
			if _, err := s.Revoke(ctx, unknown, at); !errors.Is(err, ErrNotFound) {
				t.Errorf("Revoke(%q): %v", unknown, err)
			}
		}
		if _, err := s.Revoke(ctx, "ci", time.Time{}); err == nil || !strings.Contains(err.Error(), "time is missing") {
			t.Errorf("Revoke at no time: %v", err)
		}
		if got, _ := s.Lookup(ctx, ci.ID); !got.Active(noon) {
			t.Error("a refused Revoke revoked")
		}
		got, err := s.Revoke(ctx, "ci", at.Add(time.Millisecond))
		if err != nil || got.ID != ci.ID || got.Revoked != at {
			t.Errorf("Revoke by name = %+v, %v", got, err)
		}
		got, err = s.Revoke(ctx, web.ID, at)
		if err != nil || got.Name != "web" || got.Revoked != at {
			t.Errorf("Revoke by id = %+v, %v", got, err)
		}
		for _, again := range []string{"ci", ci.ID} {
			got, err = s.Revoke(ctx, again, at.Add(time.Hour))
			if err != nil || got.ID != ci.ID || got.Revoked != at {
				t.Errorf("second Revoke(%q) = %+v, %v", again, got, err)
			}
		}
		if got, err := s.Lookup(ctx, ci.ID); err != nil || got.Revoked != at || got.Active(noon) {
			t.Errorf("Lookup of a revoked token = %+v, %v", got, err)
		}
	})

	// The clock went back, so that two tokens of a name are active: revoking
	// the name leaves none.
	t.Run("revoke every one of a name", func(t *testing.T) {
		s := open(t)
		old, now := newToken(t, "ci", noon, later, "push"), newToken(t, "ci", later, time.Time{}, "push")
		mustAdd(t, s, old)
		mustAdd(t, s, now)
		if got, err := s.Revoke(ctx, "ci", noon); err != nil || got.ID != now.ID {
			t.Errorf("Revoke = %+v, %v; want the last created", got, err)
		}
		for _, id := range []string{old.ID, now.ID} {
			if got, _ := s.Lookup(ctx, id); got.Active(noon) {
				t.Errorf("%+v is active", got)
			}
		}
	})

	t.Run("list is sorted", func(t *testing.T) {
		s := open(t)
		var want []string
		for _, token := range []Token{
			newToken(t, "b", noon, later, "push"), newToken(t, "a", noon.Add(time.Second), later, "push"),
			newToken(t, "b", later, later.Add(time.Hour), "push"), newToken(t, "c", noon, later, "push"),
		} {
			mustAdd(t, s, token)
			want = append(want, token.ID)
		}
		want[0], want[1] = want[1], want[0]
		all, err := s.List(ctx)
		if err != nil || len(all) != len(want) {
			t.Fatalf("List = %v, %v", all, err)
		}
		for i, token := range all {
			if token.ID != want[i] {
				t.Errorf("token %d is %+v", i, token)
			}
		}
	})

	t.Run("cancelled writes", func(t *testing.T) {
		s := open(t)
		cancelled, cancel := context.WithCancel(ctx)
		cancel()
		token := newToken(t, "ci", noon, later, "push")
		if err := s.Add(cancelled, token); !errors.Is(err, context.Canceled) {
			t.Errorf("Add: %v", err)
		}
		if _, err := s.Revoke(cancelled, "ci", noon); !errors.Is(err, context.Canceled) {
			t.Errorf("Revoke: %v", err)
		}
		if _, err := s.Lookup(ctx, token.ID); !errors.Is(err, ErrNotFound) {
			t.Errorf("Lookup: %v", err)
		}
	})

	// Readers see a token as soon as Add has returned, and as revoked as soon as
	// Revoke has; and of many who add one name at once one wins.
	t.Run("concurrent", func(t *testing.T) {
		s := open(t)
		const writers, each = 4, 6
		var wg sync.WaitGroup
		done := make(chan struct{})
		for range 3 {
			wg.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
					}
					all, err := s.List(ctx)
					if err != nil {
						t.Error(err)
					}
					for _, listed := range all {
						got, err := s.Lookup(ctx, listed.ID)
						if err != nil || got.Name != listed.Name || !listed.Revoked.IsZero() && got.Revoked.IsZero() {
							t.Errorf("listed %+v, then looked up %+v, %v", listed, got, err)
						}
					}
				}
			})
		}
		var mu sync.Mutex
		won := map[string]int{}
		var adders sync.WaitGroup
		for w := range writers {
			var tokens, contested []Token
			for i := range each {
				tokens = append(tokens, newToken(t, fmt.Sprintf("w%d-%d", w, i), noon, time.Time{}, "push"))
				contested = append(contested, newToken(t, fmt.Sprintf("all-%d", i), noon, time.Time{}, "push"))
			}
			adders.Go(func() {
				for i, token := range tokens {
					if err := s.Add(ctx, token); err != nil {
						t.Error(err)
					}
					if got, err := s.Lookup(ctx, token.ID); err != nil || !got.Active(noon) {
						t.Errorf("after Add: %+v, %v", got, err)
					}
					if _, err := s.Revoke(ctx, token.Name, noon); err != nil {
						t.Error(err)
					}
					if got, err := s.Lookup(ctx, token.ID); err != nil || got.Active(noon) {
						t.Errorf("after Revoke: %+v, %v", got, err)
					}
					switch err := s.Add(ctx, contested[i]); {
					case err == nil:
						mu.Lock()
						won[contested[i].Name]++
						mu.Unlock()
					case !errors.Is(err, ErrExists):
						t.Error(err)
					}
				}
			})
		}
		adders.Wait()
		close(done)
		wg.Wait()
		for i := range each {
			if n := won[fmt.Sprintf("all-%d", i)]; n != 1 {
				t.Errorf("%d of %d won all-%d", n, writers, i)
			}
		}
		if all, err := s.List(ctx); err != nil || len(all) != writers*each+each {
			t.Errorf("List has %d, %v; want %d", len(all), err, writers*each+each)
		}
	})
}

func newToken(t testing.TB, name string, now, expires time.Time, words ...string) Token {
	t.Helper()
	_, token, err := New(name, "", scopes(t, words...), now, expires)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func withID(token Token, id string) Token {
	token.ID = id
	return token
}

func mustAdd(t testing.TB, s Store, token Token) {
	t.Helper()
	if err := s.Add(t.Context(), token); err != nil {
		t.Fatal(err)
	}
}

// scopes parses what a test knows to be valid.
func scopes(t testing.TB, values ...string) scope.Set {
	t.Helper()
	s, err := scope.ParseSet(values)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
