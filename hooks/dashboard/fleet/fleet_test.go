package fleet

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/api/alarm"
	"narwharf/hooks/dashboard/condition"
	"narwharf/hooks/dashboard/frame/frametest"
	"narwharf/hooks/host"
	"narwharf/hooks/rollout"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) // frametest's

// made are hosts that are made up.
type made struct {
	hosts []*host.Described
	cells []rollout.Cell
}

func (m *made) Glance(keep func(string) bool, each func(*host.Described)) {
	for _, d := range m.hosts {
		if one := *d; keep(d.Channel) {
			one.WaitingFor = nil
			each(&one)
		}
	}
}

func (m *made) Describe(name string) (*host.Described, error) {
	for _, d := range m.hosts {
		if d.Host.Host == name {
			return d, nil
		}
	}
	return nil, errors.New("it is not there")
}

func (m *made) Cells(string) []rollout.Cell { return m.cells }

func hostIs(name, channel string, state api.State, change func(h *api.Host)) *host.Described {
	d := &host.Described{Channel: channel, Host: api.Host{Host: name, WantedSeq: 3, Wanted: "/nix/store/x", Online: true, LastSeen: now,
		Status: &api.Status{Channel: channel, Seq: 3, State: state, Current: "/nix/store/" + strings.Repeat("a", 32) + "-nixos-system-" + name + "-26.05"}}}
	if change != nil {
		change(&d.Host)
	}
	return d
}

func world(t *testing.T, m *made, scopes ...string) *frametest.World {
	w := frametest.New(t, scopes, Room(m, m, func(context.Context) []Fact { return []Fact{{Name: "Disk", Text: "1 GiB is left", Bad: true}} }))
	w.API["GET /api/v1/alarms"] = map[string]any{"alarms": []alarm.Alarm{{ID: 1, Kind: "rollout.halted", Channel: "web", Seq: 3}, {ID: 2, Kind: "cache.damaged", Text: "a path is damaged"}}}
	w.API["GET /api/v1/rollouts"] = map[string]any{"rollouts": []rollout.Summary{{Channel: "web", Seq: 3, State: rollout.Halted, Why: "2 of 3 ended badly", Total: 3, Bad: 2}}}
	w.API["GET /api/v1/channels"] = map[string]any{"channels": []api.Channel{{Channel: "db", Seq: 1}, {Channel: "web", Seq: 3}}}
	w.API["GET /api/v1/asks"] = map[string]any{"asks": []api.Ask{{Host: "web-9", Channel: "web"}, {Host: "web-8", Channel: "web", RefusedBy: "ada"}}}
	return w
}

func four() *made {
	return &made{hosts: []*host.Described{
		hostIs("web-1", "web", api.Reverted, func(h *api.Host) { h.Status.Error = "the check http failed\nmore" }),
		hostIs("web-2", "web", api.OK, nil),
		hostIs("web-3", "web", api.Idle, func(h *api.Host) {
			h.Status.Seq, h.Labels = 2, map[string]string{"site": "fra"}
			h.WaitingFor = &api.Waiting{Kind: api.WaitWave, Detail: "it is in the second wave"}
		}),
		hostIs("db-1", "db", api.Drifted, nil),
	}}
}

// What is wrong stands on top once, each with where to look; counts are by channel.
func TestOverview(t *testing.T) {
	w := world(t, four(), "operate")
	a := w.See("/ui/", "<title>(6) Overview", "1 GiB is left", "web, release 3: 2 of 3 ended badly", `href="/ui/channels/web"`, "web: 1 of 3 hosts", "db: 1 of 1 hosts", "a path is damaged",
		"1 machine asks to be a host", `href="/ui/asks"`, `href="/ui/hosts?channel=web&amp;state=waiting">1 waiting`)
	if strings.Count(a.Text, "rollout.halted") > 0 || strings.Index(a.Text, "1 GiB is left") > strings.Index(a.Text, "web, release 3") {
		t.Errorf("what is wrong: %s", a.Text)
	}
	world(t, four(), "read:db").Absent("/ui/", "web: 1 of 3")
}

// The list says why each host waits, although that is not known of all hosts at once; filters are of the URL.
func TestList(t *testing.T) {
	w := world(t, four(), "operate")
	a := w.See("/ui/hosts", "the check http failed", "it is in the second wave", "Hosts 1 to 4 of 4", `<span class="tag bad">reverted</span>`)
	if strings.Index(a.Text, ">web-1<") > strings.Index(a.Text, ">web-2<") {
		t.Error("the worst is not first")
	}
	for query, want := range map[string]string{
		"channel=web": "web-1 web-2 web-3", "state=well": "web-2", "wait=wave": "web-3", "label=site%3Dfra": "web-3", "drift=1": "db-1", "q=EB-2": "web-2", "version=db-1-26": "db-1",
		"channel=web&cell=b": "web-1", "channel=web&cell=q": "web-3", "sort=host": "db-1 web-1 web-2 web-3",
	} {
		a := w.Get("/ui/hosts?" + query)
		for _, name := range []string{"db-1", "web-1", "web-2", "web-3"} {
			if strings.Contains(a.Text, `href="/ui/hosts/`+name+`"`) != strings.Contains(want, name) {
				t.Errorf("%s: %s", query, name)
			}
		}
	}
	m := four()
	m.cells = []rollout.Cell{{Host: "web-2", State: 'b'}, {Host: "web-1", State: 'w'}}
	world(t, m, "operate").Absent("/ui/hosts?channel=web&cell=b", `href="/ui/hosts/web-1"`)
}

// What is asked of a host goes to the API with the release that was seen, or with a hold that ends.
func TestDeeds(t *testing.T) {
	m := four()
	w := world(t, m, "operate:web")
	w.API["GET /api/v1/hosts/web-1"] = m.hosts[0].Host
	w.See("/ui/hosts/web-1/revert?seq=3", "Send it back", "the check http failed")
	w.See("/ui/hosts/web-1/retry?seq=2", "run release 3 by now")
	for path, form := range map[string]url.Values{"hold": {"reason": {"disk"}, "for": {"4h"}}, "retry": {"seq": {"3"}}, "unhold": {}} {
		if a := w.Post("/ui/hosts/web-1/"+path, form); a.Status != 303 || a.To != "/ui/hosts/web-1" {
			t.Errorf("%s: %+v", path, a)
		}
	}
	sent := strings.Join(w.Sent, "\n")
	for _, want := range []string{`PATCH /api/v1/hosts/web-1 {"hold":{"reason":"disk","by":"","until":"2026-03-01T16:00:00Z"}}`, `POST /api/v1/hosts/web-1/retry {"seq":3}`, `PATCH /api/v1/hosts/web-1 {"unhold":true}`} {
		if !strings.Contains(sent, want) {
			t.Errorf("%s is not among\n%s", want, sent)
		}
	}
}

// A host is shown also while the log of what was done cannot be read.
func TestHostWithoutLog(t *testing.T) {
	m := four()
	w := world(t, m, "operate:web")
	m.hosts[0].Conflict = []api.Claim{{Instance: "b", Address: "192.0.2.1"}}
	w.API["GET /api/v1/hosts/web-1"], w.API["GET /api/v1/hosts/web-1/log"] = m.hosts[0].Host, 404
	w.API["GET /api/v1/events?before=9007199254740990&channel=web&host=web-1"] = 503
	w.See("/ui/hosts/web-1", "two machines", "the API refuses it", "/ui/hosts/web-1/approve?instance=b", "192.0.2.1")
}

func TestNasties(t *testing.T) {
	m := four()
	w := world(t, m, "operate")
	set := func(text string) {
		h := &m.hosts[0].Host
		frametest.Fill(h, text, func(field string) bool {
			return field == "Channel" || field == "State" || field == "Host" || field == "Kind"
		})
		h.Host, h.Asks, h.Directive, h.Status.Head = "web-1", nil, nil, nil
		w.API["GET /api/v1/hosts/web-1"], w.API["GET /api/v1/hosts/web-1/log"] = h, text
		e := api.Event{}
		frametest.Fill(&e, text, nil)
		w.API["GET /api/v1/events?before=9007199254740990&channel=web&host=web-1"] = map[string]any{"events": []api.Event{e}}
		a := alarm.Alarm{}
		frametest.Fill(&a, text, nil)
		w.API["GET /api/v1/alarms"] = map[string]any{"alarms": []alarm.Alarm{a}}
	}
	for _, path := range []string{"/ui/", "/ui/hosts"} {
		w.Nasties(path, set)
	}
	for _, text := range []string{"<script>alert(1)</script>", "\u202e\x1b[2J\x00"} { // a log has as many elements as it has colours
		set(text)
		w.See("/ui/hosts/web-1", "Timeline")
	}
}

func TestConditionsHaveWords(t *testing.T) {
	for c := range condition.Count {
		if c.String() == "" || strings.IndexByte("wbfarqohu", c.Cell()) < 0 {
			t.Errorf("%d: %q %q", c, c, c.Cell())
		}
	}
}
