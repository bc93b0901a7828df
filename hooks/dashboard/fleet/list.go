package fleet

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/dashboard/condition"
	"narwharf/hooks/dashboard/frame"
	"narwharf/hooks/host"
	"narwharf/hooks/rollout/policy"
	"narwharf/narinfo/clip"
)

// perPage is how many hosts are on a page.
const perPage = 200

// table is what the view of hosts shows.
type table struct {
	Query    url.Values
	Channels []string
	Kinds    []choice
	Hosts    []line
	All, Of  int // hosts that fit, and hosts there are
	First    int // of the page, from 1
	Previous string
	Next     string
	Sorts    []sort
}

type choice struct {
	Word string
	N    int
	Link string
	Here bool
	Tone string
}

type sort struct {
	Word, Link string
	Here       bool
}

var columns = []struct{ name, word string }{{"worst", "State"}, {"host", "Host"}, {"channel", "Channel"}, {"release", "Release"}, {"version", "Runs"}, {"seen", "Last heard of"}}

// list is GET /ui/hosts.
func (m *room) list(r *frame.Request) (*frame.Page, error) {
	q := r.Query
	fits, err := m.filter(q)
	if err != nil {
		return nil, err
	}
	all := m.lines(r)
	if q.Get("wait") != "" {
		if err := m.explain(all); err != nil {
			return nil, err
		}
	}
	t := &table{Query: q, Of: len(all)}
	channels, counts := make(map[string]bool), [condition.Count]int{}
	var list []*line
	for i := range all {
		l := &all[i]
		channels[l.Channel] = true
		if !fits(l) {
			continue
		}
		counts[l.Kind]++
		if word := q.Get("state"); word == "" || word == l.Word() || word == string(l.State()) {
			list = append(list, l)
		}
	}
	for name := range channels {
		t.Channels = append(t.Channels, name)
	}
	slices.Sort(t.Channels)
	slices.SortFunc(list, before(q.Get("sort")))
	t.page(list)
	t.heads(counts)
	bad := 0
	for k, n := range counts {
		if condition.Condition(k).Bad() {
			bad += n
		}
	}
	if err := m.explain(t.Hosts); err != nil {
		return nil, err
	}
	title := "Hosts"
	if c := q.Get("channel"); c != "" {
		title = "Hosts of " + c
	}
	return &frame.Page{Title: title, Body: "hosts", Data: t, Bad: bad, Fragments: []string{"hosts-kinds", "hosts-table"}, Topics: []string{audit.HostsOf(q.Get("channel"))}}, nil
}

// lines are the hosts that somebody may look at, without what they wait for.
func (m *room) lines(r *frame.Request) (all []line) {
	see, channel, now := sees(r), r.Query.Get("channel"), r.Now()
	m.hosts.Glance(func(of string) bool { return (channel == "" || of == channel) && see(of) }, func(d *host.Described) {
		all = append(all, line{Host: &d.Host, Channel: d.Channel, Kind: condition.Of(&d.Host, now)})
	})
	return all
}

// explain puts into lines what their hosts wait for.
func (m *room) explain(lines []line) error {
	for i := range lines {
		d, err := m.hosts.Describe(lines[i].Host.Host)
		if err != nil {
			return err
		}
		lines[i].Host = &d.Host
	}
	return nil
}

// filter is what the URL says of hosts, but for their states.
func (m *room) filter(q url.Values) (func(l *line) bool, error) {
	var label policy.Selector
	if text := strings.TrimSpace(q.Get("label")); text != "" {
		var err error
		if label, err = policy.ParseSelector(text); err != nil {
			return nil, api.Errorf(api.BadRequest, "label: %v", err)
		}
	}
	drawn := m.drawn(q.Get("channel"), q.Get("cell"))
	name, version, wait := strings.ToLower(strings.TrimSpace(q.Get("q"))), strings.TrimSpace(q.Get("version")), q.Get("wait")
	return func(l *line) bool {
		return (name == "" || strings.Contains(strings.ToLower(l.Host.Host), name)) && label.Matches(l.Labels) &&
			drawn(l) && (version == "" || strings.Contains(l.Version(), version)) &&
			(wait == "" || l.WaitingFor != nil && string(l.WaitingFor.Kind) == wait) &&
			(q.Get("drift") == "" || l.State() == api.Drifted) && (q.Get("reboot") == "" || l.Status != nil && l.Status.NeedReboot)
	}, nil
}

// drawn tells whether a host is drawn by a letter in the view of its channel.
func (m *room) drawn(channel, letter string) func(l *line) bool {
	if channel == "" || letter == "" {
		return func(*line) bool { return true }
	}
	cells := m.rollouts.Cells(channel)
	if cells == nil { // it has no roll-outs: a host is drawn as it is
		return func(l *line) bool { return string(l.Kind.Cell()) == letter }
	}
	hosts := make(map[string]bool)
	for _, c := range cells {
		hosts[c.Host] = string(c.State) == letter
	}
	return func(l *line) bool { return hosts[l.Host.Host] }
}

// page takes the hosts of the page that the URL names.
func (t *table) page(list []*line) {
	at, err := strconv.Atoi(t.Query.Get("page"))
	if err != nil || at < 1 || (at-1)*perPage >= len(list) {
		at = 1
	}
	t.All, t.First = len(list), (at-1)*perPage+1
	for _, l := range list[(at-1)*perPage : min(at*perPage, len(list))] {
		t.Hosts = append(t.Hosts, *l)
	}
	if at > 1 {
		t.Previous = t.with("page", strconv.Itoa(at-1))
	}
	if at*perPage < len(list) {
		t.Next = t.with("page", strconv.Itoa(at+1))
	}
	if len(list) == 0 {
		t.First = 0
	}
}

// with is the URL of the same table with one thing changed.
func (t *table) with(name, value string) string {
	q := make(url.Values)
	for k, v := range t.Query {
		if k != "page" && len(v) > 0 && v[0] != "" {
			q.Set(k, v[0])
		}
	}
	if q.Set(name, value); value == "" {
		q.Del(name)
	}
	if len(q) == 0 {
		return "/ui/hosts"
	}
	return "/ui/hosts?" + q.Encode()
}

// heads makes the links that filter by state and sort.
func (t *table) heads(counts [condition.Count]int) {
	state := t.Query.Get("state")
	for k, n := range counts {
		word, tone := condition.Condition(k).String(), condition.Condition(k).Tone()
		if n > 0 || word == state {
			link := t.with("state", word)
			if word == state {
				link = t.with("state", "")
			}
			t.Kinds = append(t.Kinds, choice{word, n, link, word == state, tone})
		}
	}
	by := t.Query.Get("sort")
	if by == "" {
		by = "worst"
	}
	for _, c := range columns {
		value := c.name
		if value == "worst" {
			value = ""
		}
		t.Sorts = append(t.Sorts, sort{c.word, t.with("sort", value), c.name == by})
	}
}

// Last is the number of the last host of the page.
func (t *table) Last() int { return t.First + max(len(t.Hosts), 1) - 1 }

// Get is a value of the URL.
func (t *table) Get(name string) string { return clip.Line(t.Query.Get(name), 200) }

// Range says which hosts these are.
func (t *table) Range() string {
	if t.All == 0 {
		return fmt.Sprintf("None of %d hosts fits", t.Of)
	}
	return fmt.Sprintf("Hosts %d to %d of %d that fit; there are %d", t.First, t.Last(), t.All, t.Of)
}

func sorted(words []string) []string {
	slices.Sort(words)
	return words
}
