package dashboard

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"narwharf/cache/limits"
	"narwharf/hooks/api/login"
	"narwharf/hooks/dashboard/frame"
	"narwharf/hooks/sessions"
	"narwharf/narinfo/clip"
	"narwharf/signing/access"
	"narwharf/signing/access/session"
	"narwharf/signing/access/shortlived"
)

// loginPage shows how to log in, and what was wrong with a try.
func (s *Server) loginPage(w http.ResponseWriter, req *http.Request, status int, next, wrong string) {
	p := data{Next: next, Issuers: s.Logins.Names(), Possible: true}
	if err := s.Cookies.Possible(req); err != nil {
		p.Possible, wrong, status = false, err.Error(), http.StatusForbidden
	}
	s.Show(w, req, status, s.own, &frame.Page{Title: "Log in", Body: "login", Data: p}, wrong)
}

func (s *Server) getLogin(w http.ResponseWriter, req *http.Request) error {
	s.loginPage(w, req, http.StatusOK, frame.Local(req.URL.Query().Get("next")), "")
	return nil
}

// postLogin takes a token, once.
func (s *Server) postLogin(w http.ResponseWriter, req *http.Request) error {
	if err := s.Cookies.Possible(req); err != nil {
		return err
	}
	if err := frame.Form(req); err != nil {
		return err
	}
	next := frame.Local(req.PostForm.Get("next"))
	who := s.of(req, strings.TrimSpace(req.PostForm.Get("token")))
	if who.Credential == access.Unchecked {
		return fmt.Errorf("%w: %w", access.ErrUnchecked, who.Err)
	}
	grant, err := session.OfToken(who)
	if err != nil {
		s.loginPage(w, req, http.StatusForbidden, next, "Not logged in: "+err.Error()+".")
		return nil
	}
	return s.begin(w, req, grant, next)
}

// of is who would make a request with a token.
func (s *Server) of(req *http.Request, token string) access.Principal {
	shown := *req
	shown.Header = http.Header{"Authorization": {"Bearer " + token}}
	return s.Access.Identify(&shown)
}

// startLogin sends a browser to an issuer.
func (s *Server) startLogin(w http.ResponseWriter, req *http.Request) error {
	if err := s.Cookies.Possible(req); err != nil {
		return err
	}
	flow, target, err := s.Logins.Start(req.Context(), req.PathValue("issuer"), frame.Local(req.URL.Query().Get("next")), s.Clock())
	if err != nil {
		return err
	}
	if err := s.Cookies.Remember(w, req, flow); err != nil {
		return err
	}
	http.Redirect(w, req, target, http.StatusSeeOther)
	return nil
}

// Anybody can write the cookie of a login himself, and have the server ask the issuer about a code that
// he has thought up.
const (
	asksAtOnce  = 16 // such questions
	askPatience = 10 * time.Second
	failedCosts = time.Second // as if the server had worked for so long: some can fail, and few more a minute
)

// getCallback is where an issuer sends a browser back to.
func (s *Server) getCallback(w http.ResponseWriter, req *http.Request) error {
	flow, who := s.Cookies.Recall(w, req), limits.Who("", req)
	if !s.work.Spend(who, 0) {
		return limits.ErrBusy
	}
	done, err := s.asks.Take(req.Context(), who, askPatience)
	if err != nil {
		return limits.ErrBusy
	}
	grant, err := s.Logins.Finish(req.Context(), flow, req.URL.Query(), s.Clock())
	done()
	if err != nil {
		if flow.State != "" && flow.State == req.URL.Query().Get("state") { // else nobody was asked: a page may have sent it
			s.work.Spend(who, failedCosts)
		}
		return err
	}
	return s.begin(w, req, grant, frame.Local(flow.Next))
}

// begin gives a browser a session, in place of the one that it has.
func (s *Server) begin(w http.ResponseWriter, req *http.Request, grant access.Grant, next string) error {
	old := s.Access.Identify(req)
	who := access.Principal{Credential: access.Valid, Name: grant.Name(), Grant: grant, Address: old.Address}
	from := clip.Line(old.Address+" "+req.UserAgent(), 200)
	var secret string
	err := s.Sessions.Update(forWhom(w, req, &who), func(c shortlived.Change) error {
		last := ""
		if old.Credential == access.Valid && old.Grant.Kind == session.Kind {
			last = old.TokenID
		}
		var t shortlived.Token
		var err error
		if secret, t, err = session.Begin(c, grant, from, last); err == nil {
			note(c, "session.began", t.Grant.Name(), fmt.Sprintf("%s logged in, until %s at least", t.Grant.Name(), stamp(t.Grant.Ends)))
		}
		return err
	})
	if err == nil {
		err = s.Cookies.Keep(w, req, secret)
	}
	if err == nil {
		s.Send(w, req, next)
	}
	return err
}

// postLogout ends the browser's session, another of the same person, or all of them; an admin ends any.
func (s *Server) postLogout(w http.ResponseWriter, req *http.Request) error {
	if err := frame.Form(req); err != nil {
		return err
	}
	who := s.Access.Identify(req)
	if who.Credential != access.Valid || who.Grant.Kind != session.Kind {
		_ = s.Cookies.Drop(w, req) // who cannot log in has none
		s.Send(w, req, "/ui/login")
		return nil
	}
	which := req.PostForm.Get("session")
	err := s.Sessions.Update(forWhom(w, req, &who), func(c shortlived.Change) error {
		_, err := sessions.End(c, &who, cmp.Or(which, who.TokenID))
		return err
	})
	if err != nil && !errors.Is(err, shortlived.ErrNotFound) { // else it has ended
		return err
	}
	if which != "" && which != login.AllSessions && which != who.TokenID {
		s.Send(w, req, frame.Me)
		return nil
	}
	if err := s.Cookies.Drop(w, req); err != nil {
		return err
	}
	s.Send(w, req, "/ui/login")
	return nil
}
