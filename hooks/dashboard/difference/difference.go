// Package difference is the view of a release: what it has that another has not, by target and package.
package difference

import (
	"cmp"
	"embed"
	"fmt"
	"io/fs"
	"net/url"
	"slices"
	"strings"

	"narwharf/hooks/api"
	"narwharf/hooks/api/plan"
	"narwharf/hooks/dashboard/frame"
	"narwharf/hooks/dashboard/table"
	"narwharf/hooks/rights"
	"narwharf/signing/access/scope"
)

//go:embed files
var files embed.FS

// Room makes the view.
func Room() *frame.Room {
	below, err := fs.Sub(files, "files")
	if err != nil {
		panic(err) // it is in the program
	}
	return &frame.Room{Files: below, Views: []frame.View{
		{Path: "/ui/channels/{channel}/releases/{seq}", Needs: rights.Reads(scope.InPath), Load: release},
	}}
}

// view is what the page shows.
type view struct {
	plan.Difference
	By        string // who promoted it
	Meta      []word
	Collected bool
	Asked     string // the release that it is compared with by request
	Others    []int64
	Changes   []change
	Command   string // that goes back to it
	Sort      table.Sort
}

type word struct{ Name, Text, Link string }

// change is a plan.Change with its packages by what became of them.
type change struct {
	plan.Change
	Grown, Fetched  int64
	Added, Removed  int
	Updated, Older  int
	Rebuilt         int // of the same versions
	All             []pkg
	FewTargets      []string
	MoreTargets     int
	OnlyNew, OnlyOf string // the path of who has no other
}

type pkg struct {
	plan.Package
	What string // added, removed, updated, older, rebuilt
}

// listed is how many targets are named.
const listed = 8

// What became of a package.
const (
	added   = "added"
	removed = "removed"
	older   = "older"
	updated = "updated"
	rebuilt = "rebuilt"
)

func release(r *frame.Request) (*frame.Page, error) {
	channel, seq := r.Param("channel"), r.Param("seq")
	path := "/ui/channels/" + url.PathEscape(channel) + "/releases/" + url.PathEscape(seq)
	v := &view{Asked: r.Query.Get("from"), Sort: table.By(path, r.Query, "size", "name", "what")}
	ask := "/api/v1/channels/" + url.PathEscape(channel) + "/releases/" + url.PathEscape(seq) + "/difference"
	if v.Asked != "" {
		ask += "?from=" + url.QueryEscape(v.Asked)
	}
	if err := r.Get(ask, &v.Difference); err != nil {
		return nil, err
	}
	for i := range v.Difference.Changes {
		v.Changes = append(v.Changes, v.of(&v.Difference.Changes[i]))
	}
	v.Meta = words(v.Difference.Meta)
	if err := v.history(r); err != nil {
		return nil, err
	}
	now, err := present(r, channel)
	if err != nil {
		return nil, err
	}
	if now != v.Seq && !v.Collected && (r.Can(scope.Operate, channel) || r.Can(scope.Promote, channel)) {
		v.Command = fmt.Sprintf("narwharf rollback %s --to %d", channel, v.Seq)
	}
	return &frame.Page{Title: fmt.Sprintf("Release %d of %s", v.Seq, channel), Body: "release", Data: v}, nil
}

// present is the release that a channel has now, 0 if it has none.
func present(r *frame.Request, channel string) (int64, error) {
	var list struct {
		Channels []api.Channel `json:"channels"`
	}
	err := r.Get("/api/v1/channels", &list)
	for i := range list.Channels {
		if list.Channels[i].Channel == channel {
			return list.Channels[i].Seq, err
		}
	}
	return 0, err
}

// history finds who promoted the release, and which others there are.
func (v *view) history(r *frame.Request) error {
	var h struct {
		History []api.HistoryItem `json:"history"`
	}
	if err := r.Get(fmt.Sprintf("/api/v1/channels/%s/history?below=%d&limit=20", url.PathEscape(v.Channel), v.Seq+1), &h); err != nil {
		return err
	}
	for _, item := range h.History {
		if item.Seq == v.Seq {
			v.By, v.Collected = item.By, item.Collected
		} else {
			v.Others = append(v.Others, item.Seq)
		}
	}
	return nil
}

// words are what a release says of itself; what is a URL is a link.
func words(meta map[string]string) (list []word) {
	for name, text := range meta {
		w := word{Name: name, Text: text}
		if u, err := url.Parse(text); err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.User == nil {
			w.Link = text
		}
		list = append(list, w)
	}
	slices.SortFunc(list, func(a, b word) int { return strings.Compare(a.Name, b.Name) })
	return list
}

func (v *view) of(c *plan.Change) change {
	one := change{Change: *c, Grown: c.Is - c.Was, Fetched: c.Fetch, FewTargets: c.Targets[:min(len(c.Targets), listed)]}
	one.MoreTargets = c.Count - len(one.FewTargets)
	switch {
	case c.Before == "":
		one.OnlyNew = c.After
	case c.After == "":
		one.OnlyOf = c.Before
	}
	for _, p := range c.Packages {
		is := pkg{p, what(&p)}
		switch is.What {
		case added:
			one.Added++
		case removed:
			one.Removed++
		case older:
			one.Older++
		case updated:
			one.Updated++
		default:
			one.Rebuilt++
		}
		one.All = append(one.All, is)
	}
	slices.SortStableFunc(one.All, func(a, b pkg) int {
		switch v.Sort.By {
		case "name":
			return v.Sort.Order(strings.Compare(a.Name, b.Name))
		case "what":
			return cmp.Or(v.Sort.Order(strings.Compare(a.What, b.What)), strings.Compare(a.Name, b.Name))
		}
		return v.Sort.Order(cmp.Compare(max(b.Bytes, -b.Bytes), max(a.Bytes, -a.Bytes)))
	})
	return one
}

func what(p *plan.Package) string {
	switch {
	case len(p.Before) == 0:
		return added
	case len(p.After) == 0:
		return removed
	case p.Older:
		return older
	case slices.Equal(p.Before, p.After):
		return rebuilt
	}
	return updated
}
