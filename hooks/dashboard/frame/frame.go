// Package frame is what all views of the page have in common: the layout, its style and its script, who may
// look, how data comes, buttons, and how a view stays up to date.
//
// A Room is views and actions of one subject with their templates. A view loads its data, by the rights of
// who looks (Request.Get asks the API's own handler, in this process), and names the template that shows
// it. Templates escape what they show. A view that names Fragments and Topics is live: when a topic changes
// it is loaded again, and the elements that are others now are replaced (package live).
//
// An action is a button: a link to a form that says what will happen and asks for a reason, which sends
// itself to the same URL. It works without the script. What it does is a call of the API, with its rights,
// checks and audit log.
//
// Nothing is loaded from elsewhere, and the page runs no script but its own: Policy says so to browsers.
package frame

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"narwharf/cache/limits"
	"narwharf/hooks/api"
	"narwharf/hooks/dashboard/live"
	"narwharf/hooks/dashboard/plot"
	"narwharf/hooks/reply"
	"narwharf/narinfo/clip"
	"narwharf/signing/access"
	"narwharf/signing/access/scope"
	"narwharf/signing/browser"
)

// Path is below which the page is; Login is where one logs in, and Me where one sees who one is.
const (
	Path  = "/ui/"
	Login = "/ui/login"
	Me    = "/ui/me"
)

// Policy is the Content-Security-Policy of all of it.
const Policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// maxForm bounds a form, in bytes.
const maxForm = 16 << 10

// A Room is views of one subject.
type Room struct {
	Files   fs.FS // *.html: templates, of which each has a name of its own in the room
	Views   []View
	Actions []Action

	set *template.Template
}

// A View is a page at a URL.
type View struct {
	Path  string // of net/http's patterns: "/ui/channels/{channel}". {channel} and {host} are checked
	Nav   string // its name in the navigation, "" if it is not there
	Needs scope.Needs
	Own   bool // what it shows depends on who looks, and not on his scopes alone
	// Load is asked for each look. An *api.Error says in words why there is nothing to see.
	Load func(r *Request) (*Page, error)
}

// Page is what a view shows.
type Page struct {
	Title string
	Tab   string // of the browser, if that is another than Title
	Body  string // name of a template
	Data  any    // of it, and of Fragments

	Bad int // how much is wrong: the number in the tab's title

	// Fragments are templates, each an element whose id is the template's name, that are replaced when
	// something of Topics has changed. So are Parts, and Cells, or their states. Cells stand in none of them.
	Fragments []string
	Parts     []Part
	Cells     []*plot.Cells
	Topics    []string
	// Shape says which elements there are: when it is another the browser loads the page again.
	Shape string

	Bare bool // Body is all of the answer, without the layout: a piece that the script asks for
}

// Part is an element that is replaced, of which there are several by one template.
type Part struct {
	ID       string
	Template string
	Data     any
}

// Options of New. Only API, Topics and Banners may be nil.
type Options struct {
	Access *access.Authenticator
	API    http.Handler // answers /api/v1/
	Public *url.URL     // public_url, nil if there is none
	Topics live.Topics  // nil: nothing is live
	Log    *slog.Logger
	Clock  func() time.Time
	// Used is told that somebody loads a page.
	Used func(ctx context.Context, who *access.Principal) error
	// Banners are asked for each page, what stands above it.
	Banners []func(r *Request) *Banner
}

// Banner is a line above each page.
type Banner struct {
	Text       string
	Bad        bool
	Link, Word string // a button in it; Link "" for none
}

// Frame answers for the rooms.
type Frame struct {
	Options
	base    string // path of public_url
	origins *http.CrossOriginProtection
	hub     *live.Hub
	mux     *http.ServeMux
	layout  *template.Template
	own     *Room // the frame's own pages
	nav     []navigated
	views   []watched
}

type navigated struct {
	name, path string
	needs      scope.Needs
}

// New makes one. Its rooms come by Add.
func New(o Options) *Frame {
	f := &Frame{Options: o, origins: browser.Origins(o.Public), mux: http.NewServeMux()}
	if o.Public != nil {
		f.base = o.Public.Path
	}
	if o.Topics != nil {
		f.hub = live.New(o.Topics, o.Log)
		f.mux.HandleFunc("GET /ui/live", f.serveLive)
	}
	f.layout = template.Must(template.New("").Funcs(f.words()).ParseFS(files, "files/*.html"))
	f.own = &Room{set: template.Must(f.layout.Clone())}
	f.mux.HandleFunc("GET /ui/style.css", asset("style.css", "text/css"))
	f.mux.HandleFunc("GET /ui/page.js", asset("page.js", "text/javascript"))
	f.mux.HandleFunc("GET /ui/icon.svg", asset("icon.svg", "image/svg+xml"))
	f.mux.HandleFunc("GET /ui", func(w http.ResponseWriter, req *http.Request) { f.Send(w, req, Path) })
	return f
}

// Add adds a room. It panics if its templates are wrong: a test makes all rooms.
func (f *Frame) Add(room *Room) {
	room.set = template.Must(template.Must(f.layout.Clone()).ParseFS(room.Files, "*.html"))
	for i := range room.Views {
		v := &room.Views[i]
		if !v.Needs.Is() {
			panic("the view " + v.Path + " does not say who may look")
		}
		path := v.Path
		if strings.HasSuffix(path, "/") {
			path += "{$}"
		}
		f.mux.HandleFunc("GET "+path, func(w http.ResponseWriter, req *http.Request) { f.serveView(w, req, room, v) })
		if v.Nav != "" {
			f.nav = append(f.nav, navigated{v.Nav, v.Path, v.Needs})
		}
		f.views = append(f.views, watched{room, v})
	}
	for i := range room.Actions {
		a := &room.Actions[i]
		if !a.Needs.Is() {
			panic("the action " + a.Path + " does not say who may do it")
		}
		f.mux.HandleFunc("GET "+a.Path, func(w http.ResponseWriter, req *http.Request) { f.ask(w, req, a) })
		f.mux.HandleFunc("POST "+a.Path, func(w http.ResponseWriter, req *http.Request) { f.act(w, req, a) })
	}
}

// Handle adds what is no view.
func (f *Frame) Handle(pattern string, handle func(w http.ResponseWriter, req *http.Request) error) {
	f.mux.HandleFunc(pattern, func(w http.ResponseWriter, req *http.Request) {
		if err := handle(w, req); err != nil {
			f.Fail(w, req, err)
		}
	})
}

// ServeHTTP implements http.Handler.
func (f *Frame) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	w = limits.NewAnswer(w) // who takes nothing of an answer is not waited for
	reply.Identify(w, req)
	h := w.Header()
	h.Set("Content-Security-Policy", Policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	if err := f.origins.Check(req); err != nil {
		f.Fail(w, req, api.Errorf(api.Forbidden, "A page of another origin has sent this."))
		return
	}
	req.Body = http.MaxBytesReader(w, req.Body, maxForm)
	if other, pattern := f.mux.Handler(req); pattern == "" {
		a := &answer{header: h}
		if other.ServeHTTP(a, req); a.status == http.StatusMethodNotAllowed {
			f.Fail(w, req, api.Errorf(api.MethodNotAllowed, "%s does nothing at %s.", req.Method, req.URL.Path))
		} else {
			f.Fail(w, req, api.Errorf(api.NotFound, "There is nothing at %s.", req.URL.Path))
		}
		return
	}
	f.mux.ServeHTTP(w, req)
}

// Send sends a browser to another page of ours.
func (f *Frame) Send(w http.ResponseWriter, req *http.Request, path string) {
	http.Redirect(w, req, f.base+path, http.StatusSeeOther)
}

// Local is a path below /ui/ that somebody wants to go to, or /ui/ if it is anything else.
func Local(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || !strings.HasPrefix(next, Path) ||
		strings.ContainsAny(next, "\\\r\n\t") || strings.Contains(u.Path, "//") || strings.Contains(u.Path, "..") {
		return Path
	}
	return next
}

// enter checks who asks, and that he may.
func (f *Frame) enter(r *Request, needs scope.Needs) error {
	if r.Who.Credential == access.Unchecked {
		return fmt.Errorf("%w: %w", access.ErrUnchecked, r.Who.Err)
	}
	if err := r.CheckNames(); err != nil {
		return err
	}
	return r.Meet(needs)
}

func (f *Frame) serveView(w http.ResponseWriter, req *http.Request, room *Room, v *View) {
	r := f.request(w, req)
	err := f.enter(r, v.Needs)
	if err != nil && f.elsewhere(w, r, err) {
		return
	}
	var page *Page
	if err == nil {
		page, err = v.Load(r)
	}
	if err == nil && r.Who.Credential == access.Valid {
		err = f.Used(req.Context(), &r.Who)
	}
	if err != nil {
		f.Fail(w, req, err)
		return
	}
	f.show(w, r, http.StatusOK, room, page)
}

// elsewhere sends a browser on that has no session, or may not see where it came to by itself.
func (f *Frame) elsewhere(w http.ResponseWriter, r *Request, err error) bool {
	var denied *access.Denied
	if !errors.As(err, &denied) {
		return false
	}
	switch {
	case denied.Status == http.StatusUnauthorized:
		f.Send(w, r.req, Login+"?next="+url.QueryEscape(r.req.URL.RequestURI()))
	case r.Who.Credential == access.Valid && r.req.URL.Path == Path:
		f.Send(w, r.req, Me)
	default:
		return false
	}
	return true
}

// shown is what the layout shows.
type shown struct {
	*Page
	Wrong   string
	Body    template.HTML
	Name    string // who looks
	Nav     []link
	Banners []*Banner
	Live    string // URL of the stream
	Seen    string // id of the snapshot that is shown
	Style   string
	Script  string
}

type link struct {
	Name, Path string
	Here       bool
}

// Show shows a page of a room that is no view, with what is wrong, if that is not "".
func (f *Frame) Show(w http.ResponseWriter, req *http.Request, status int, room *Room, page *Page, wrong string) {
	f.render(w, f.request(w, req), status, room, page, &shown{Wrong: wrong})
}

func (f *Frame) show(w http.ResponseWriter, r *Request, status int, room *Room, page *Page) {
	s := new(shown)
	if f.hub != nil && page.Topics != nil {
		snapshot, err := room.snapshot(page)
		if err != nil {
			f.Fail(w, r.req, err)
			return
		}
		s.Live, s.Seen = r.req.URL.RequestURI(), snapshot.ID()
	}
	f.render(w, r, status, room, page, s)
}

func (f *Frame) render(w http.ResponseWriter, r *Request, status int, room *Room, page *Page, s *shown) {
	var body, text bytes.Buffer
	if err := room.set.ExecuteTemplate(&body, page.Body, page.Data); err != nil {
		f.broken(w, r, err)
		return
	}
	if page.Bare {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, printing(body.String())) // fails only if the client left
		return
	}
	s.Page, s.Body = page, template.HTML(body.String()) //nolint:gosec // a template has made it
	s.Name, s.Style, s.Script = r.Who.Name, styleURL, scriptURL
	for _, n := range f.nav {
		if r.request().Meet(n.needs) == nil {
			s.Nav = append(s.Nav, link{n.name, n.path, r.req.URL.Path == n.path || n.path != Path && strings.HasPrefix(r.req.URL.Path, n.path)})
		}
	}
	for _, of := range f.Banners {
		if b := of(r); b != nil {
			s.Banners = append(s.Banners, b)
		}
	}
	if err := f.layout.ExecuteTemplate(&text, "layout", s); err != nil {
		f.broken(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, printing(text.String())) // fails only if the client left
}

// printing is a net below the templates: they make words of others text, and this takes out of it what does not
// print, or turns the direction of writing.
func printing(html string) string { return clip.Block(html, len(html)*3+3) }

// broken is for a template that does not fit its data.
func (f *Frame) broken(w http.ResponseWriter, r *Request, err error) {
	f.Log.Error("request failed", "method", r.req.Method, "path", r.req.URL.Path, "request", reply.RequestID(w), "error", err)
	http.Error(w, "An error that the server's log says more of.", http.StatusInternalServerError)
}

// Fail shows what came of a request.
func (f *Frame) Fail(w http.ResponseWriter, req *http.Request, err error) {
	status, text := f.explain(req, w, err)
	title := cmp.Or(map[int]string{http.StatusNotFound: "Not here", http.StatusForbidden: "Refused"}[status], "That did not work")
	f.render(w, f.request(w, req), status, f.own, &Page{Title: title, Body: "wrong"}, &shown{Wrong: text})
}

// explain is the status and the words of an error.
func (f *Frame) explain(req *http.Request, w http.ResponseWriter, err error) (status int, text string) {
	var e *api.Error
	var denied *access.Denied
	var large *http.MaxBytesError
	var known interface{ Page() (int, string) }
	switch {
	case errors.As(err, &e):
		return e.Status, e.Message
	case errors.As(err, &denied):
		return denied.Status, denied.Error()
	case errors.As(err, &large):
		return http.StatusRequestEntityTooLarge, "The form is too long."
	case errors.As(err, &known):
		return known.Page()
	case errors.Is(err, access.ErrUnchecked):
		f.Log.Warn("a login could not be checked", "error", err)
		return http.StatusServiceUnavailable, "Whoever has to confirm this does not answer now: try again in a moment."
	case errors.Is(err, live.ErrFull):
		return http.StatusServiceUnavailable, err.Error()
	case req.Context().Err() != nil: // nobody reads this
		return http.StatusServiceUnavailable, "The browser has left."
	}
	f.Log.Error("request failed", "method", req.Method, "path", req.URL.Path, "request", reply.RequestID(w), "error", err)
	return http.StatusInternalServerError, "An error that the server's log says more of."
}
