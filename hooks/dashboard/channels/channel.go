package channels

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/dashboard/frame"
	"narwharf/hooks/dashboard/plot"
	"narwharf/hooks/rollout"
	"narwharf/hooks/rollout/driver"
	"narwharf/signing/access/scope"
)

// shown is what the view shows.
type shown struct {
	Name    string
	Channel *api.Channel
	Run     *rollout.Summary // nil: the channel has no roll-outs
	Gate    string           // what it waits for, in words
	Tone    string           // class of the head
	Waves   []wave
	Waits   []waits
	Key     []letter
	Causes  []cause
	More    int // hosts that ended badly and are in no cause
	Buttons []button
	History []release
	Present *release // of History
	Back    *back
	Earlier int64 // below which the history goes on
	Past    *past // nil where nothing is recorded
	// NoHistory is why History cannot be read now.
	NoHistory string
}

// wave is hosts with words about them.
type wave struct {
	rollout.WaveSummary
	ID    string
	Text  string
	Cells *plot.Cells
	Tone  string
}

// waits is how many hosts wait for a reason.
type waits struct {
	Kind  api.WaitKind
	Hosts int
}

// letter is how many hosts are in a state.
type letter struct {
	Letter, Name string
	Hosts        int
}

// back is where a rollback goes.
type back struct {
	Seq      int64
	Why      string
	URL      string // of a CI job that does it
	MayAgain bool   // its paths are there
}

// release is a line of the history.
type release struct {
	api.HistoryItem
	Before int64 // the seq below it in the list, 0 for none
	Hosts  []ended
	Link   string // http(s) of meta.url
}

// ended is how many hosts ended a release in a state.
type ended struct {
	State api.State
	Hosts int
	Tone  string
}

// names of the letters, in the order of the legend.
var letters = []letter{
	{"w", "well", 0}, {"f", "on their way", 0}, {"a", "wait for a reboot", 0}, {"b", "ended badly", 0}, {"r", "gone back", 0},
	{"q", "waiting", 0}, {"o", "offline", 0}, {"h", "held, drifted, not in it", 0}, {"u", "need not change", 0},
}

func (m *room) channel(r *frame.Request) (*frame.Page, error) {
	name := r.Param("channel")
	s := &shown{Name: name}
	var list struct {
		Channels []*api.Channel `json:"channels"`
	}
	if err := r.Get("/api/v1/channels", &list); err != nil {
		return nil, err
	}
	for _, c := range list.Channels {
		if c.Channel == name {
			s.Channel = c
		}
	}
	if s.Channel == nil {
		return nil, api.Errorf(api.NotFound, "There is no channel %s; the first promote makes it.", name)
	}
	page := &frame.Page{Title: name, Body: "channel", Data: s, Topics: []string{audit.Channel(name), audit.HostsOf(name), driver.Topic(name)},
		Fragments: []string{"channel-head", "channel-key", "channel-causes"}}
	cells := m.cells(r, name)
	var run rollout.Summary
	switch err := r.Get("/api/v1/rollouts/"+url.PathEscape(name), &run); {
	case err == nil:
		page.Tab = fmt.Sprintf("%s: release %d %s", name, run.Seq, run.State)
		s.Run, page.Shape = &run, fmt.Sprintf("%d/%d", run.Seq, len(run.Waves))
		s.draw(page, cells)
		page.Bad = run.Bad
		s.Gate, s.Tone = gate(s.Run)
		s.Buttons = buttons(r, s.Run)
	case absent(err):
		s.whole(page, cells)
	default:
		return nil, err
	}
	m.causes(s, cells)
	if r.Live() {
		return page, nil
	}
	if err := history(r, s); err != nil {
		var e *api.Error
		if !errors.As(err, &e) { // else what goes on now is of more use than nothing
			return nil, err
		}
		s.NoHistory = e.Message
	}
	if m.Past != nil {
		var err error
		if s.Past, err = m.past(r, name); err != nil {
			return nil, err
		}
	}
	return page, nil
}

// Seq is the release that it is about.
func (s *shown) Seq() int64 {
	if s.Run != nil {
		return s.Run.Seq
	}
	return s.Channel.Seq
}

// absent tells whether there is no such thing, which is no fault.
func absent(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Status == http.StatusNotFound
}

// count makes the legend.
func (s *shown) count(cells []rollout.Cell) {
	count := make(map[string]int)
	for i := range cells {
		count[string(cells[i].State)]++
	}
	for _, l := range letters {
		if l.Hosts = count[l.Letter]; l.Hosts > 0 {
			s.Key = append(s.Key, l)
		}
	}
}

// add adds a wave with its cells, which are all those of the channel from a number on.
func (s *shown) add(page *frame.Page, w wave, from int, cells []rollout.Cell) {
	w.Cells = &plot.Cells{ID: w.ID, Ask: fmt.Sprintf("/ui/channels/%s/cell?seq=%d&at=%d&n=", url.PathEscape(s.Name), s.Seq(), from)}
	for i := range cells {
		w.Cells.Names, w.Cells.States = append(w.Cells.Names, cells[i].Host), append(w.Cells.States, byte(cells[i].State))
	}
	w.Cells.Label = fmt.Sprintf("%s, %d hosts. %s", w.Name, w.Size, w.Text)
	page.Cells = append(page.Cells, w.Cells)
	page.Parts = append(page.Parts, frame.Part{ID: w.ID + "-words", Template: "wave", Data: w})
	s.Waves = append(s.Waves, w)
}

// draw makes the waves with their cells.
func (s *shown) draw(page *frame.Page, cells []rollout.Cell) {
	s.count(cells)
	at := 0
	add := func(w wave, while func(c *rollout.Cell) bool) {
		from := at
		for at < len(cells) && while(&cells[at]) {
			at++
		}
		w.Size = max(w.Size, at-from)
		s.add(page, w, from, cells[from:at])
	}
	for i := range s.Run.Waves {
		w := wave{WaveSummary: s.Run.Waves[i], ID: fmt.Sprintf("wave-%d", i+1)}
		w.Text, w.Tone = waveText(&w.WaveSummary)
		add(w, func(c *rollout.Cell) bool { return c.Wave > 0 && c.Wave <= i+1 })
	}
	add(wave{WaveSummary: rollout.WaveSummary{Name: "In no wave yet"}, ID: "wave-none"}, func(c *rollout.Cell) bool { return c.State != rollout.CellSame })
	add(wave{WaveSummary: rollout.WaveSummary{Name: "Need not change"}, ID: "wave-same"}, func(*rollout.Cell) bool { return true })
	for kind, n := range s.Run.Waits {
		s.Waits = append(s.Waits, waits{kind, n})
	}
	slices.SortFunc(s.Waits, func(a, b waits) int { return cmp.Or(b.Hosts-a.Hosts, cmp.Compare(a.Kind, b.Kind)) })
}

// history loads the last releases, and where a rollback goes.
func history(r *frame.Request, s *shown) error {
	below := ""
	if b := r.Query.Get("below"); b != "" {
		below = "&below=" + url.QueryEscape(b)
	}
	var h struct {
		History []api.HistoryItem           `json:"history"`
		Hosts   map[int64]map[api.State]int `json:"hosts"`
		Next    int64                       `json:"next"`
	}
	if err := r.Get("/api/v1/channels/"+url.PathEscape(s.Name)+"/history?limit=11&hosts=1"+below, &h); err != nil {
		if absent(err) {
			return nil
		}
		return err
	}
	for i := range h.History {
		one := release{HistoryItem: h.History[i], Link: link(h.History[i].Meta["url"])}
		if i+1 < len(h.History) {
			one.Before = h.History[i+1].Seq
		}
		for _, state := range api.States {
			if n := h.Hosts[one.Seq][state]; n > 0 {
				one.Hosts = append(one.Hosts, ended{state, n, frame.Tone(state)})
			}
		}
		if i < 10 {
			s.History = append(s.History, one)
		} else {
			s.Earlier = h.History[9].Seq
		}
	}
	if s.Earlier == 0 && h.Next > 0 {
		s.Earlier = h.Next
	}
	if len(s.History) > 0 && below == "" {
		s.Present = &s.History[0]
	}
	s.back()
	return nil
}

// link is a URL that a release names, if it is one that a browser may be sent to.
func link(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || len(text) > 2000 {
		return ""
	}
	return text
}

// back finds where a rollback goes: as the command line does, to the last release that completed well and is
// not the present one, or else to the one before.
func (s *shown) back() {
	if len(s.History) < 2 || s.Present == nil {
		return
	}
	b := &back{Seq: s.History[1].Seq, Why: "it is the release before; nothing is known of how it went", URL: link(s.Present.Meta["rollback_url"])}
	well := int64(0)
	if s.Run != nil {
		well = s.Run.LastWell
	}
	switch {
	case well != 0 && well != s.Present.Seq:
		b.Seq, b.Why = well, "it is the last release whose roll-out completed well"
	default:
		for _, h := range s.History[1:] {
			if good(h.Hosts) && !h.Rollback {
				b.Seq, b.Why = h.Seq, "it is the last release before that some hosts ended well and none badly"
				break
			}
		}
	}
	b.MayAgain = true
	for _, h := range s.History {
		if h.Seq == b.Seq && h.Collected {
			b.MayAgain = false
		}
	}
	s.Back = b
}

func good(hosts []ended) bool {
	well := false
	for _, h := range hosts {
		well = well || h.State == api.OK
		if h.Tone == "bad" {
			return false
		}
	}
	return well
}

// Rev is what of a release names its source.
func (r *release) Rev() string {
	rev := r.Meta["rev"]
	return rev[:min(len(rev), 12)]
}

// Systems are the names of a release's systems, the first ones.
func (r *release) Systems() string {
	var names []string
	for _, t := range r.Targets {
		if name := frame.Name(t.StorePath); !slices.Contains(names, name) {
			names = append(names, name)
		}
		if len(names) == 3 {
			break
		}
	}
	text := strings.Join(names, ", ")
	if n := len(r.Targets); n > 3 {
		text += fmt.Sprintf(" and others, for %d targets", n)
	}
	return text
}

// cell is a fragment about one host of a drawing.
func (m *room) cell(r *frame.Request) (*frame.Page, error) {
	number := func(name string) int {
		n := 0
		if _, err := fmt.Sscan(r.Query.Get(name), &n); err != nil || n < 0 {
			n = 1 << 30
		}
		return n
	}
	cells := m.cells(r, r.Param("channel"))
	at := number("at") + number("n")
	if at >= len(cells) {
		return nil, api.Errorf(api.NotFound, "There is no such host any more: load the page again.")
	}
	c := &cells[at]
	d := struct {
		rollout.Cell
		Name, Why string
		May       bool
	}{Cell: *c, May: r.Can(scope.Operate, r.Param("channel"))}
	for _, l := range letters {
		if l.Letter == string(c.State) {
			d.Name = l.Name
		}
	}
	switch is, err := m.Hosts.Describe(c.Host); {
	case err != nil:
	case c.State == rollout.CellBad && is.Status != nil:
		d.Why = causeOf(is.Status)
	case is.WaitingFor != nil:
		d.Why = is.WaitingFor.Text()
	}
	return &frame.Page{Title: c.Host, Body: "cell", Data: d, Bare: true}, nil
}
