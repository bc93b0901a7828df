// Package dashboard is the page for people, under /ui/: rooms of views in the frame of package frame, and
// how to log in, to see who one is and what one may do, and to log out.
//
// It works without JavaScript. It never asks for a password
// by a Basic challenge, which browsers remember and send by themselves. Changes are forms; those of
// pages of other origins are refused. Where to go next is a path below /ui/ and nothing else.
package dashboard

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"time"

	"narwharf/cache/limits"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/dashboard/frame"
	"narwharf/hooks/dashboard/live"
	"narwharf/hooks/reply"
	"narwharf/hooks/sessions"
	"narwharf/signing/access"
	"narwharf/signing/access/session"
	"narwharf/signing/access/shortlived"
)

//go:embed files
var files embed.FS

// Options of New. API, Topics, Rooms and Banners may be nil.
type Options struct {
	Access   *access.Authenticator
	Sessions *session.Sessions
	Logins   *session.Logins
	Cookies  session.Cookies // those of Access
	Log      *slog.Logger
	Clock    func() time.Time

	API     http.Handler // answers /api/v1/
	Topics  live.Topics  // nil: nothing is live
	Rooms   []*frame.Room
	Banners []func(r *frame.Request) *frame.Banner
}

// Server is the page, an http.Handler for /ui and what is below.
type Server struct {
	Options
	*frame.Frame
	own  *frame.Room
	asks *limits.Slots // for questions to issuers
	work *limits.Work
}

// Path is below which the page is.
const Path = frame.Path

// New makes one.
func New(o Options) *Server {
	s := &Server{Options: o, asks: limits.NewSlots(asksAtOnce), work: limits.NewWork()}
	s.Frame = frame.New(frame.Options{
		Access: o.Access, API: o.API, Public: o.Cookies.Public, Topics: o.Topics, Log: o.Log, Clock: o.Clock, Banners: o.Banners,
		Used: func(ctx context.Context, who *access.Principal) error {
			_, err := s.used(ctx, who)
			return err
		},
	})
	below, err := fs.Sub(files, "files")
	if err != nil {
		panic(err) // it is in the program
	}
	s.own = &frame.Room{Files: below}
	s.Add(s.own)
	home := false
	for _, room := range o.Rooms {
		s.Add(room)
		for i := range room.Views {
			home = home || room.Views[i].Path == Path
		}
	}
	routes := map[string]func(http.ResponseWriter, *http.Request) error{
		"GET " + frame.Me: s.getWho, "GET /ui/login": s.getLogin, "POST /ui/login": s.postLogin, "GET /ui/login/{issuer}": s.startLogin,
		"GET " + session.Callback: s.getCallback, "POST /ui/logout": s.postLogout,
	}
	if !home {
		routes["GET /ui/{$}"] = s.getWho
	}
	for pattern, handle := range routes {
		s.Handle(pattern, func(w http.ResponseWriter, req *http.Request) error { return inWords(handle(w, req)) })
	}
	return s
}

// data is what the templates show.
type data struct {
	Next     string
	Possible bool // to log in
	Issuers  []string

	Name, Subject string
	Ends          time.Time
	Scopes        []string
	Sessions      []shown
	Others        []shown // for who is an admin
}

// shown is a session in a list.
type shown struct {
	ID, Whose, From string
	Since, Ends     time.Time
	This            bool
}

// inWords says what of a login went wrong.
func inWords(err error) error {
	var refused *session.Refused
	switch {
	case errors.As(err, &refused):
		return api.Errorf(api.Forbidden, "%s", refused.Error())
	case errors.Is(err, session.ErrNoTLS), errors.Is(err, session.ErrUnknown):
		return api.Errorf(api.Forbidden, "%s", err.Error())
	case errors.Is(err, limits.ErrBusy):
		return api.Errorf(api.Unavailable, "Too many logins failed from your address, or are under way: try again in a minute.")
	case errors.Is(err, shortlived.ErrFull):
		return api.Errorf(api.Unavailable, "Too many people are logged in by this rule: try again later.")
	}
	return err
}

// getWho says who somebody is.
func (s *Server) getWho(w http.ResponseWriter, req *http.Request) error {
	who := s.Access.Identify(req)
	if who.Credential == access.Unchecked {
		return fmt.Errorf("%w: %w", access.ErrUnchecked, who.Err)
	}
	if who.Credential != access.Valid {
		s.Send(w, req, "/ui/login")
		return nil
	}
	p := data{Name: who.Name, Subject: who.Grant.Subject}
	for _, sc := range who.Scopes {
		p.Scopes = append(p.Scopes, sc.String())
	}
	if who.Grant.Kind == session.Kind {
		ends, err := s.used(req.Context(), &who)
		if err != nil {
			return err
		}
		p.Ends = ends
		for _, l := range sessions.List(req.Context(), s.Sessions, &who, s.Clock()) {
			one := shown{ID: l.ID, Since: l.Created, Ends: l.Ends, From: l.From, This: l.This}
			if l.Own {
				p.Sessions = append(p.Sessions, one)
			} else {
				one.Whose = l.Name + " (" + l.Subject + ")"
				p.Others = append(p.Others, one)
			}
		}
	}
	s.Show(w, req, http.StatusOK, s.own, &frame.Page{Title: "Who you are", Body: "who", Data: p}, "")
	return nil
}

// used has a session go on that half of its time was not used.
func (s *Server) used(ctx context.Context, who *access.Principal) (ends time.Time, err error) {
	if !session.Tired(who.Grant, s.Clock()) {
		return who.Grant.Ends, nil
	}
	err = s.Sessions.Update(ctx, func(c shortlived.Change) error {
		t, err := session.Used(c, who.TokenID)
		ends = t.Grant.Ends
		return err
	})
	return ends, err
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// forWhom is in which a change is made: the audit log knows then for whom.
func forWhom(w http.ResponseWriter, req *http.Request, who *access.Principal) context.Context {
	return audit.For(req.Context(), reply.Actor(who), reply.RequestID(w))
}

func note(c shortlived.Change, kind, by, text string) {
	audit.Note(c.Tx, api.Event{Kind: kind, By: by, Text: text})
}
