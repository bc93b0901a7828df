package access

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// The two outcomes of a Store that callers tell apart; both come wrapped, with
// words about which token.
var (
	ErrExists   = errors.New("the name is taken")
	ErrNotFound = errors.New("no such token")
)

// Store keeps tokens. All methods may be called at the same time. A token given
// or returned shares no memory with the store's own. A nil error means that the
// change is durable, as far as the store is, and that every later Lookup sees it;
// any other error means that callers cannot know whether it took place (only
// ErrExists and ErrNotFound promise that nothing did), and may try again.
type Store interface {
	// Add stores a new token, as New made it. ErrExists if a token of the same
	// name is active at t.Created, if the id is taken, or if the name is another
	// token's id or the other way round (Revoke could not tell them apart). A
	// token that New would not make is refused in words.
	Add(ctx context.Context, t Token) error

	// Lookup returns the token of an id, also when it is expired or revoked;
	// ErrNotFound if there is none. It is called with every request that
	// carries a token.
	Lookup(ctx context.Context, id string) (Token, error)

	// List returns all tokens, the expired and revoked too, sorted by name,
	// creation, id.
	List(ctx context.Context) ([]Token, error)

	// Revoke marks as revoked at the time at, which must not be zero, the token
	// of that id, or every token of that name which is not revoked yet. It
	// returns the token, of several the last created. What is revoked already
	// stays as it is and is not an error: its Revoked time then is not at.
	// ErrNotFound if no token has that name or id.
	Revoke(ctx context.Context, nameOrID string, at time.Time) (Token, error)

	// Redeem exchanges a join token for a host's token, fresh, as NewHost made
	// it; both, or nothing at all, is done. A use of the join token is spent,
	// unless the same instance and host spent one less than Patience before
	// fresh.Created and so did not get the answer. All active tokens that joins
	// made for the host before are revoked. ErrNotFound, and else a *JoinError.
	Redeem(ctx context.Context, joinID, instance string, fresh Token) error
}

// table is what both stores do in memory, without locks: tokens by id.
type table map[string]Token

// add checks t against the others and stores it.
func (tab table) add(t Token) (Token, error) {
	t = t.normal()
	if err := t.check(); err != nil {
		return Token{}, fmt.Errorf("add token %s: %w", quote(t.Name), err)
	}
	for _, other := range tab {
		switch {
		case other.ID == t.ID, other.Name == t.ID, other.ID == t.Name:
			return Token{}, fmt.Errorf("add token %s: %w as the id of a token: choose another", quote(t.Name), ErrExists)
		case other.Name == t.Name && other.Active(t.Created):
			return Token{}, fmt.Errorf("add token %s: %w by token %s, made on %s: revoke that first, or choose another name",
				quote(t.Name), ErrExists, other.ID, stamp(other.Created))
		}
	}
	tab[t.ID] = t
	return t, nil
}

// revoke returns the tokens it changed and the one to report.
func (tab table) revoke(nameOrID string, at time.Time) (changed []Token, t Token, err error) {
	if at.IsZero() {
		return nil, Token{}, fmt.Errorf("revoke token %s: the time is missing", quote(nameOrID))
	}
	var hit []Token
	if byID, ok := tab[nameOrID]; ok {
		hit = append(hit, byID)
	} else {
		for _, other := range tab {
			if other.Name == nameOrID {
				hit = append(hit, other)
			}
		}
	}
	if len(hit) == 0 {
		return nil, Token{}, fmt.Errorf("revoke token %s: %w: narwharf token list shows names and ids", quote(nameOrID), ErrNotFound)
	}
	slices.SortFunc(hit, byCreation)
	for i := range hit {
		if hit[i].Revoked.IsZero() {
			hit[i].Revoked = wholeSecond(at)
			tab[hit[i].ID] = hit[i]
			changed = append(changed, hit[i])
		}
	}
	return changed, hit[len(hit)-1].normal(), nil
}

func (tab table) lookup(id string) (Token, error) {
	t, ok := tab[id]
	if !ok {
		return Token{}, fmt.Errorf("look up token %s: %w", quote(id), ErrNotFound)
	}
	t.Scopes, t.Used = slices.Clone(t.Scopes), slices.Clone(t.Used)
	return t, nil
}

func (tab table) list() []Token {
	all := make([]Token, 0, len(tab))
	for _, t := range tab {
		all = append(all, t.normal())
	}
	slices.SortFunc(all, func(a, b Token) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), byCreation(a, b))
	})
	return all
}

func byCreation(a, b Token) int {
	return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
}
