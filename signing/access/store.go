package access

import (
	"context"
	"errors"
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
