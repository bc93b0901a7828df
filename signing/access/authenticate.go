package access

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"time"

	"narwharf/signing/access/scope"
)

// Credential is what became of the credential of a request.
type Credential uint8

// The outcomes. Only Valid adds scopes to the anonymous ones.
const (
	None      Credential = iota // the request carries none
	Valid                       // one that is good now
	Unknown                     // a well-formed token that this server does not know
	Revoked                     // a token of this server, revoked
	Expired                     // a token of this server, past its end
	Malformed                   // nothing that could be a credential here; Principal.Fault says why
	Unchecked                   // whoever knows could not be asked; Principal.Err says why
)

// Principal is whom a request comes from and what he may do. It holds nothing secret.
type Principal struct {
	Name       string    // the token's or the grant's name if Credential is Valid, else "": anonymous
	Scopes     scope.Set // the anonymous ones and, if Valid, the credential's
	Credential Credential

	// Host, if it is not "", is the only host that the credential may act as.
	Host string

	Ends time.Time // when the credential does so by itself; zero: never

	// Grant is what a rule gave, if the credential is Valid and no token of Tokens.
	Grant Grant

	// TokenID is the public id in the token presented, for logs and to count by; of a JWT
	// and a certificate it is the grant's name and subject. It is "" with None and Malformed,
	// and with Unknown it is the bearer's claim alone.
	TokenID string

	// Address is where the request came from, without the port: what a trusted proxy says
	// it is (cache/limits has put it into RemoteAddr), or else the peer.
	Address string

	// Former is the name of a token that was presented but is Revoked or Expired;
	// its bearer does hold the secret.
	Former    string
	RevokedAt time.Time // if Revoked
	ExpiredAt time.Time // if Expired

	Fault string // if Malformed: what is wrong, without anything of the credential
	Err   error  // if Unchecked: why

	barred *Denied
}

// Guard says why a request may do no more than pull does, whoever makes it; nil if it may.
// good is that it shows a token that is: anybody can add a header.
type Guard func(r *http.Request, good bool) *Denied

// lookup is Tokens.Lookup.
type lookup interface {
	Lookup(ctx context.Context, id string) (Token, error)
}

// Options of NewAuthenticator. What is nil is not there.
type Options struct {
	Tokens lookup
	Short  ShortLookup // of tokens with IsShort
	JWT    Verifier
	// Certificate is what the client's certificate gives; asked if there is no header.
	Certificate func(*http.Request) (Grant, bool)
	// Session is the token in a browser's cookie, "" if there is none; asked if there is no header.
	Session   func(*http.Request) (secret string)
	Anonymous scope.Set        // what everybody may do
	Clock     func() time.Time // nil: time.Now
	Guards    []Guard
}

// Authenticator tells whom requests come from.
type Authenticator struct{ o Options }

// NewAuthenticator returns an Authenticator.
func NewAuthenticator(o Options) *Authenticator {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	o.Anonymous = o.Anonymous.Union(nil)
	return &Authenticator{o}
}

// maxCredential bounds an Authorization header, in bytes: a JWT with many claims fits. (Stock Nix
// sends no password of more than 4,085 bytes.)
const maxCredential = 16 << 10

// Identify tells whom r comes from. What is wrong with its credential is for [Principal.Deny] to tell.
func (a *Authenticator) Identify(r *http.Request) Principal {
	p := Principal{Scopes: a.o.Anonymous, Address: address(r)}
	switch headers := r.Header["Authorization"]; len(headers) {
	case 0:
		a.other(r, &p)
	case 1:
		a.header(r, headers[0], &p)
	default:
		p.malformed("the request has several Authorization headers: send one")
	}
	for _, guard := range a.o.Guards {
		if p.barred == nil {
			p.barred = guard(r, p.Credential == Valid)
		}
	}
	return p
}

// Anybody tells whether a scope needs no credential.
func (a *Authenticator) Anybody(need scope.Scope) bool { return a.o.Anonymous.Allows(need) }

// address is a request's RemoteAddr without the port.
func address(r *http.Request) string {
	port := strings.LastIndexByte(r.RemoteAddr, ':')
	if port < 0 {
		return r.RemoteAddr // of a unix socket
	}
	return strings.Trim(r.RemoteAddr[:port], "[]")
}

// other looks for a credential that is in no Authorization header.
func (a *Authenticator) other(r *http.Request, p *Principal) {
	if a.o.Session != nil {
		if secret := a.o.Session(r); secret != "" {
			a.token(r.Context(), secret, p)
			return
		}
	}
	if a.o.Certificate != nil {
		if g, ok := a.o.Certificate(r); ok {
			a.granted(g, p)
		}
	}
}

// header takes the credential of an Authorization header.
func (a *Authenticator) header(r *http.Request, header string, p *Principal) {
	secret, fault := credentialOf(header)
	switch {
	case fault != "":
		p.malformed(fault)
	case a.o.JWT != nil && isJWT(secret):
		g, err := a.o.JWT.Verify(r.Context(), secret)
		switch {
		case errors.Is(err, ErrUnchecked):
			p.Credential, p.Err = Unchecked, err
		case err != nil:
			p.malformed(err.Error())
		default:
			a.granted(g, p)
		}
	default:
		a.token(r.Context(), secret, p)
	}
}

// isJWT tells whether a credential has the form of a signed JWT (RFC 7515, 3.1) and of no token.
func isJWT(s string) bool { return !strings.HasPrefix(s, secretPrefix) && strings.Count(s, ".") == 2 }

func (p *Principal) malformed(fault string) { p.Credential, p.Fault = Malformed, fault }

// token takes a token of ours.
func (a *Authenticator) token(ctx context.Context, secret string, p *Principal) {
	id, err := ParseSecret(secret)
	if err != nil {
		p.malformed("the token " + err.Error())
		return
	}
	p.TokenID = id
	t, err := a.find(ctx, id)
	switch same := sameHash(secret, t.hash); { // without a token against zeros
	case err != nil && !errors.Is(err, ErrNotFound):
		p.Credential, p.Err = Unchecked, err
	case err != nil || !same:
		p.Credential = Unknown
	default:
		a.judge(&t, p)
	}
}

// known is what is known of a credential, whoever knows it.
type known struct {
	hash          Hash
	name, host    string
	scopes        scope.Set
	revoked, ends time.Time
	grant         *Grant // nil of a token of Tokens
}

// find looks a token of ours up.
func (a *Authenticator) find(ctx context.Context, id string) (known, error) {
	if a.o.Short != nil && IsShort(id) {
		hash, g, err := a.o.Short.Lookup(ctx, id)
		k := g.known()
		k.hash = hash
		return k, err
	}
	t, err := a.o.Tokens.Lookup(ctx, id)
	return known{hash: t.Hash, name: t.Name, host: t.Host, scopes: t.Scopes, revoked: t.Revoked, ends: t.Expires}, err
}

func (g *Grant) known() known {
	return known{name: g.Name(), host: g.Host, scopes: g.Scopes, ends: g.Ends, grant: g}
}

// granted is a credential that a rule knows.
func (a *Authenticator) granted(g Grant, p *Principal) {
	p.TokenID = g.Name() + ":" + g.Subject
	k := g.known()
	a.judge(&k, p)
}

// judge is what a credential is worth now whose bearer has shown that it is his.
func (a *Authenticator) judge(k *known, p *Principal) {
	switch {
	case !k.revoked.IsZero():
		p.Credential, p.Former, p.RevokedAt = Revoked, k.name, k.revoked
	case !k.ends.IsZero() && !a.o.Clock().Before(k.ends):
		p.Credential, p.Former, p.ExpiredAt = Expired, k.name, k.ends
	default:
		p.Credential, p.Name, p.Host, p.Ends = Valid, k.name, k.host, k.ends
		if k.grant != nil {
			p.Grant = *k.grant
		}
		p.Scopes = a.o.Anonymous.Union(k.scopes)
	}
}

// Still judges a credential anew that met a need when a request came, as a poll does that was
// parked: it returns why it does not any more. id is Principal.TokenID, of a Principal with a Topic.
func (a *Authenticator) Still(ctx context.Context, id string, need scope.Scope) *Denied {
	p := Principal{Scopes: a.o.Anonymous, TokenID: id}
	t, err := a.find(ctx, id)
	switch {
	case errors.Is(err, ErrNotFound):
		p.Credential = Unknown
	case err != nil:
		p.Credential, p.Err = Unchecked, err
	default:
		if a.judge(&t, &p); p.Credential == Valid {
			return nil // the scopes of a token do not change
		}
	}
	return p.Deny(need)
}

// Topic is that of the notices in which the state tells of changes of the token that was shown, ""
// if there are none.
func (p *Principal) Topic() string {
	if p.Credential != Valid || !validID(p.TokenID) {
		return ""
	}
	return Topic(p.TokenID)
}

// Topic is that of the token of an id. Of short-lived ones it is that of their mirror.Table.
func Topic(id string) string {
	if IsShort(id) {
		return topicShort + id
	}
	return topicToken + id
}

// sameHash takes the same time whether it is the same or not.
func sameHash(secret string, want Hash) bool {
	hash := sha256.Sum256([]byte(secret))
	return subtle.ConstantTimeCompare(hash[:], want[:]) == 1
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
