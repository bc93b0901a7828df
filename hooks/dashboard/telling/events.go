package telling

import (
	"net/url"
	"strconv"

	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/dashboard/frame"
)

// filters are the parameters of the view that the API has, too.
var filters = []string{"kind", "channel", "host", "who"}

// log is the view of the audit log.
type log struct {
	Kind, Channel, Host, Who string
	Events                   []api.Event
	Newest                   bool   // there are no newer ones
	Older                    string // URL of those before, "" if there are none
	First                    string // URL of the newest
}

func events(r *frame.Request) (*frame.Page, error) {
	l := &log{Kind: r.Query.Get("kind"), Channel: r.Query.Get("channel"), Host: r.Query.Get("host"), Who: r.Query.Get("who"), Newest: r.Query.Get("before") == ""}
	q := url.Values{}
	for _, name := range filters {
		if v := r.Query.Get(name); v != "" {
			q.Set(name, v)
		}
	}
	l.First = "/ui/events?" + q.Encode()
	q.Set("before", r.Query.Get("before"))
	if l.Newest {
		q.Set("before", strconv.FormatInt(1<<53-1, 10))
	}
	var answer struct {
		Events []api.Event `json:"events"`
		Next   int64       `json:"next"`
	}
	if err := r.Get("/api/v1/events?"+q.Encode(), &answer); err != nil {
		return nil, err
	}
	l.Events = answer.Events
	if answer.Next > 0 {
		q.Set("before", strconv.FormatInt(answer.Next, 10))
		l.Older = "/ui/events?" + q.Encode()
	}
	p := &frame.Page{Title: "Events", Body: "events", Data: l}
	if l.Newest {
		p.Fragments, p.Topics = []string{"events-list"}, []string{audit.Events}
	}
	return p, nil
}
