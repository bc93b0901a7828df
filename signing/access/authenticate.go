package access

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"time"
)

// Credential is what became of the credential of a request.
type Credential uint8

// The outcomes. Only Valid adds scopes to the anonymous ones.
const (
	None      Credential = iota // the request carries none
	Valid                       // a token that is good now
	Unknown                     // a well-formed token that this server does not know
	Revoked                     // a token of this server, revoked
	Expired                     // a token of this server, past its end
	Malformed                   // nothing that could be a token; Principal.Fault says why
	Unchecked                   // the store could not be asked; Principal.Err says why
)

var credentialNames = [...]string{None: "none", Valid: "valid", Unknown: "unknown", Revoked: "revoked", Expired: "expired", Malformed: "malformed", Unchecked: "unchecked"}

// String returns one lower-case word, fit for a label of logs and metrics.
func (c Credential) String() string {
	if int(c) >= len(credentialNames) {
		return "invalid"
	}
	return credentialNames[c]
}

// Stale reports whether the credential is a well-formed token without effect:
// Unknown, Revoked or Expired.
func (c Credential) Stale() bool { return c == Unknown || c == Revoked || c == Expired }

// Principal is whom a request comes from and what he may do. It holds nothing
// secret. Its Scopes are shared with other Principals: not to be modified.
type Principal struct {
	Name       string // the token's name if Credential is Valid, else "": anonymous
	Scopes     Scopes // the anonymous ones and, if Valid, the token's
	Credential Credential

	// Host, if it is not "", is the only host that the token may act as.
	Host string

	// TokenID is the public id in the token presented, for logs; "" with None and
	// Malformed. With Unknown it is the bearer's claim alone.
	TokenID string

	// Former is the name of a token that was presented but is Revoked or Expired;
	// its bearer does hold the secret.
	Former    string
	RevokedAt time.Time // if Revoked
	ExpiredAt time.Time // if Expired

	Fault string // if Malformed: what is wrong, without anything of the credential
	Err   error  // if Unchecked: the store's error
}

// Authenticator tells whom requests come from. It keeps no state of its own
// between requests: what the store says is true from the next request on.
type Authenticator struct {
	store     Store
	anonymous Scopes
	clock     func() time.Time
}

// NewAuthenticator returns an Authenticator over store. Everybody has the scopes
// anonymous, which may be empty; whether they are wise is for the configuration to
// judge. A nil clock is time.Now.
func NewAuthenticator(store Store, anonymous Scopes, clock func() time.Time) *Authenticator {
	if clock == nil {
		clock = time.Now
	}
	return &Authenticator{store: store, anonymous: anonymous.union(nil), clock: clock}
}

// maxCredential bounds an Authorization header, in bytes: above what a token in
// any dress needs, below what is work to decode.
const maxCredential = 4 << 10

// Identify reads the Authorization header of r; the package comment says which
// forms. It always returns a Principal: whatever is wrong with the credential is
// in it, for [Principal.Deny] to tell once it matters.
func (a *Authenticator) Identify(r *http.Request) Principal {
	headers := r.Header["Authorization"]
	p := Principal{Scopes: a.anonymous}
	switch len(headers) {
	case 0:
		return p
	case 1:
	default:
		p.Credential, p.Fault = Malformed, "the request has several Authorization headers: send one"
		return p
	}
	secret, fault := credentialOf(headers[0])
	if fault == "" {
		var err error
		if p.TokenID, err = ParseSecret(secret); err != nil {
			fault = "the token " + err.Error()
		}
	}
	if fault != "" {
		p.Credential, p.Fault = Malformed, fault
		return p
	}
	t, err := a.store.Lookup(r.Context(), p.TokenID)
	if err != nil && !errors.Is(err, ErrNotFound) {
		p.Credential, p.Err = Unchecked, err
		return p
	}
	// Without a token the comparison is against zeros: same work, no match.
	hash := sha256.Sum256([]byte(secret))
	same := subtle.ConstantTimeCompare(hash[:], t.Hash[:]) == 1
	switch {
	case err != nil || !same:
		p.Credential = Unknown
	case !t.Revoked.IsZero():
		p.Credential, p.Former, p.RevokedAt = Revoked, t.Name, t.Revoked
	case t.Expired(a.clock()):
		p.Credential, p.Former, p.ExpiredAt = Expired, t.Name, t.Expires
	default:
		p.Credential, p.Name, p.Host = Valid, t.Name, t.Host
		p.Scopes = a.anonymous.union(t.Scopes)
	}
	return p
}

// Presented returns the token that a request carries, whatever it is worth; "" if
// it carries none. It is a secret.
func Presented(r *http.Request) string {
	if headers := r.Header["Authorization"]; len(headers) == 1 {
		if secret, fault := credentialOf(headers[0]); fault == "" {
			return secret
		}
	}
	return ""
}

// credentialOf takes what should be a token out of an Authorization header, or
// says what is wrong with the header.
func credentialOf(header string) (secret, fault string) {
	if len(header) > maxCredential {
		return "", "the Authorization header is too long for a token"
	}
	scheme, rest, _ := strings.Cut(header, " ")
	rest = strings.Trim(rest, " ")
	switch {
	case strings.EqualFold(scheme, "Bearer"):
		return rest, ""
	case strings.EqualFold(scheme, "Basic"):
		plain, err := base64.StdEncoding.DecodeString(rest)
		if err != nil {
			return "", "the Authorization header is not valid base64 after Basic"
		}
		user, password, colon := strings.Cut(string(plain), ":")
		switch {
		case !colon:
			return "", "the Authorization header has no colon between user and password"
		case password == "":
			return user, ""
		}
		return password, ""
	}
	return "", "the Authorization header is neither Basic nor Bearer"
}
