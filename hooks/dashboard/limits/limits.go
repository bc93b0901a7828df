// Package limits is the views of what keeps hosts where they are, on all channels: the freeze, which stands
// above each page, holds, budgets, and what is in quarantine.
package limits

import (
	"embed"
	"fmt"
	"io/fs"
	"net/url"
	"path"

	"narwharf/hooks/api/rollouts"
	"narwharf/hooks/audit"
	"narwharf/hooks/dashboard/frame"
	"narwharf/hooks/rights"
	"narwharf/hooks/rollout"
	"narwharf/signing/access/scope"
)

//go:embed files
var files embed.FS

// Frozen tells of the freeze, nil if there is none.
type Frozen func() *rollout.Hold

// Room makes the views.
func Room() *frame.Room {
	below, err := fs.Sub(files, "files")
	if err != nil {
		panic(err) // it is in the program
	}
	all := rights.Operates(scope.None)
	return &frame.Room{Files: below, Views: []frame.View{
		{Path: "/ui/limits", Nav: "Limits", Needs: rights.ReadsAny, Load: limits},
	}, Actions: []frame.Action{
		{Path: "/ui/freeze", Needs: all, Ask: askFreeze, Do: freeze},
		{Path: "/ui/freeze/end", Needs: all, Ask: askLift, Do: lift},
		{Path: "/ui/holds/{name}/end", Needs: all, Ask: askRelease, Do: removes("holds", "name")},
		{Path: "/ui/quarantine/{system}/end", Needs: all, Ask: askClear, Do: removes("quarantine", "system")},
	}}
}

const home = "/ui/limits"

// view is what the page shows.
type view struct {
	Freeze  *rollout.Hold
	Holds   []rollouts.Hold
	Budgets []budget
	Bad     []quarantined
	May     bool // change them
}

type budget struct {
	rollouts.Budget
	Full bool // nobody may begin
}

type quarantined struct {
	rollout.Quarantine
	System string // the last part of its path
}

func limits(r *frame.Request) (*frame.Page, error) {
	v := &view{May: r.Can(scope.Operate, "")}
	var f rollouts.Freeze
	var holds struct {
		Holds []rollouts.Hold `json:"holds"`
	}
	var budgets struct {
		Budgets []rollouts.Budget `json:"budgets"`
	}
	var bad struct {
		Quarantined []rollout.Quarantine `json:"quarantined"`
	}
	for path, to := range map[string]any{"freeze": &f, "holds": &holds, "budgets": &budgets, "quarantine": &bad} {
		if err := r.Get("/api/v1/"+path, to); err != nil {
			return nil, err
		}
	}
	v.Freeze, v.Holds = f.Freeze, holds.Holds
	for _, b := range budgets.Budgets {
		v.Budgets = append(v.Budgets, budget{b, b.Unavailable >= b.MaxUnavailable.Down(b.Hosts)})
	}
	for _, q := range bad.Quarantined {
		v.Bad = append(v.Bad, quarantined{q, path.Base(q.Path)})
	}
	return &frame.Page{
		Title: "Limits", Body: "limits", Data: v,
		Fragments: []string{"limits-freeze", "limits-holds", "limits-budgets", "limits-quarantine"}, Topics: []string{audit.Events},
	}, nil
}

// Banner says above each page that there is a freeze, to whom may look at roll-outs.
func Banner(frozen Frozen) func(r *frame.Request) *frame.Banner {
	return func(r *frame.Request) *frame.Banner {
		f := frozen()
		if _, may := r.Who.Scopes.Some(scope.Read); f == nil || !may {
			return nil
		}
		b := &frame.Banner{Text: "Frozen: no host begins with anything. " + f.Reason + " (" + f.By + ")", Bad: true}
		if !f.Until.IsZero() {
			b.Text += " Until " + f.Until.UTC().Format("2006-01-02 15:04 UTC") + "."
		}
		if r.Can(scope.Operate, "") {
			b.Link, b.Word = "/ui/freeze/end", "End it…"
		}
		return b
	}
}

func askFreeze(*frame.Request) (*frame.Question, error) {
	return &frame.Question{
		Title: "Freeze", Button: "Freeze all channels", Danger: true, Reason: frame.MustReason, For: true, Back: home,
		Text: "No host of any channel begins with anything, until it ends. What hosts are in the middle of goes on to its end; roll-outs are not aborted.",
	}, nil
}

func freeze(r *frame.Request, a *frame.Answer) (string, error) {
	body := map[string]any{"reason": a.Reason}
	if !a.Until.IsZero() {
		body["until"] = a.Until
	}
	return home, r.Do("PUT", "/api/v1/freeze", body, nil)
}

func askLift(r *frame.Request) (*frame.Question, error) {
	var f rollouts.Freeze
	if err := r.Get("/api/v1/freeze", &f); err != nil {
		return nil, err
	}
	q := &frame.Question{Title: "End the freeze", Button: "End it", Back: home, Text: "Hosts go on with what they wait for, by the rules of their channels."}
	if f.Freeze == nil {
		q.Stale = "There is no freeze any more."
		return q, nil
	}
	q.Lines = []string{f.Freeze.By + " froze: " + f.Freeze.Reason}
	return q, nil
}

func lift(r *frame.Request, _ *frame.Answer) (string, error) {
	return home, r.Do("DELETE", "/api/v1/freeze", nil, nil)
}

func askRelease(r *frame.Request) (*frame.Question, error) {
	var h rollouts.Hold
	if err := r.Get("/api/v1/holds/"+url.PathEscape(r.Param("name")), &h); err != nil {
		return nil, err
	}
	return &frame.Question{
		Title: "End a hold", Button: "End it", Back: home, Text: "Hosts that nothing else holds go on with what they wait for.",
		Lines: []string{h.Name + ": " + h.Select.String(), h.By + " held them: " + h.Reason},
	}, nil
}

func askClear(r *frame.Request) (*frame.Question, error) {
	var q rollout.Quarantine
	if err := r.Get("/api/v1/quarantine/"+url.PathEscape(r.Param("system")), &q); err != nil {
		return nil, err
	}
	return &frame.Question{
		Title: "Take a system out of quarantine", Button: "Take it out", Danger: true, Back: home, Lines: []string{q.Path, fmt.Sprintf("%d hosts of %s went back from it", q.Hosts, q.Channel)},
		Text: "Releases with it may be promoted and given to hosts again. Hosts went back from it by themselves: be sure that they would not now.",
	}, nil
}

func removes(what, param string) func(r *frame.Request, a *frame.Answer) (string, error) {
	return func(r *frame.Request, _ *frame.Answer) (string, error) {
		return home, r.Do("DELETE", "/api/v1/"+what+"/"+url.PathEscape(r.Param(param)), nil, nil)
	}
}
