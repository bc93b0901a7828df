package server

import (
	"time"

	"narwharf/hooks/dashboard"
	"narwharf/signing/access"
	"narwharf/signing/access/oidc"
	"narwharf/signing/access/session"
)

// cookies are those of browsers that are logged in.
func (d *DataDir) cookies() session.Cookies { return session.Cookies{Public: d.Config.URL()} }

// page is the page for people.
func (d *DataDir) page(auth *access.Authenticator, issuers *oidc.Issuers) *dashboard.Server {
	secret := func(issuer string) (string, error) {
		for i := range d.Config.Access.OIDC {
			if o := &d.Config.Access.OIDC[i]; o.Name == issuer {
				return o.ClientSecret()
			}
		}
		return "", nil
	}
	return dashboard.New(dashboard.Options{
		Access: auth, Sessions: session.New(d.Short, d.Tokens), Cookies: d.cookies(), Log: d.log, Clock: time.Now,
		Logins: &session.Logins{Issuers: issuers, Secret: secret, Public: d.Config.URL()},
	})
}
