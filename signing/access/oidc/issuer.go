package oidc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"golang.org/x/oauth2"

	"narwharf/narinfo/clip"
	"narwharf/signing/access/rule"
)

// Issuer is one whose JWTs are taken.
type Issuer struct {
	Config
	client *http.Client
	keys   *keySet

	mu         sync.Mutex
	provider   *gooidc.Provider // nil before the first answer
	discovered time.Time
}

func newIssuer(c Config, o Options, m *metrics) *Issuer {
	is := &Issuer{Config: c, client: newClient(c.Private, o.Roots)}
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	first, failing := true, false // fetches are one after the other
	is.keys = newKeySet(o.Clock, func(err error) {
		m.fetched(is, err)
		if err != nil {
			text := clip.Line(err.Error(), 500)
			log.Warn("the keys of an issuer cannot be had", "issuer", c.Name, "url", c.URL, "error", text)
			if !failing && o.Alarm != nil {
				o.Alarm(c.Name, text)
			}
		} else if (first || failing) && o.Alarm != nil {
			o.Alarm(c.Name, "")
		}
		first, failing = false, err != nil
	}, is.fetch(o.Clock))
	return is
}

func (is *Issuer) close() {
	is.keys.close()
	is.client.CloseIdleConnections()
}

// fetch asks for the keys: where they are, unless that was asked today and worked, and what they are.
func (is *Issuer) fetch(clock func() time.Time) func(ctx context.Context) ([]jose.JSONWebKey, error) {
	return func(ctx context.Context) ([]jose.JSONWebKey, error) {
		provider, err := is.discover(ctx, clock())
		if err != nil {
			return nil, err
		}
		var at struct {
			URL string `json:"jwks_uri"`
		}
		if err := provider.Claims(&at); err != nil {
			return nil, fmt.Errorf("its discovery document: %w", err)
		}
		if at.URL == "" {
			return nil, errors.New("its discovery document has no jwks_uri")
		}
		keys, err := fetchKeys(ctx, is.client, at.URL)
		if err != nil { // they may have moved
			is.mu.Lock()
			is.discovered = time.Time{}
			is.mu.Unlock()
		}
		return keys, err
	}
}

// discover reads the discovery document, or has it from less than a day ago.
func (is *Issuer) discover(ctx context.Context, now time.Time) (*gooidc.Provider, error) {
	is.mu.Lock()
	provider, fresh := is.provider, !is.discovered.IsZero() && now.Sub(is.discovered) < keysLast
	is.mu.Unlock()
	if fresh {
		return provider, nil
	}
	provider, err := gooidc.NewProvider(gooidc.ClientContext(ctx, is.client), is.URL)
	if err != nil {
		return nil, err
	}
	is.mu.Lock()
	defer is.mu.Unlock()
	is.provider, is.discovered = provider, now
	return provider, nil
}

// identity is what the claims of a JWT give that was verified.
func (is *Issuer) identity(t *token) (Identity, error) {
	r, g := rule.Match(is.Name, is.Rules, t.claims)
	if r == nil {
		return Identity{}, refuse("rule", "the JWT is one of %.64s and fits no rule: narwharf access explain says which claim differs", is.Name)
	}
	g.Ends = t.ends.Add(skew)
	return Identity{g, r}, nil
}

// Endpoint is where the issuer logs people in, by its discovery document: by code, and by device if it can.
// It asks the issuer if it has to. access.ErrUnchecked.
func (is *Issuer) Endpoint(ctx context.Context) (oauth2.Endpoint, error) {
	provider := is.known()
	if provider == nil {
		if err := is.keys.renew(ctx); err != nil {
			return oauth2.Endpoint{}, err
		}
		if provider = is.known(); provider == nil {
			return oauth2.Endpoint{}, is.keys.away()
		}
	}
	return provider.Endpoint(), nil
}

func (is *Issuer) known() *gooidc.Provider {
	is.mu.Lock()
	defer is.mu.Unlock()
	return is.provider
}

// Client asks the issuer, within its bounds.
func (is *Issuer) Client() *http.Client { return is.client }
