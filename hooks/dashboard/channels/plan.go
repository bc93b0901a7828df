package channels

import (
	"fmt"
	"net/url"
	"strings"

	wire "narwharf/hooks/api/plan"
	"narwharf/hooks/dashboard/frame"
)

// planned is what the view of a plan shows.
type planned struct {
	*wire.Plan
	Name string
}

// plan is what a release would do to the hosts of a channel now.
func plan(r *frame.Request) (*frame.Page, error) {
	name := r.Param("channel")
	p := &planned{Name: name}
	path := "/api/v1/channels/" + url.PathEscape(name) + "/plan"
	if to := r.Query.Get("to"); to != "" {
		path += "?to=" + url.QueryEscape(to)
	}
	if err := r.Get(path, &p.Plan); err != nil {
		return nil, err
	}
	title := "Plan for " + name
	if p.Seq != 0 {
		title = fmt.Sprintf("What release %d would do to %s", p.Seq, name)
	}
	return &frame.Page{Title: title, Body: "plan", Data: p}, nil
}

// Change is a package in words.
func (planned) Change(p wire.Package) string {
	versions := func(list []string) string {
		text := strings.Join(list, ", ")
		if text == "" {
			return "∅"
		}
		return text
	}
	switch {
	case p.Before == nil:
		return "added " + versions(p.After)
	case p.After == nil:
		return "removed " + versions(p.Before)
	}
	return versions(p.Before) + " → " + versions(p.After)
}
