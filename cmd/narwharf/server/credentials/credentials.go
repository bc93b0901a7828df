// Package credentials shows the page tokens and rules, and revokes.
package credentials

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"narwharf/cmd/narwharf/server/token"
	"narwharf/hooks/api"
	"narwharf/hooks/dashboard/people"
	"narwharf/hooks/serverconfig"
	"narwharf/narinfo/clip"
	"narwharf/signing/access"
	"narwharf/signing/access/shortlived"
)

// Credentials is a people.Credentials.
type Credentials struct {
	Store  token.Store
	Config *serverconfig.Config
}

// Tokens implements people.Credentials.
func (c Credentials) Tokens(ctx context.Context) ([]people.Token, error) {
	var text bytes.Buffer
	if _, err := token.List(ctx, c.Store, true, &text); err != nil {
		return nil, err
	}
	var listed []token.Listed
	if err := json.Unmarshal(text.Bytes(), &listed); err != nil {
		return nil, err
	}
	list := make([]people.Token, len(listed))
	for i, t := range listed {
		list[i] = people.Token{ID: t.ID, Name: t.Name, State: t.State, Scopes: t.Scopes, Created: t.Created, Expires: t.Expires, By: t.By, Host: t.Host,
			Kind: t.Kind, Subject: t.Subject, Uses: t.Uses, Used: len(t.Used)}
	}
	return list, nil
}

// Revoke implements people.Credentials.
func (c Credentials) Revoke(ctx context.Context, id string) error {
	_, err := token.Revoke(ctx, c.Store, id, io.Discard)
	return said(err)
}

// RevokeRule implements people.Credentials.
func (c Credentials) RevokeRule(ctx context.Context, name string) error {
	_, err := token.RevokeRule(ctx, c.Store, name, io.Discard)
	return said(err)
}

func said(err error) error {
	if errors.Is(err, access.ErrNotFound) || errors.Is(err, shortlived.ErrNotFound) {
		return api.Errorf(api.NotFound, "There is no such token, or it has ended.")
	}
	return err
}

// Rules implements people.Credentials.
func (c Credentials) Rules() (list []people.Rule) {
	for i := range c.Config.Access.OIDC {
		issuer := &c.Config.Access.OIDC[i]
		for _, r := range issuer.Rules {
			ttl := time.Duration(r.TTL)
			if ttl == 0 {
				ttl = time.Hour
			}
			rule := people.Rule{Name: issuer.Name + "/" + r.Name, Scopes: r.Scopes, TTL: ttl}
			for name, value := range r.Claims {
				rule.Claims = append(rule.Claims, clip.Line(fmt.Sprintf("%s = %v", name, value), 300))
			}
			slices.Sort(rule.Claims)
			list = append(list, rule)
		}
	}
	return list
}
