package session

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"narwharf/signing/access"
	"narwharf/signing/access/oidc"
	"narwharf/signing/access/rule"
)

// Logins log people in at issuers.
type Logins struct {
	Issuers *oidc.Issuers
	Secret  func(issuer string) (string, error) // of the client at an issuer, "" if it has none
	Public  *url.URL                            // public_url, nil if there is none: nobody can log in at an issuer then
}

// Flow is a login on its way. It is the browser's to keep, and nothing in it is for others.
type Flow struct {
	Issuer   string    `json:"i"` // its name
	State    string    `json:"s"`
	Nonce    string    `json:"n"`
	Verifier string    `json:"v"`
	Next     string    `json:"p"` // where the browser wants to go
	Began    time.Time `json:"b"`
}

// flowLife is how long a login may take.
const flowLife = 10 * time.Minute

// ErrUnknown is of a name that no issuer with a client has.
var ErrUnknown = errors.New("there is no issuer of that name to log in at")

// Names are the issuers that people can log in at.
func (l *Logins) Names() (names []string) {
	if l.Public == nil {
		return nil
	}
	for _, is := range l.Issuers.All() {
		if is.ClientID != "" {
			names = append(names, is.Name)
		}
	}
	return names
}

// Callback is where issuers send browsers back to, below the path of public_url.
const Callback = "/ui/callback"

func (l *Logins) config(ctx context.Context, name string) (*oidc.Issuer, *oauth2.Config, error) {
	is := l.Issuers.Issuer(name)
	if is == nil || is.ClientID == "" || l.Public == nil {
		return nil, nil, ErrUnknown
	}
	endpoint, err := is.Endpoint(ctx)
	if err != nil {
		return nil, nil, err
	}
	secret, err := l.Secret(name)
	if err != nil {
		return nil, nil, err
	}
	return is, &oauth2.Config{
		ClientID: is.ClientID, ClientSecret: secret, Endpoint: endpoint,
		RedirectURL: l.Public.String() + Callback, Scopes: []string{"openid", "profile", "email"},
	}, nil
}

// Start begins a login at an issuer, and says where to send the browser. ErrUnknown,
// access.ErrUnchecked.
func (l *Logins) Start(ctx context.Context, issuer, next string, now time.Time) (f Flow, target string, err error) {
	_, config, err := l.config(ctx, issuer)
	if err != nil {
		return f, "", err
	}
	f = Flow{Issuer: issuer, State: rand.Text(), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(), Next: next, Began: now}
	return f, config.AuthCodeURL(f.State, oauth2.S256ChallengeOption(f.Verifier), oauth2.SetAuthURLParam("nonce", f.Nonce)), nil
}

// Refused is why a login came to nothing, for the person in front of the browser.
type Refused struct{ text string }

func (r *Refused) Error() string { return r.text }

// Finish ends a login: q is with what the issuer has sent the browser back. A *Refused,
// access.ErrUnchecked, or what went wrong here.
func (l *Logins) Finish(ctx context.Context, f Flow, q url.Values, now time.Time) (access.Grant, error) {
	refuse := func(format string, args ...any) (access.Grant, error) {
		return access.Grant{}, &Refused{fmt.Sprintf(format, args...)}
	}
	if f.State == "" || now.Sub(f.Began) > flowLife || now.Before(f.Began.Add(-time.Minute)) {
		return refuse("this login is over, or was begun in another browser: log in again")
	}
	if subtle.ConstantTimeCompare([]byte(f.State), []byte(q.Get("state"))) != 1 {
		return refuse("this is the answer to another login: log in again")
	}
	is, config, err := l.config(ctx, f.Issuer)
	if errors.Is(err, ErrUnknown) {
		return refuse("the issuer of this login is gone from the configuration: log in again")
	}
	if err != nil {
		return access.Grant{}, err
	}
	if iss := q.Get("iss"); iss != "" && iss != is.URL { // RFC 9207
		return refuse("this is the answer of another issuer: log in again")
	}
	if q.Get("error") != "" || q.Get("code") == "" {
		return refuse("%s did not log you in%s", f.Issuer, reason(q.Get("error")))
	}
	answer, err := config.Exchange(context.WithValue(ctx, oauth2.HTTPClient, is.Client()), q.Get("code"), oauth2.VerifierOption(f.Verifier))
	if wrong := new(oauth2.RetrieveError); errors.As(err, &wrong) {
		return refuse("%s does not take the code of this login%s: log in again", f.Issuer, reason(wrong.ErrorCode))
	}
	if err != nil {
		return access.Grant{}, fmt.Errorf("%w: ask %s for the ID token of a login: %w", access.ErrUnchecked, f.Issuer, err)
	}
	jwt, _ := answer.Extra("id_token").(string)
	id, err := l.Issuers.Login(ctx, f.Issuer, jwt, f.Nonce)
	if wrong := new(oidc.Refused); errors.As(err, &wrong) {
		return refuse("%s", wrong.Error())
	}
	if err != nil {
		return access.Grant{}, err
	}
	return rule.Shown(id.Grant), nil
}

// reason is an error of OAuth, if it is one of those words.
func reason(code string) string {
	if code == "" || len(code) > 40 || strings.Trim(code, "abcdefghijklmnopqrstuvwxyz_") != "" {
		return ""
	}
	return " (" + code + ")"
}
