// Package login is what `narwharf login` does: it gets a token for this machine, by the word of
// a CI about its job, by a person who logs in at an issuer, or by one that was pasted; and it
// puts the token where Nix and our commands find it.
//
// A JWT is never kept: it is exchanged for a token of the server's, which is short, may last
// longer and can be revoked.
package login

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"narwharf/hooks/api"
	wire "narwharf/hooks/api/login"
	"narwharf/signing/access"
)

// Login is one that is under way.
type Login struct {
	// Client is one of the server, with a token or without ("").
	Client func(token string) (*api.Client, error)
	Issuer string // the name of the issuer that is meant; "": the one that fits
	// Say prints a line for whoever waits.
	Say func(format string, args ...any)

	info *wire.Info // nil before the server was asked, or if it does not say
}

// Result is a token that is good.
type Result struct {
	Secret string
	You    *wire.You // nil if the server does not say
	Ends   time.Time // zero: never, or not known
}

// Ask asks the server how one can log in.
func (l *Login) Ask(ctx context.Context) (err error) {
	c, err := l.Client("")
	if err == nil {
		l.info, err = wire.Client{Client: c}.Info(ctx)
	}
	return err
}

// With logs in with what somebody has, a token or a JWT.
func (l *Login) With(ctx context.Context, secret string) (*Result, error) {
	if isJWT(secret) {
		return l.exchange(ctx, secret)
	}
	if _, err := access.ParseSecret(secret); err != nil {
		return nil, fmt.Errorf("that %w", err)
	}
	return l.check(ctx, &Result{Secret: secret})
}

// isJWT tells whether a text has the form of a JWT.
func isJWT(s string) bool { return strings.HasPrefix(s, "eyJ") && strings.Count(s, ".") == 2 }

// exchange gets a token for a JWT.
func (l *Login) exchange(ctx context.Context, jwt string) (*Result, error) {
	if l.info == nil {
		return nil, errors.New("the server exchanges no JWTs: it is a Narwharf from before that; log in with a token (narwharf login --token-file FILE)")
	}
	c, err := l.Client("")
	if err != nil {
		return nil, err
	}
	t, err := wire.Client{Client: c}.Exchange(ctx, jwt)
	if err != nil {
		return nil, err
	}
	if _, err := access.ParseSecret(t.Secret); err != nil {
		return nil, fmt.Errorf("the server answered with what %w", err)
	}
	return l.check(ctx, &Result{Secret: t.Secret, Ends: time.Now().Add(time.Duration(t.ExpiresIn) * time.Second)})
}

// check looks whether the server takes a token, and who that is.
func (l *Login) check(ctx context.Context, r *Result) (*Result, error) {
	if l.info == nil {
		return r, nil
	}
	c, err := l.Client(r.Secret)
	if err != nil {
		return nil, err
	}
	info, err := wire.Client{Client: c}.Info(ctx)
	switch {
	case err != nil:
		return nil, err
	case info == nil || info.You == nil:
		return nil, errors.New("the server does not take this token: it is revoked, has ended, or is of another server")
	}
	r.You = info.You
	if !r.You.Ends.IsZero() {
		r.Ends = r.You.Ends
	}
	return r, nil
}

// Job logs in as the job that this program is part of.
func (l *Login) Job(ctx context.Context, ci *CI) (*Result, error) {
	audience := ""
	if is := l.choose(wire.JWT, ci.issues); is != nil {
		audience = is.Audience
	} else if ci.asks {
		return nil, l.unclear(wire.JWT, ci.Name)
	}
	jwt, err := ci.token(ctx, audience)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ci.Name, err)
	}
	return l.exchange(ctx, jwt)
}

// Person tells whether people can log in by another device, here or somewhere that Issuer names.
func (l *Login) Person() bool {
	return l.Issuer != "" || len(l.having(wire.Device)) > 0
}

// having are the issuers with a flow.
func (l *Login) having(flow string) (list []wire.Issuer) {
	if l.info == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(l.info.Issuers), func(is wire.Issuer) bool { return !slices.Contains(is.Flows, flow) })
}

// choose is the issuer that is meant: by its name, or the one that fits, or the only one; nil if that
// is not clear.
func (l *Login) choose(flow string, fits func(url string) bool) *wire.Issuer {
	list := l.having(flow)
	named := slices.DeleteFunc(slices.Clone(list), func(is wire.Issuer) bool { return l.Issuer != "" && is.Name != l.Issuer })
	fit := slices.DeleteFunc(slices.Clone(named), func(is wire.Issuer) bool { return !fits(is.URL) })
	switch {
	case len(fit) == 1:
		return &fit[0]
	case len(named) == 1 && (l.Issuer != "" || len(list) == 1):
		return &named[0]
	}
	return nil
}

// unclear is why choose found nothing.
func (l *Login) unclear(flow, who string) error {
	var names []string
	for _, is := range l.having(flow) {
		names = append(names, is.Name)
	}
	switch {
	case l.info == nil:
		return errors.New("the server does not say how one can log in: it is a Narwharf from before that; log in with a token (narwharf login --token-file FILE)")
	case len(names) == 0:
		return fmt.Errorf("the server trusts no issuer by which %s could log in: its [[access.oidc]] would say so; or log in with a token (narwharf login --token-file FILE)", who)
	}
	return fmt.Errorf("the server trusts several issuers, none of which is plainly that of %s: add --oidc NAME, one of %s", who, strings.Join(names, ", "))
}
