// Package dashboard is the page for people, under /ui/: for now to log in, to see who one is and what one
// may do, and to log out.
//
// It works without JavaScript, and allows none: all it loads is its own style. It never asks for a password
// by a Basic challenge, which browsers remember and send by themselves. Changes are forms; those of
// pages of other origins are refused. Where to go next is a path below /ui/ and nothing else.
package dashboard

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/reply"
	"narwharf/hooks/sessions"
	"narwharf/signing/access"
	"narwharf/signing/access/session"
	"narwharf/signing/access/shortlived"
	"narwharf/signing/browser"
)

//go:embed files
var files embed.FS

var pages = template.Must(template.ParseFS(files, "files/pages.html"))

// Options of New. All are needed.
type Options struct {
	Access   *access.Authenticator
	Sessions *session.Sessions
	Logins   *session.Logins
	Cookies  session.Cookies // those of Access
	Log      *slog.Logger
	Clock    func() time.Time
}

// Server is the page, an http.Handler for /ui and what is below.
type Server struct {
	Options
	base    string // path of public_url
	origins *http.CrossOriginProtection
	mux     *http.ServeMux
}

// Path is below which the page is.
const Path = "/ui/"

// New makes one.
func New(o Options) *Server {
	s := &Server{Options: o, origins: browser.Origins(o.Cookies.Public), mux: http.NewServeMux()}
	if o.Cookies.Public != nil {
		s.base = o.Cookies.Public.Path
	}
	for pattern, handle := range map[string]func(http.ResponseWriter, *http.Request) error{
		"GET /ui/{$}": s.getWho, "GET /ui/login": s.getLogin, "POST /ui/login": s.postLogin, "GET /ui/login/{issuer}": s.startLogin,
		"GET " + session.Callback: s.getCallback, "POST /ui/logout": s.postLogout, "GET /ui/style.css": getStyle,
	} {
		s.mux.HandleFunc(pattern, func(w http.ResponseWriter, req *http.Request) {
			if err := handle(w, req); err != nil {
				s.fail(w, req, err)
			}
		})
	}
	s.mux.HandleFunc("GET /ui", func(w http.ResponseWriter, req *http.Request) { s.send(w, req, Path) })
	return s
}

// maxForm bounds a form, in bytes: a token and a path.
const maxForm = 16 << 10

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	reply.Identify(w, req)
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	if err := s.origins.Check(req); err != nil {
		s.show(w, http.StatusForbidden, "wrong", page{Title: "Refused", Wrong: "A page of another origin has sent this."})
		return
	}
	req.Body = http.MaxBytesReader(w, req.Body, maxForm)
	s.mux.ServeHTTP(w, req)
}

// page is what templates show.
type page struct {
	Title, Base, Wrong, Next string
	Possible                 bool // to log in
	Issuers                  []string

	Name, Subject, Ends string
	Scopes              []string
	Sessions, Others    []shown // others' for who is an admin
}

// shown is a session in a list.
type shown struct {
	ID, Whose, Since, Ends, From string
	This                         bool
}

func (s *Server) show(w http.ResponseWriter, status int, name string, p page) {
	p.Base = s.base
	var text bytes.Buffer
	if err := pages.ExecuteTemplate(&text, name, p); err != nil {
		panic(err) // templates take what they are given
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(text.Bytes()) // fails only if the client left
}

// fail shows what came of a request.
func (s *Server) fail(w http.ResponseWriter, req *http.Request, err error) {
	p := page{Title: "That did not work"}
	status := http.StatusInternalServerError
	var refused *session.Refused
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &refused):
		status, p.Wrong = http.StatusForbidden, refused.Error()
	case errors.Is(err, session.ErrNoTLS), errors.Is(err, session.ErrUnknown):
		status, p.Wrong = http.StatusForbidden, err.Error()
	case errors.As(err, &large):
		status, p.Wrong = http.StatusRequestEntityTooLarge, "The form is too long."
	case errors.Is(err, errForm):
		status, p.Wrong = http.StatusBadRequest, "The form cannot be read."
	case errors.Is(err, shortlived.ErrFull):
		status, p.Wrong = http.StatusServiceUnavailable, "Too many people are logged in by this rule: try again later."
	case errors.Is(err, access.ErrUnchecked):
		s.Log.Warn("a login could not be checked", "error", err)
		status, p.Wrong = http.StatusServiceUnavailable, "Whoever has to confirm this does not answer now: try again in a moment."
	default:
		s.Log.Error("request failed", "method", req.Method, "path", req.URL.Path, "error", err)
		p.Wrong = "An error that the server's log says more of."
	}
	s.show(w, status, "wrong", p)
}

// send sends a browser to another page of ours.
func (s *Server) send(w http.ResponseWriter, req *http.Request, path string) {
	http.Redirect(w, req, s.base+path, http.StatusSeeOther)
}

// local is a path below /ui/ that somebody wants to go to, or /ui/ if it is anything else.
func local(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || !strings.HasPrefix(next, Path) ||
		strings.ContainsAny(next, "\\\r\n\t") || strings.Contains(u.Path, "//") || strings.Contains(u.Path, "..") {
		return Path
	}
	return next
}

func getStyle(w http.ResponseWriter, _ *http.Request) error {
	text, err := files.ReadFile("files/style.css")
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	w.Header().Set("Cache-Control", "max-age=3600")
	_, err = w.Write(text)
	return err
}

// getWho says who somebody is.
func (s *Server) getWho(w http.ResponseWriter, req *http.Request) error {
	who := s.Access.Identify(req)
	if who.Credential == access.Unchecked {
		return fmt.Errorf("%w: %w", access.ErrUnchecked, who.Err)
	}
	if who.Credential != access.Valid {
		s.send(w, req, "/ui/login")
		return nil
	}
	p := page{Title: "Who you are", Name: who.Name, Subject: who.Grant.Subject}
	for _, sc := range who.Scopes {
		p.Scopes = append(p.Scopes, sc.String())
	}
	if who.Grant.Kind == session.Kind {
		ends, err := s.used(req.Context(), &who)
		if err != nil {
			return err
		}
		p.Ends = stamp(ends)
		for _, l := range sessions.List(req.Context(), s.Sessions, &who, s.Clock()) {
			one := shown{ID: l.ID, Since: stamp(l.Created), Ends: stamp(l.Ends), From: l.From, This: l.This}
			if l.Own {
				p.Sessions = append(p.Sessions, one)
			} else {
				one.Whose = l.Name + " (" + l.Subject + ")"
				p.Others = append(p.Others, one)
			}
		}
	}
	s.show(w, http.StatusOK, "who", p)
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
