package login

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	wire "narwharf/hooks/api/login"
	"narwharf/narinfo/clip"
)

// Device has a person log in at an issuer, with another device (RFC 8628). client asks the issuer.
func (l *Login) Device(ctx context.Context, client *http.Client) (*Result, error) {
	is := l.choose(wire.Device, func(string) bool { return false })
	if is == nil {
		return nil, l.unclear(wire.Device, "a person")
	}
	ctx = context.WithValue(ctx, oauth2.HTTPClient, client)
	config, err := deviceConfig(ctx, is)
	if err != nil {
		return nil, fmt.Errorf("the issuer %s: %w", is.Name, err)
	}
	d, err := config.DeviceAuth(ctx)
	if err != nil {
		return nil, fmt.Errorf("the issuer %s begins no login: %w", is.Name, oauthError(err))
	}
	at, err := url.Parse(d.VerificationURI)
	if err != nil || at.Scheme != "https" {
		return nil, fmt.Errorf("the issuer %s sends people to %s, which is no https URL", is.Name, clip.Quote(d.VerificationURI, 100))
	}
	l.Say("Open %s and enter %s", clip.Line(d.VerificationURI, 500), clip.Line(d.UserCode, 60))
	if d.VerificationURIComplete != "" {
		l.Say("or open %s", clip.Line(d.VerificationURIComplete, 500))
	}
	if !d.Expiry.IsZero() {
		l.Say("It waits for you until %s.", d.Expiry.Local().Format(time.TimeOnly))
	}
	t, err := config.DeviceAccessToken(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("the issuer %s did not log you in: %w", is.Name, oauthError(err))
	}
	jwt, ok := t.Extra("id_token").(string)
	if !ok || jwt == "" {
		return nil, fmt.Errorf("the issuer %s sent no ID token: does its client %s have the scope openid?", is.Name, clip.Line(is.ClientID, 100))
	}
	return l.exchange(ctx, jwt)
}

// deviceConfig reads the issuer's discovery document.
func deviceConfig(ctx context.Context, is *wire.Issuer) (*oauth2.Config, error) {
	provider, err := oidc.NewProvider(ctx, is.URL)
	if err != nil {
		return nil, err
	}
	var says struct {
		Scopes []string `json:"scopes_supported"`
	}
	if err := provider.Claims(&says); err != nil {
		return nil, err
	}
	c := &oauth2.Config{ClientID: is.ClientID, Endpoint: provider.Endpoint(), Scopes: []string{oidc.ScopeOpenID}}
	c.Endpoint.AuthStyle = oauth2.AuthStyleInParams // a public client
	if c.Endpoint.DeviceAuthURL == "" {
		return nil, errors.New("it lets nobody log in by another device: log in with a token (narwharf login --token-file -)")
	}
	for _, scope := range []string{"profile", "email", "groups"} { // for the claims that rules may name
		if slices.Contains(says.Scopes, scope) {
			c.Scopes = append(c.Scopes, scope)
		}
	}
	return c, nil
}

// oauthError is an issuer's refusal in words.
func oauthError(err error) error {
	var e *oauth2.RetrieveError
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return errors.New("the time is over")
	case !errors.As(err, &e) || e.ErrorCode == "":
		return err
	case e.ErrorCode == "access_denied":
		return errors.New("it was refused there")
	case e.ErrorCode == "expired_token":
		return errors.New("the time is over")
	}
	return errors.New(clip.Line(e.ErrorCode+" "+e.ErrorDescription, 300))
}
