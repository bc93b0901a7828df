// Package session is how people log in with a browser, and what keeps them logged in.
//
// Somebody logs in at an issuer of [[access.oidc]], by a code with PKCE (Logins), or shows a token once.
// A session is a short-lived token of the kind "session" with the scopes of the rule or of the
// token, and its secret is the browser's cookie (Cookies). It ends when it was not used for an hour, or
// for the ttl of its rule; twelve hours after the login in any case; when it is ended here; when
// the token is revoked that it was made of, or ends. One person has twenty at most: the one that
// would end first makes room.
//
// Each login has a session of its own, and ends the one that the browser had: nobody can give a
// browser a session that he knows before the login. What a login has to remember on its way to the issuer,
// its state, nonce and verifier, is in a cookie of ten minutes, and nothing of it at the server.
package session

import (
	"context"
	"errors"
	"time"

	"narwharf/signing/access"
	"narwharf/signing/access/shortlived"
)

// Kind is that of the grants.
const Kind = "session"

const (
	idle  = time.Hour // where no rule says another time
	whole = 12 * time.Hour
	most  = 20 // of one person
)

// Sessions are those of a server.
type Sessions struct {
	short  *shortlived.Store
	tokens lookup
}

// lookup is access.Tokens.Lookup.
type lookup interface {
	Lookup(ctx context.Context, id string) (access.Token, error)
}

// New makes Sessions of short-lived tokens, and of the tokens that people show.
func New(short *shortlived.Store, tokens lookup) *Sessions { return &Sessions{short, tokens} }

// Lookup is that of the short-lived tokens, but that a session which was made of a token is worth
// no more than that is now.
func (s *Sessions) Lookup(ctx context.Context, id string) (access.Hash, access.Grant, error) {
	hash, g, err := s.short.Lookup(ctx, id)
	if err != nil || g.Kind != Kind || g.Issuer != "" {
		return hash, g, err
	}
	t, err := s.tokens.Lookup(ctx, g.Subject)
	switch {
	case err != nil:
		return access.Hash{}, access.Grant{}, err
	case !t.Revoked.IsZero():
		return access.Hash{}, access.Grant{}, access.ErrNotFound
	case !t.Expires.IsZero() && t.Expires.Before(g.Ends):
		g.Ends = t.Expires
	}
	return hash, g, nil
}

// OfToken is what a token gives that somebody shows.
func OfToken(p access.Principal) (access.Grant, error) {
	if p.Credential != access.Valid || p.Grant.Kind != "" {
		return access.Grant{}, errors.New("that is no token of this server that is good now")
	}
	if p.Host != "" {
		return access.Grant{}, errors.New("that token is a host's, and no person's")
	}
	return access.Grant{Rule: p.Name, Subject: p.TokenID, Scopes: p.Scopes}, nil
}

// Begin makes a session of a grant, and ends the one with the id old, if there is one. from says where
// the browser is.
func Begin(c shortlived.Change, g access.Grant, from, old string) (secret string, t shortlived.Token, err error) {
	g.Kind, g.Host, g.Owner, g.Forget = Kind, "", "", 0
	if g.TTL == 0 {
		g.TTL = idle
	}
	own, err := c.OfSubject(Kind, g.Issuer, g.Subject)
	if err != nil {
		return "", t, err
	}
	for ; len(own) >= most; own = own[1:] {
		if _, err := c.Revoke(own[0].ID); err != nil {
			return "", t, err
		}
	}
	if _, err := End(c, old); err != nil && !errors.Is(err, shortlived.ErrNotFound) {
		return "", t, err
	}
	return c.Issue(g, c.Time.Add(g.TTL), from)
}

// Used has a session go on, up to its whole life. ErrNotFound.
func Used(c shortlived.Change, id string) (shortlived.Token, error) {
	t, err := find(c, id)
	if err != nil {
		return t, err
	}
	ends := c.Time.Add(t.Grant.TTL)
	if last := t.Created.Add(whole); ends.After(last) {
		ends = last
	}
	if !ends.After(t.Grant.Ends) {
		return t, nil
	}
	return c.Extend(id, ends)
}

// Tired tells whether a session should be told that it is used: half of its time without that is over.
func Tired(g access.Grant, now time.Time) bool {
	return g.Kind == Kind && g.Ends.Sub(now) < g.TTL/2
}

// End ends a session. ErrNotFound, also of a short-lived token of another kind.
func End(c shortlived.Change, id string) (shortlived.Token, error) {
	if _, err := find(c, id); err != nil {
		return shortlived.Token{}, err
	}
	return c.Revoke(id)
}

func find(c shortlived.Change, id string) (shortlived.Token, error) {
	t, err := c.Find(id)
	if err == nil && t.Grant.Kind != Kind {
		err = shortlived.ErrNotFound
	}
	return t, err
}

// List is the sessions that go on, the oldest first.
func (s *Sessions) List(ctx context.Context, now time.Time) (list []shortlived.Token) {
	for _, t := range s.short.List() {
		if t.Grant.Kind != Kind {
			continue
		}
		if _, g, err := s.Lookup(ctx, t.ID); err == nil && now.Before(g.Ends) {
			list = append(list, t)
		}
	}
	return list
}

// Update changes sessions in a transaction of its own.
func (s *Sessions) Update(ctx context.Context, fn func(c shortlived.Change) error) error {
	return s.short.Update(ctx, fn)
}
