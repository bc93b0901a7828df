package access

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"narwharf/narinfo/clip"
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

// Principal is whom a request comes from and what he may do. It holds nothing secret.
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

	barred *Denied
}

// Guard says why a request may do no more than pull does, whoever makes it; nil if it may.
// good is that it shows a token that is: anybody can add a header.
type Guard func(r *http.Request, good bool) *Denied

// lookup is Tokens.Lookup.
type lookup interface {
	Lookup(ctx context.Context, id string) (Token, error)
}

// Authenticator tells whom requests come from.
type Authenticator struct {
	tokens    lookup
	anonymous Scopes
	clock     func() time.Time
	guards    []Guard
}

// NewAuthenticator returns an Authenticator over tokens. Everybody has the scopes
// anonymous, which may be empty. A nil clock is time.Now.
func NewAuthenticator(tokens lookup, anonymous Scopes, clock func() time.Time, guards ...Guard) *Authenticator {
	if clock == nil {
		clock = time.Now
	}
	return &Authenticator{tokens: tokens, anonymous: anonymous.union(nil), clock: clock, guards: guards}
}

// maxCredential bounds an Authorization header, in bytes.
const maxCredential = 4 << 10

// Identify reads the Authorization header of r. What is wrong with it is for [Principal.Deny] to tell.
func (a *Authenticator) Identify(r *http.Request) Principal {
	p := a.identify(r)
	for _, guard := range a.guards {
		if p.barred == nil {
			p.barred = guard(r, p.Credential == Valid)
		}
	}
	return p
}

// Anybody tells whether a scope needs no credential.
func (a *Authenticator) Anybody(need Scope) bool { return a.anonymous.Allows(need) }

func (a *Authenticator) identify(r *http.Request) Principal {
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
	t, err := a.tokens.Lookup(r.Context(), p.TokenID)
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

// Challenge is the WWW-Authenticate header that every answer with status 401 has
// (RFC 9110, 15.5.2). Nix does not look at it; browsers ask for a password then.
const Challenge = `Basic realm="narwharf"`

// Denied is why a request was refused.
type Denied struct {
	// Status is 401 if no good credential came with the request, 403 if a good
	// one lacks the scope, 503 if the credential could not be checked; or a Guard's.
	Status int

	text string
}

// Refuse is a Guard's denial.
func Refuse(status int, text string) *Denied { return &Denied{status, clip.ASCII(text, 299)} }

// Error returns one line of less than 300 bytes for the person at the other end,
// printable ASCII: what is missing, why the credential did not help, what to do.
// (Nix shows a body of less than 1024 bytes.)
func (d *Denied) Error() string { return d.text }

// Deny returns nil if p has the scope need, and otherwise why the request is refused:
// compare it with nil before it becomes an error.
func (p Principal) Deny(need Scope) *Denied {
	allowed := p.Scopes.Allows(need)
	// Of a token that is worth nothing here is said what is wrong with it.
	if p.barred != nil && need.Kind != Pull && (allowed || p.Credential <= Valid) {
		return p.barred
	}
	if allowed {
		return nil
	}
	if need.Kind < Pull || need.Kind > Admin {
		return &Denied{Status: http.StatusForbidden, text: "this is open to nobody: it names no scope, which is a bug in narwharf"}
	}
	d := &Denied{Status: http.StatusUnauthorized}
	needs, remedy := describeNeed(need)
	switch p.Credential {
	case Valid:
		d.Status = http.StatusForbidden
		d.text = fmt.Sprintf("%s; the token %q has %s: %s", needs, clip.ASCII(p.Name, 32), describeScopes(p.Scopes), remedy)
	case Unknown:
		d.text = fmt.Sprintf("%s; the token is not known here: revoked, or of another server; %s", needs, remedy)
	case Revoked:
		d.text = fmt.Sprintf("%s; the token %q was revoked on %s: %s", needs, clip.ASCII(p.Former, 32), stamp(p.RevokedAt), remedy)
	case Expired:
		d.text = fmt.Sprintf("%s; the token %q expired on %s: %s", needs, clip.ASCII(p.Former, 32), stamp(p.ExpiredAt), remedy)
	case Malformed:
		d.text = fmt.Sprintf("%s; %s", needs, clip.ASCII(p.Fault, 120))
	case Unchecked:
		d.Status = http.StatusServiceUnavailable
		d.text = needs + "; the token could not be checked now: try again soon"
	default:
		if need.Kind != Metrics {
			remedy = "give one as the password in netrc, or as Authorization: Bearer"
		}
		d.text = fmt.Sprintf("%s; the request carries no token: %s", needs, remedy)
	}
	return d
}

// DenyAs returns nil if p may act as host with the scope need, and otherwise why
// not. A token that is of one host is refused for every other, whatever else it or
// anybody may do.
func (p Principal) DenyAs(need Scope, host string) *Denied {
	if p.Host != "" && p.Host != host {
		return &Denied{Status: http.StatusForbidden, text: fmt.Sprintf(
			"the token %q is that of the host %s and cannot act as %s: give this host a token of its own, or its old name",
			clip.ASCII(p.Name, 64), clip.ASCII(p.Host, 64), clip.ASCII(host, 64))}
	}
	return p.Deny(need)
}

// describeNeed returns the first words of a denial, and what to do about a token
// without that scope.
func describeNeed(need Scope) (needs, remedy string) {
	if !need.valid() {
		return fmt.Sprintf("this needs the scope %s for what is not the name of a channel", need.Kind), "check the name"
	}
	scope := need.String()
	if len(scope) > 48 { // twice would be too long for a line
		return "this needs the scope " + clip.ASCII(scope, 72), "make one that has it with narwharf token new"
	}
	switch need.Kind {
	case Metrics:
		return "this needs the scope metrics", "make one with narwharf token new --name prometheus --scope metrics --out FILE, then in prometheus.yml: authorization: {credentials_file: FILE}"
	case Join:
		return "this needs a join token of " + need.Glob, "make one with narwharf token new --join " + need.Glob
	}
	return "this needs the scope " + scope, "make one with narwharf token new --scope " + scope
}

// describeScopes lists what a token has: "pull, follow:web and 3 more only".
func describeScopes(scopes Scopes) string {
	if len(scopes) == 0 {
		return "no scope"
	}
	const limit = 40
	list := clip.ASCII(scopes[0].String(), limit)
	for i, scope := range scopes[1:] {
		word := clip.ASCII(scope.String(), limit)
		if len(list)+len(word) > limit {
			return fmt.Sprintf("%s and %d more only", list, len(scopes)-1-i)
		}
		list += ", " + word
	}
	return list + " only"
}
