// Package frametest tries rooms of the page with an API that is made up, by the rights of whoever is said to
// look, with what hosts, clients and releases may say.
package frametest

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"narwharf/hooks/dashboard/frame"
	"narwharf/narinfo/clip/cliptest"
	"narwharf/signing/access"
	"narwharf/signing/access/scope"
)

// World is a page with rooms, and what the API answers.
type World struct {
	*testing.T
	API  map[string]any // by method, blank and path with query: a value for JSON, or an int: a status
	Sent []string       // what was asked that is no GET: method, path, body
	page *frame.Frame
}

// New makes one for somebody with scopes.
func New(t *testing.T, scopes []string, rooms ...*frame.Room) *World {
	t.Helper()
	set, err := scope.ParseSet(scopes)
	if err != nil {
		t.Fatal(err)
	}
	w := &World{T: t, API: map[string]any{}}
	w.page = frame.New(frame.Options{
		Access: access.NewAuthenticator(access.Options{Anonymous: set}), API: http.HandlerFunc(w.answer), Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Clock: func() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) },
	})
	for _, room := range rooms {
		w.page.Add(room)
	}
	return w
}

// Banner has a banner above each page.
func (w *World) Banner(of func(r *frame.Request) *frame.Banner) {
	w.page.Banners = append(w.page.Banners, of)
}

func (w *World) answer(rw http.ResponseWriter, req *http.Request) {
	key := req.Method + " " + req.URL.RequestURI()
	if req.Method != http.MethodGet {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			w.Error(err)
		}
		w.Sent = append(w.Sent, strings.TrimSpace(key+" "+string(body)))
	}
	value, ok := w.API[key]
	status, isStatus := value.(int)
	switch {
	case !ok && req.Method == http.MethodGet:
		w.Errorf("the API is asked for %s", key)
		status, isStatus = http.StatusNotFound, true
	case !ok:
		rw.WriteHeader(http.StatusNoContent)
		return
	}
	if isStatus {
		rw.WriteHeader(status)
		value = map[string]any{"kind": "x", "message": "the API refuses it"}
	}
	if err := json.NewEncoder(rw).Encode(value); err != nil {
		w.Error(err)
	}
}

// Answer is what a browser gets.
type Answer struct {
	Status int
	Text   string
	To     string // where it is sent
}

func (w *World) do(method, path, body string) Answer {
	w.Helper()
	req := httptest.NewRequestWithContext(w.Context(), method, path, strings.NewReader(body))
	if body != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	rec := httptest.NewRecorder()
	w.page.ServeHTTP(rec, req)
	a := Answer{rec.Code, rec.Body.String(), rec.Header().Get("Location")}
	w.check(method+" "+path, a.Text)
	return a
}

// Get looks at a page.
func (w *World) Get(path string) Answer { w.Helper(); return w.do(http.MethodGet, path, "") }

// Post sends a form.
func (w *World) Post(path string, form url.Values) Answer {
	w.Helper()
	return w.do(http.MethodPost, path, form.Encode()+"&")
}

// See is Get of a page that is there, and has all of some texts.
func (w *World) See(path string, texts ...string) Answer {
	w.Helper()
	a := w.Get(path)
	for _, text := range texts {
		if a.Status != http.StatusOK || !strings.Contains(a.Text, text) {
			w.Errorf("%s: %d, and %q is not in %s", path, a.Status, text, a.Text)
		}
	}
	return a
}

var (
	danger = regexp.MustCompile(`(?i)^<script|^<img|\s(on[a-z]+|style)\s*=`)
	link   = regexp.MustCompile(`(?i)(href|action)="\s*javascript:`)
	quoted = regexp.MustCompile(`="[^"]*"`)
	tag    = regexp.MustCompile(`<[^>]*>`)
)

// check fails where a page has what it never has.
func (w *World) check(where, text string) {
	w.Helper()
	for _, t := range tag.FindAllString(text, -1) {
		if strings.HasPrefix(t, `<script src="/ui/page.js`) {
			continue
		}
		if danger.MatchString(quoted.ReplaceAllString(t, `=""`)) || link.MatchString(t) {
			w.Errorf("%s has %.200s", where, t)
		}
	}
	if at := strings.IndexFunc(text, func(r rune) bool { return r != '\n' && r != '\t' && !unicode.IsPrint(r) }); at >= 0 {
		w.Errorf("%s has what is not seen in %q", where, text[max(at-60, 0):min(at+60, len(text))])
	}
	if strings.Contains(text, "\u0301\u0301\u0301\u0301\u0301") {
		w.Errorf("%s has a tower of marks", where)
	}
}

// Fill puts a text into each text of a value, which is a pointer, and makes each list and table have
// some; times and numbers stay. A text that has one stays, if keep says so.
func Fill(value any, text string, keep func(field string) bool) {
	fill(reflect.ValueOf(value), "", text, keep, 0)
}

func fill(v reflect.Value, field, text string, keep func(string) bool, depth int) {
	if depth > 6 || keep != nil && keep(field) {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() && v.CanSet() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		if !v.IsNil() {
			fill(v.Elem(), field, text, keep, depth+1)
		}
	case reflect.String:
		if v.CanSet() {
			v.SetString(text)
		}
	case reflect.Struct:
		if _, isTime := v.Interface().(time.Time); isTime {
			return
		}
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() {
				fill(v.Field(i), f.Name, text, keep, depth+1)
			}
		}
	case reflect.Slice:
		if v.Len() == 0 && v.CanSet() {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		}
		for i := range v.Len() {
			fill(v.Index(i), field, text, keep, depth+1)
		}
	case reflect.Map:
		if v.Type().Key().Kind() == reflect.String && v.Type().Elem().Kind() == reflect.String && v.CanSet() {
			v.Set(reflect.MakeMap(v.Type()))
			v.SetMapIndex(reflect.ValueOf(text).Convert(v.Type().Key()), reflect.ValueOf(text).Convert(v.Type().Elem()))
		}
	}
}

// Nasties tries a page with each nasty text: set puts it into what the API answers.
func (w *World) Nasties(path string, set func(text string)) {
	w.Helper()
	plain := ""
	for _, text := range append([]string{"plain"}, cliptest.All()...) {
		set(text)
		a := w.Get(path)
		if a.Status != http.StatusOK {
			w.Errorf("%s with %.40q: %d %s", path, text, a.Status, a.Text)
		}
		if len(a.Text) > 400<<10 {
			w.Errorf("%s with %.40q has %d bytes", path, text, len(a.Text))
		}
		if got := shape(a.Text); plain == "" {
			plain = got
		} else if got != plain && !strings.Contains(text, "/") {
			w.Errorf("%s with %.40q has other elements:\n%s\nand not\n%s", path, text, got, plain)
		}
	}
}

// shape is the elements of a page without their attributes.
func shape(text string) string {
	var names []string
	for _, t := range tag.FindAllString(text, -1) {
		names = append(names, strings.Trim(strings.FieldsFunc(t, func(r rune) bool { return r == ' ' || r == '\n' })[0], "<>"))
	}
	return strings.Join(names, " ")
}

// Absent fails where a page that may be looked at has one of some texts.
func (w *World) Absent(path string, texts ...string) {
	w.Helper()
	a := w.Get(path)
	if i := slices.IndexFunc(texts, func(text string) bool { return strings.Contains(a.Text, text) }); i >= 0 || a.Status != http.StatusOK {
		w.Errorf("%s: %d has %v: %s", path, a.Status, texts[max(i, 0)], a.Text)
	}
}

// ErrNone is for tests of interfaces that fail.
var ErrNone = errors.New("it is not there")
