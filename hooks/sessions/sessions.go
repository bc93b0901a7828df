// Package sessions lists and ends the sessions of people in browsers, for the page and for the API.
// Everybody sees and ends his own, whatever he shows of the same issuer and subject; an admin those of
// others as well.
package sessions

import (
	"context"
	"fmt"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/api/login"
	"narwharf/hooks/audit"
	"narwharf/narinfo/clip"
	"narwharf/signing/access"
	"narwharf/signing/access/scope"
	"narwharf/signing/access/session"
	"narwharf/signing/access/shortlived"
)

// List is what somebody may see, the oldest first.
func List(ctx context.Context, s *session.Sessions, who *access.Principal, now time.Time) []login.Session {
	list := []login.Session{}
	for _, t := range s.List(ctx, now) {
		own := isOf(&t.Grant, who)
		if !own && !IsAdmin(who) {
			continue
		}
		list = append(list, login.Session{
			ID: t.ID, Name: t.Grant.Name(), Issuer: t.Grant.Issuer, Subject: clip.Line(t.Grant.Subject, 256), Created: t.Created, Ends: t.Grant.Ends,
			From: t.Note, Own: own, This: t.ID == who.TokenID,
		})
	}
	return list
}

// End ends one by its id, or login.AllSessions of who asks, and says how many that were. shortlived.ErrNotFound of one
// that has ended, or is another's.
func End(c shortlived.Change, who *access.Principal, which string) (n int, err error) {
	if issuer, subject := person(who); which == login.AllSessions && subject != "" {
		if n, err = c.RevokeSubject(session.Kind, issuer, subject); err == nil {
			note(c, who, fmt.Sprintf("%s logged out everywhere: %d sessions", who.Name, n))
		}
		return n, err
	}
	t, err := c.Find(which)
	own := err == nil && isOf(&t.Grant, who)
	if err == nil && !own && !IsAdmin(who) {
		err = shortlived.ErrNotFound
	}
	if err == nil {
		_, err = session.End(c, which)
	}
	switch {
	case err != nil:
		return 0, err
	case own:
		note(c, who, who.Name+" logged out")
	default:
		note(c, who, who.Name+" ended a session of "+t.Grant.Name())
	}
	return 1, nil
}

// person is whose sessions are somebody's own: those of the subject of whom an issuer speaks, or those that
// were made of his token.
func person(who *access.Principal) (issuer, subject string) {
	switch {
	case who.Grant.Issuer != "", who.Grant.Kind == session.Kind:
		return who.Grant.Issuer, who.Grant.Subject
	case who.Grant.Kind == "":
		return "", who.TokenID
	}
	return "", "" // a machine, or a certificate
}

func isOf(g *access.Grant, who *access.Principal) bool {
	issuer, subject := person(who)
	return subject != "" && g.Issuer == issuer && g.Subject == subject
}

// IsAdmin tells whether somebody may do everything.
func IsAdmin(who *access.Principal) bool { return who.Deny(scope.Scope{Kind: scope.Admin}) == nil }

func note(c shortlived.Change, who *access.Principal, text string) {
	audit.Note(c.Tx, api.Event{Kind: "session.ended", By: who.Name, Text: text})
}
