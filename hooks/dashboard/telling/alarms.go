package telling

import (
	"cmp"
	"net/url"
	"strconv"

	"narwharf/hooks/api"
	wire "narwharf/hooks/api/alarm"
	"narwharf/hooks/audit"
	"narwharf/hooks/dashboard/frame"
	"narwharf/hooks/dashboard/table"
	"narwharf/signing/access/scope"
)

// perPage is how many alarms a page has.
const perPage = 50

// alarmed is an alarm that is shown.
type alarmed struct {
	wire.Alarm
	May  bool // take and close it
	Book bool // the runbook has an entry
}

// list is the view of alarms.
type list struct {
	Channel string
	Closed  bool
	Alarms  []alarmed
	Pages   table.Pages
}

// read reads alarms by the rights of who asks.
func read(r *frame.Request, q url.Values) ([]wire.Alarm, error) {
	var answer struct {
		Alarms []wire.Alarm `json:"alarms"`
	}
	err := r.Get("/api/v1/alarms?"+q.Encode(), &answer)
	return answer.Alarms, err
}

func alarms(r *frame.Request) (*frame.Page, error) {
	l := &list{Channel: r.Query.Get("channel"), Closed: r.Query.Get("closed") == "1"}
	q := url.Values{}
	if l.Channel != "" {
		q.Set("channel", l.Channel)
	}
	if l.Closed {
		q.Set("closed", "1")
	}
	all, err := read(r, q)
	if err != nil {
		return nil, err
	}
	l.Pages = table.Of("/ui/alarms", r.Query, len(all), perPage)
	for _, a := range table.Slice(l.Pages, all) {
		l.Alarms = append(l.Alarms, alarmed{a, a.Closed == nil && r.Can(scope.Operate, cmp.Or(a.Channel, "*")), entry(a.Kind) != ""})
	}
	p := &frame.Page{Title: "Alarms", Body: "alarms", Data: l, Fragments: []string{"alarms-list"}, Topics: []string{audit.Events}}
	if l.Closed {
		p.Title = "Alarms that are closed"
	} else {
		p.Bad = len(all)
	}
	return p, nil
}

// find is the alarm in the path, among those that are open.
func find(r *frame.Request) (*wire.Alarm, error) {
	id, err := strconv.ParseInt(r.Param("alarm"), 10, 64)
	if err != nil {
		return nil, api.Errorf(api.BadRequest, "%q is not the id of an alarm", r.Param("alarm"))
	}
	all, err := read(r, nil)
	if err != nil {
		return nil, err
	}
	for i := range all {
		if all[i].ID == id {
			return &all[i], nil
		}
	}
	return nil, api.Errorf(api.NotFound, "Alarm %d is not open any more, or never was.", id)
}

func askTake(r *frame.Request) (*frame.Question, error) {
	a, err := find(r)
	if err != nil {
		return nil, err
	}
	q := &frame.Question{Title: "Take an alarm", Text: "Colleagues see that you look after it.", Lines: lines(a), Button: "Take it", Reason: frame.MayReason, Back: "/ui/alarms"}
	if a.Taken != nil {
		q.Text = a.Taken.By + " looks after it now, and would not any more. " + q.Text
	}
	return q, nil
}

func askClose(r *frame.Request) (*frame.Question, error) {
	a, err := find(r)
	if err != nil {
		return nil, err
	}
	return &frame.Question{
		Title: "Close an alarm", Lines: lines(a), Button: "Close it", Reason: frame.MayReason, Back: "/ui/alarms",
		Text: "Nobody has to look after it any more. If what it tells of goes on, it opens again with the next event.",
	}, nil
}

func lines(a *wire.Alarm) []string {
	about := a.Kind
	if a.Subject != "" {
		about += " of " + a.Subject
	}
	return []string{about, a.Text}
}

func act(verb string) func(r *frame.Request, a *frame.Answer) (string, error) {
	return func(r *frame.Request, a *frame.Answer) (string, error) {
		var body any
		if a.Reason != "" {
			body = map[string]string{"reason": a.Reason}
		}
		return "/ui/alarms", r.Do("POST", "/api/v1/alarms/"+url.PathEscape(r.Param("alarm"))+"/"+verb, body, nil)
	}
}
