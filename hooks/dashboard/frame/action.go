package frame

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"narwharf/hooks/api"
	"narwharf/narinfo/clip"
	"narwharf/signing/access/scope"
)

// An Action is what a button does.
type Action struct {
	Path  string // as of a View
	Needs scope.Needs
	// Ask says what is about to happen. An *api.Error says why it cannot.
	Ask func(r *Request) (*Question, error)
	// Do does it, and says where to go then: a path below /ui/.
	Do func(r *Request, a *Answer) (next string, err error)
}

// Reasons of a question.
type Reasons int

// Whether somebody has to say why.
const (
	NoReason Reasons = iota
	MayReason
	MustReason
)

// Question is the form that an action asks with.
type Question struct {
	Title  string
	Text   string   // what will happen
	Lines  []string // and to what
	Button string
	Danger bool // it is hard to take back
	Reason Reasons
	For    bool              // for how long
	Keep   map[string]string // fields that come back: what was seen, so that an answer about something older is refused
	Back   string            // where one goes who does not want to
	// Stale says that what was seen is not so any more; the form is shown no more.
	Stale string
}

// Answer is what came back. Reason is one line.
type Answer struct {
	Reason string
	Until  time.Time // zero: until somebody ends it
	Form   url.Values
}

// fors are for how long something may be.
var fors = []struct {
	Value, Name string
	d           time.Duration
}{
	{"1h", "1 hour", time.Hour}, {"4h", "4 hours", 4 * time.Hour}, {"12h", "12 hours", 12 * time.Hour}, {"1d", "1 day", 24 * time.Hour},
	{"3d", "3 days", 72 * time.Hour}, {"7d", "1 week", 168 * time.Hour}, {"", "until somebody ends it", 0},
}

const maxReason = 1000 // bytes

// asked is what the form's template shows.
type asked struct {
	*Question
	Action string
	Said   string // the reason of the try before
	Must   bool
	Fors   any
}

func (f *Frame) ask(w http.ResponseWriter, req *http.Request, a *Action) {
	r := f.request(w, req)
	err := f.enter(r, a.Needs)
	if err != nil && f.elsewhere(w, r, err) {
		return
	}
	f.question(w, r, a, err, http.StatusOK, "", "")
}

// question shows the form, with what was wrong with a try.
func (f *Frame) question(w http.ResponseWriter, r *Request, a *Action, err error, status int, wrong, said string) {
	var q *Question
	if err == nil {
		q, err = a.Ask(r)
	}
	if err != nil {
		f.Fail(w, r.req, err)
		return
	}
	data := &asked{Question: q, Action: r.req.URL.RequestURI(), Said: said, Must: q.Reason == MustReason, Fors: fors}
	f.render(w, r, status, f.own, &Page{Title: q.Title, Body: "question", Data: data}, &shown{Wrong: wrong})
}

func (f *Frame) act(w http.ResponseWriter, req *http.Request, a *Action) {
	r := f.request(w, req)
	if err := f.enter(r, a.Needs); err != nil {
		f.Fail(w, req, err)
		return
	}
	if err := Form(req); err != nil {
		f.Fail(w, req, err)
		return
	}
	said := strings.TrimSpace(req.PostForm.Get("reason"))
	answer := &Answer{Reason: clip.Line(strings.Join(strings.Fields(said), " "), maxReason), Form: req.PostForm}
	for _, d := range fors {
		if d.Value == req.PostForm.Get("for") && d.d > 0 {
			answer.Until = r.Now().Add(d.d)
		}
	}
	if answer.Reason == "" {
		if q, err := a.Ask(r); err == nil && q.Reason == MustReason {
			f.question(w, r, a, nil, http.StatusBadRequest, "Say why: others will read it.", "")
			return
		}
	}
	next, err := a.Do(r, answer)
	if err == nil {
		f.Send(w, req, next)
		return
	}
	if e := (*api.Error)(nil); errors.As(err, &e) && e.Status != http.StatusNotFound {
		f.question(w, r, a, nil, e.Status, e.Message, said)
		return
	}
	f.Fail(w, req, err)
}

// ErrForm is a form that cannot be read.
var ErrForm = api.Errorf(api.BadRequest, "The form cannot be read.")

// Form reads a form, of the body alone.
func Form(req *http.Request) error {
	err := req.ParseForm()
	if large := (*http.MaxBytesError)(nil); errors.As(err, &large) {
		return err
	}
	if err != nil {
		return ErrForm
	}
	return nil
}
