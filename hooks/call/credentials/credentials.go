// Package credentials answers what is at /api/v1/challenge, join, token, login, sessions and bootstrap: how people,
// jobs and machines come by what they show afterwards.
package credentials

import (
	"time"

	"narwharf/hooks/api/login"
	"narwharf/hooks/channel"
	"narwharf/hooks/exchange"
	"narwharf/hooks/host"
	"narwharf/hooks/identity"
	"narwharf/hooks/intake"
	"narwharf/signing/access"
	"narwharf/signing/access/session"
)

// Handlers answer them.
type Handlers struct {
	Tokens     *access.Tokens
	Exchange   *exchange.Exchanger
	Sessions   *session.Sessions
	Issuers    []login.Issuer // by which one can log in
	Identities *identity.Identities
	Hosts      *host.Hosts
	Channels   *channel.Channels
	Clock      func() time.Time
	// Script makes a first boot's; nil where hosts are not to trust the server.
	Script func(intake.BootstrapRequest) (string, error)
}
