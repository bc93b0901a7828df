package frame

import (
	"bytes"
	"cmp"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"narwharf/cache/limits"
	"narwharf/hooks/api"
	"narwharf/hooks/dashboard/live"
	"narwharf/hooks/dashboard/plot"
	"narwharf/signing/access"
)

// snapshot is what of a page is replaced while somebody looks.
func (room *Room) snapshot(page *Page) (*live.Snapshot, error) {
	s := &live.Snapshot{Fragments: make(map[string]string, len(page.Fragments)), Cells: make(map[string]*plot.Cells, len(page.Cells)), Bad: page.Bad, Topics: page.Topics, Shape: page.Shape, Tab: cmp.Or(page.Tab, page.Title)}
	parts := page.Parts
	for _, name := range page.Fragments {
		parts = append(parts, Part{name, name, page.Data})
	}
	for _, p := range parts {
		var text bytes.Buffer
		if err := room.set.ExecuteTemplate(&text, p.Template, p.Data); err != nil {
			return nil, err
		}
		s.Fragments[p.ID] = strings.TrimSpace(printing(text.String()))
	}
	for _, c := range page.Cells {
		s.Cells[c.ID] = c
	}
	return s, nil
}

// watched is a view with its room, by which a stream finds it.
type watched struct {
	room *Room
	view *View
}

// errOver is that a page is not live any more.
var errOver = errors.New("this page does not change any more")

// serveLive is GET /ui/live?view=PATH&seen=ID: what changes of a view, as events.
func (f *Frame) serveLive(w http.ResponseWriter, req *http.Request) {
	viewer, err := f.viewer(w, req)
	if err == nil {
		err = f.hub.Serve(w, req, viewer)
	}
	if err != nil {
		status, text := f.explain(req, w, err)
		http.Error(w, text, status)
	}
}

// viewer is who asks for a stream.
func (f *Frame) viewer(w http.ResponseWriter, req *http.Request) (*live.Viewer, error) {
	u, err := url.Parse(req.URL.Query().Get("view"))
	if err != nil || u.Host != "" || u.Scheme != "" {
		return nil, api.Errorf(api.BadRequest, "there is no such view")
	}
	// The view's own request, by which it loads: the stream's, for another URL.
	looked := req.Clone(req.Context())
	looked.URL, looked.RequestURI = &url.URL{Path: u.Path, RawQuery: u.RawQuery}, u.RequestURI()
	room, view := f.find(looked)
	if view == nil {
		return nil, api.Errorf(api.NotFound, "there is no such view")
	}
	r := f.request(w, looked)
	if err := f.enter(r, view.Needs); err != nil {
		return nil, err
	}
	key := u.RequestURI() + " " + r.Who.Scopes.String()
	if view.Own {
		key += " " + r.Who.TokenID + " " + limits.Who(r.Who.TokenID, req)
	}
	v := &live.Viewer{
		Key: key, Who: r.Who.TokenID,
		Seen: cmp.Or(req.Header.Get("Last-Event-ID"), req.URL.Query().Get("seen")),
		Load: func() (*live.Snapshot, error) {
			now := *r
			now.live = true
			page, err := view.Load(&now)
			if err != nil {
				_, text := f.explain(looked, w, err)
				return nil, errors.New(text)
			}
			if page.Topics == nil {
				return nil, errOver
			}
			return room.snapshot(page)
		},
		Still: func() error {
			now := r.request()
			if now.Who = f.Access.Identify(looked); now.Who.Credential == access.Unchecked {
				return nil // it will be known soon
			}
			return now.Meet(view.Needs)
		},
	}
	if topic := r.Who.Topic(); topic != "" {
		v.Topics = []string{topic}
	}
	return v, nil
}

// find finds the view at a request's path, and puts what stands for its wildcards into the request.
func (f *Frame) find(req *http.Request) (*Room, *View) {
	path := strings.Split(req.URL.Path, "/")
next:
	for _, w := range f.views {
		pattern := strings.Split(w.view.Path, "/")
		if len(pattern) != len(path) {
			continue
		}
		for i, p := range pattern {
			wild := strings.HasPrefix(p, "{")
			if !wild && p != path[i] || wild && path[i] == "" {
				continue next
			}
			if wild {
				req.SetPathValue(strings.Trim(p, "{}"), path[i])
			}
		}
		return w.room, w.view
	}
	return nil, nil
}
