// Package login is what goes over the wire when somebody logs in: which issuers a server
// trusts, and the exchange of a JWT for a token of the server's.
package login

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"narwharf/hooks/api"
)

// Info is how one can log in.
type Info struct {
	Issuers []Issuer `json:"issuers"`
	// You is whose credential the request had, nil if it had none that is good.
	You *You `json:"you,omitempty"`
}

// Issuer is one whose JWTs a server takes.
type Issuer struct {
	Name     string   `json:"name"`
	URL      string   `json:"issuer"`
	Audience string   `json:"audience"`            // for which a program has to ask
	ClientID string   `json:"client_id,omitempty"` // with which people log in
	Flows    []string `json:"flows"`               // of the constants below
}

// Flows.
const (
	JWT    = "jwt"    // a program has a JWT, and shows it or exchanges it
	Device = "device" // a person types a code elsewhere
	Code   = "code"   // a person's browser is sent to the issuer, by the server
)

// You is who has a credential, and what it gives.
type You struct {
	Credential string    `json:"credential"` // as api.Actor has it
	Name       string    `json:"name"`
	Subject    string    `json:"subject,omitempty"`
	Host       string    `json:"host,omitempty"`
	Scopes     []string  `json:"scopes"`
	Ends       time.Time `json:"ends,omitzero"` // of what is short-lived
}

// Client makes the calls.
type Client struct{ *api.Client }

const tokenPath = "/api/v1/token"

func ask[T any](ctx context.Context, c Client, call api.Call) (v T, err error) {
	a, err := c.Do(ctx, call)
	if err == nil {
		err = a.Decode(&v)
	}
	return v, err
}

// Info asks how to log in. A server before 2026-12 does not say: nil.
func (c Client) Info(ctx context.Context) (*Info, error) {
	info, err := ask[*Info](ctx, c, api.Call{Path: "/api/v1/login"})
	if e := (*api.Error)(nil); errors.As(err, &e) && e.Kind == api.NotFound && !e.Foreign() {
		return nil, nil
	}
	return info, err
}

// Exchange exchanges a JWT for a token.
func (c Client) Exchange(ctx context.Context, jwt string) (*Token, error) {
	return ask[*Token](ctx, c, api.Call{Method: http.MethodPost, Path: tokenPath, Body: url.Values{
		"grant_type":         {GrantExchange},
		"subject_token":      {jwt},
		"subject_token_type": {TypeJWT},
	}})
}

// Revoke ends the token that the client has, if it is a short-lived one.
func (c Client) Revoke(ctx context.Context) error {
	_, err := c.Do(ctx, api.Call{Method: http.MethodDelete, Path: tokenPath})
	return err
}
