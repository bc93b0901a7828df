package login

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"narwharf/hooks/api"
)

// Session is what keeps a person logged in with a browser.
type Session struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`              // issuer and rule, or that of a token: "corp/people", "session/alice"
	Issuer  string    `json:"issuer,omitempty"`  // its name in the configuration; "" of one that a token began
	Subject string    `json:"subject,omitempty"` // who, in the issuer's words, or the id of the token
	Created time.Time `json:"created"`
	Ends    time.Time `json:"ends"` // if it is not used meanwhile
	From    string    `json:"from"` // address and browser
	Own     bool      `json:"own"`  // of who asks
	This    bool      `json:"this,omitempty"`
}

// AllSessions stands for all sessions of who asks.
const AllSessions = "all"

const sessionsPath = "/api/v1/sessions"

// Sessions lists one's own sessions, and to an admin those of others.
func (c Client) Sessions(ctx context.Context) ([]Session, error) {
	a, err := ask[struct {
		Sessions []Session `json:"sessions"`
	}](ctx, c, api.Call{Path: sessionsPath})
	return a.Sessions, err
}

// EndSession ends one, or AllSessions.
func (c Client) EndSession(ctx context.Context, id string) error {
	_, err := c.Do(ctx, api.Call{Method: http.MethodDelete, Path: sessionsPath + "/" + url.PathEscape(id)})
	return err
}
