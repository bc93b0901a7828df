package fleet

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/dashboard/condition"
	"narwharf/hooks/dashboard/frame"
	"narwharf/hooks/dashboard/terminal"
	"narwharf/narinfo/clip"
	"narwharf/signing/access/scope"
)

// one is what the view of a host shows.
type one struct {
	line
	May      bool
	Steps    []step
	Attempts []attempt
	Past     []api.Event // what else the audit log says
	NoPast   string      // why it cannot be read now
	Buttons  []button
	Log      []terminal.Line
	LogOf    string
	LogFor   string // what is searched for
	LogMore  int    // lines before the first
	Attempt  string
}

// step is an arrow of the attempt that the host last told of.
type step struct {
	State api.State
	After int64 // ms since its begin
	Took  int64 // until the next one; 0 of the last
}

// attempt is one at a release, by the audit log.
type attempt struct {
	ID    string
	Seq   int64
	Began time.Time
	Took  int64 // ms until its last state
	End   api.State
	Text  string // of its end
	Steps []step
}

type button struct {
	Word, Link string
	Danger     bool
}

// host is GET /ui/hosts/{host}.
func (m *room) host(r *frame.Request) (*frame.Page, error) {
	name := r.Param("host")
	path := "/api/v1/hosts/" + url.PathEscape(name)
	o := &one{LogFor: clip.Line(strings.TrimSpace(r.Query.Get("find")), 200), Attempt: clip.Line(r.Query.Get("attempt"), 64)}
	o.Host = new(api.Host)
	if err := r.Get(path, o.Host); err != nil {
		return nil, err
	}
	if o.Status != nil {
		o.Channel = o.Status.Channel
	}
	o.Kind, o.May = condition.Of(o.Host, r.Now()), r.Can(scope.Operate, o.Channel)
	o.steps()
	o.buttons(r)
	if err := o.log(r, path); err != nil {
		return nil, err
	}
	if err := o.past(r); err != nil {
		var e *api.Error
		if !errors.As(err, &e) { // else what the host does now is of more use than nothing
			return nil, err
		}
		o.NoPast = e.Message
	}
	bad := 0
	if o.Kind.Bad() {
		bad = 1
	}
	return &frame.Page{
		Title: name, Body: "host", Data: o, Bad: bad, Fragments: []string{"host-now", "host-attempt", "host-log", "host-past"},
		Topics: []string{audit.HostsOf(o.Channel), audit.Host(name), audit.Log(name)},
	}, nil
}

// steps are the arrows with how long each state took.
func (o *one) steps() {
	if o.Status == nil {
		return
	}
	for i, t := range o.Status.Transitions {
		s := step{State: t.State, After: t.After}
		if i+1 < len(o.Status.Transitions) {
			s.Took = o.Status.Transitions[i+1].After - t.After
		}
		o.Steps = append(o.Steps, s)
	}
}

// buttons are what somebody may do with the host.
func (o *one) buttons(r *frame.Request) {
	if !o.May {
		return
	}
	path := "/ui/hosts/" + url.PathEscape(r.Param("host"))
	add := func(word, verb string, danger bool) {
		o.Buttons = append(o.Buttons, button{word + "…", fmt.Sprintf("%s/%s?seq=%d", path, verb, o.WantedSeq), danger})
	}
	if o.Hold == nil {
		add("Hold", "hold", false)
	} else {
		add("End the hold", "unhold", false)
	}
	st := o.Status
	if st != nil && st.Seq == o.WantedSeq && (st.State == api.Reverted || st.State == api.Failed || st.State == api.Rejected) {
		add("Try again", "retry", false)
	}
	if st != nil && st.Seq == o.WantedSeq && (st.State == api.OK || st.State == api.Testing) {
		add("Send it back", "revert", true)
	}
	if o.Slot != nil {
		add("Take its reboot slot", "release", true)
	}
}

const (
	mostLines = 2000 // of a log
	mostPast  = 40   // lines of the past
)

// log is what the attempt printed.
func (o *one) log(r *frame.Request, path string) error {
	query := ""
	if o.Attempt != "" {
		query = "?attempt=" + url.QueryEscape(o.Attempt)
	}
	var text []byte
	err := r.Get(path+"/log"+query, &text)
	var e *api.Error
	if errors.As(err, &e) && (e.Status == http.StatusNotFound || e.Status == http.StatusBadRequest) {
		return nil
	}
	if err != nil {
		return err
	}
	lines := terminal.Parse(string(text))
	if o.LogFor != "" {
		lines = slices.DeleteFunc(lines, func(l terminal.Line) bool {
			return !strings.Contains(strings.ToLower(l.Text()), strings.ToLower(o.LogFor))
		})
	}
	if len(lines) > mostLines {
		o.LogMore = len(lines) - mostLines
		lines = lines[o.LogMore:]
	}
	o.Log = lines
	return nil
}

// past is what the audit log says of the host.
func (o *one) past(r *frame.Request) error {
	var page struct {
		Events []api.Event `json:"events"`
	}
	q := url.Values{"host": {r.Param("host")}, "before": {"9007199254740990"}}
	if o.Channel != "" {
		q.Set("channel", o.Channel)
	}
	if err := r.Get("/api/v1/events?"+q.Encode(), &page); err != nil {
		return err
	}
	for i := range page.Events {
		e := &page.Events[i]
		switch state := api.State(e.Data["state"]); {
		case state != "" && e.Kind == "host.state":
			o.told(e, state)
		case len(o.Past) < mostPast:
			o.Past = append(o.Past, *e)
		}
	}
	return nil
}

// duration is how long a part of the attempt took.
type duration struct {
	Name string
	Took int64 // ms
}

// Durations are those of the last attempt, by name.
func (o *one) Durations() (list []duration) {
	for name, ms := range o.Status.Durations {
		list = append(list, duration{name, ms})
	}
	slices.SortFunc(list, func(a, b duration) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// told adds a state to the attempts; what comes was before what came.
func (o *one) told(e *api.Event, state api.State) {
	last := len(o.Attempts) - 1
	if last < 0 || o.Attempts[last].ID != e.Data["attempt"] || o.Attempts[last].Seq != e.Seq {
		o.Attempts = append(o.Attempts, attempt{ID: e.Data["attempt"], Seq: e.Seq, Began: e.Time, End: state, Text: e.Text, Steps: []step{{State: state}}})
		return
	}
	a := &o.Attempts[last]
	took := a.Began.Sub(e.Time).Milliseconds()
	a.Steps = slices.Insert(a.Steps, 0, step{State: state, Took: took})
	a.Began = e.Time
	a.Took += took
}

// Since is since when a host runs what it runs.
func (o *one) Since() time.Time {
	if o.Status == nil || o.Status.ConfigAge == 0 {
		return time.Time{}
	}
	return o.Reported.Add(-time.Duration(o.Status.ConfigAge) * time.Second).Truncate(time.Minute)
}
