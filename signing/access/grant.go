package access

import (
	"context"
	"errors"
	"time"

	"narwharf/signing/access/scope"
)

// Grant is what a credential that is no token of Tokens gives, as a rule says.
type Grant struct {
	Kind    string    // "oidc", "ssh", "aws", "certificate", "session"
	Issuer  string    // the name of its section in the configuration; "" if there is none
	Rule    string    // the rule's name
	Subject string    // who, in the issuer's words: one printable line of at most 128 bytes; for logs alone
	Scopes  scope.Set // sorted, at least one
	Host    string    // as Principal.Host
	// Owner is what the name of a machine belongs to (issuer, subject, instance); "" for others.
	Owner  string
	TTL    time.Duration // how long what it is exchanged for lasts
	Forget time.Duration // of a machine: forgotten so long after its last word; 0: as [retention] says
	Ends   time.Time     // of the credential itself; zero: with the connection
}

// Name is "github/main", a name that no token has: those have no "/".
func (g Grant) Name() string {
	if g.Issuer == "" {
		return g.Kind + "/" + g.Rule
	}
	return g.Issuer + "/" + g.Rule
}

// Verifier is asked about a credential that has another form than a token of ours.
type Verifier interface {
	// Verify returns what the credential gives. The text of an error is for the person at the
	// other end: ASCII, at most 200 bytes, nothing of the credential in it. ErrUnchecked.
	Verify(ctx context.Context, credential string) (Grant, error)
}

// ErrUnchecked is wrapped by a Verifier that could not ask whoever knows: the answer is
// 503, and the error is for the log.
var ErrUnchecked = errors.New("the credential could not be checked")

// ShortLookup finds short-lived tokens by their public id.
type ShortLookup interface {
	// Lookup returns the SHA-256 of the secret and what the token gives, which may have ended;
	// ErrNotFound if there is none, or none any more.
	Lookup(ctx context.Context, id string) (Hash, Grant, error)
}
