package telling

import (
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"narwharf/hooks/api"
	wire "narwharf/hooks/api/alarm"
	"narwharf/hooks/dashboard/frame/frametest"
)

const (
	openAlarms = "GET /api/v1/alarms?"
	firstPage  = "GET /api/v1/events?before=9007199254740991"
)

func alarmList(list ...wire.Alarm) map[string]any { return map[string]any{"alarms": list} }

// TestBanner: the first alarm that nobody has taken stands above other pages, to whoever may look.
func TestBanner(t *testing.T) {
	w := frametest.New(t, []string{"read:web"}, Room())
	w.Banner(Banner)
	taken := wire.Alarm{ID: 6, Kind: "x", Text: "taken", Taken: &wire.Act{By: "ada"}}
	w.API[firstPage], w.API["GET /api/v1/alarms"] = map[string]any{"events": []api.Event{}}, alarmList(taken, wire.Alarm{ID: 7, Text: "release 3 <b> is halted"}, wire.Alarm{ID: 8, Text: "other"})
	w.See("/ui/events", `class="banner bad">release 3 &lt;b&gt; is halted`, "Look (1 more)", `href="/ui/"`)
	w.API["GET /api/v1/alarms"] = alarmList(taken)
	w.Absent("/ui/events", `class="banner bad">`)
	w.API["GET /api/v1/alarms"] = 503
	w.Absent("/ui/events", `class="banner bad">`)
	w.API[openAlarms] = alarmList(wire.Alarm{ID: 7, Text: "halted"})
	w.Absent("/ui/alarms", `class="banner bad">`)
}

// TestAlarms: what is open, who looks after it, what to do, and buttons for those who may press them.
func TestAlarms(t *testing.T) {
	w := frametest.New(t, []string{"read:*", "operate:web"}, Room())
	w.API[openAlarms] = alarmList(
		wire.Alarm{ID: 7, Kind: "rollout.halted", Channel: "web", Seq: 3, Text: "halted", Count: 2},
		wire.Alarm{ID: 8, Kind: "made.up", Channel: "db", Host: "db-1", Text: "x", Count: 1, Taken: &wire.Act{By: "ada", Reason: "mine"}},
	)
	a := w.See("/ui/alarms", `(2) Alarms`, `/ui/alarms/7/take`, `/ui/alarms/7/close`, `/ui/runbook?kind=rollout.halted`, `class="panel bad" id="alarm-7"`,
		`class="panel warn" id="alarm-8"`, "ada looks after it", `href="/ui/hosts/db-1"`, "release 3")
	if strings.Contains(a.Text, "/ui/alarms/8/") || strings.Contains(a.Text, "runbook?kind=made.up") {
		t.Errorf("of db: %s", a.Text)
	}
	w.API["GET /api/v1/alarms?channel=web&closed=1"] = alarmList(wire.Alarm{ID: 5, Kind: "gc.over", Closed: &wire.Act{}})
	w.See("/ui/alarms?channel=web&closed=1", "It ended by itself", `class="panel" id="alarm-5"`, `<option value="1" selected>`)

	w.See("/ui/alarms/7/close", "rollout.halted", "Nobody has to look after it")
	w.See("/ui/alarms/8/take", "ada looks after it now")
	if got := w.Post("/ui/alarms/7/close", url.Values{"reason": {" done\n it "}}); got.Status != 303 || got.To != "/ui/alarms" {
		t.Errorf("%+v", got)
	}
	if got := w.Post("/ui/alarms/7/take", nil); got.Status != 303 || !slices.Equal(w.Sent, []string{`POST /api/v1/alarms/7/close {"reason":"done it"}`, "POST /api/v1/alarms/7/take"}) {
		t.Errorf("%+v %q", got, w.Sent)
	}
	for path, status := range map[string]int{"/ui/alarms/9/take": 404, "/ui/alarms/x/take": 400, "/ui/runbook?kind=none": 404} {
		if got := w.Get(path); got.Status != status {
			t.Errorf("%s: %d %s", path, got.Status, got.Text)
		}
	}
	w.API["POST /api/v1/alarms/8/close"] = 403
	if got := w.Post("/ui/alarms/8/close", nil); got.Status != 403 || !strings.Contains(got.Text, "the API refuses it") {
		t.Errorf("%+v", got)
	}
	if got := frametest.New(t, []string{"read:*"}, Room()).Post("/ui/alarms/7/close", nil); got.Status != 303 && got.Status != 401 && got.Status != 403 {
		t.Errorf("who may not: %+v", got)
	}
}

// TestManyAlarms: in pages.
func TestManyAlarms(t *testing.T) {
	w := frametest.New(t, []string{"read:*"}, Room())
	w.API[openAlarms] = alarmList(slices.Repeat([]wire.Alarm{{ID: 7, Kind: "gc.over", Text: "x", Count: 1}}, 120)...)
	w.See("/ui/alarms?page=3", "101–120 of 120", `href="/ui/alarms?page=2"`, "(120) Alarms")
}

// TestEvents: the newest first, filters, older ones, and what a line has.
func TestEvents(t *testing.T) {
	w := frametest.New(t, []string{"read:*"}, Room())
	w.API[firstPage] = map[string]any{"events": []api.Event{
		{ID: 9, Kind: "host.state", Alarm: true, Text: "web-1 failed", Host: "web-1", Channel: "web", Data: map[string]string{"state": "failed"}},
		{ID: 8, Kind: "channel.promoted", By: "ci", Actor: &api.Actor{Credential: "oidc", Name: "github/main", Subject: "repo:x", Address: "192.0.2.1"}},
	}, "next": 8}
	w.See("/ui/events", `<span class="tag bad">host.state</span>`, "<dt>state</dt><dd>failed</dd>", "github/main", "from 192.0.2.1", `rel="next" href="/ui/events?before=8"`)
	w.API["GET /api/v1/events?before=8&channel=web&kind=host.%2A"] = map[string]any{"events": []api.Event{}, "next": 0}
	a := w.See("/ui/events?before=8&channel=web&kind=host.*", "There are none.", `rel="prev" href="/ui/events?channel=web&amp;kind=host.%2A"`, `value="host.*"`)
	if strings.Contains(a.Text, `rel="next"`) {
		t.Errorf("%s", a.Text)
	}
	w.API["GET /api/v1/events?before=x"] = 400
	if got := w.Get("/ui/events?before=x"); got.Status != 400 || !strings.Contains(got.Text, "the API refuses it") {
		t.Errorf("%+v", got)
	}
}

// TestNasties: whatever they say.
func TestNasties(t *testing.T) {
	w := frametest.New(t, []string{"admin"}, Room())
	w.Nasties("/ui/alarms", func(text string) {
		a := wire.Alarm{ID: 1}
		frametest.Fill(&a, text, func(field string) bool { return field == "Closed" })
		w.API[openAlarms] = alarmList(a)
	})
	w.Nasties("/ui/alarms/1/take", func(text string) {
		a := wire.Alarm{ID: 1}
		frametest.Fill(&a, text, nil)
		w.API[openAlarms] = alarmList(a)
	})
	w.Nasties("/ui/events", func(text string) {
		e := api.Event{ID: 1}
		frametest.Fill(&e, text, nil)
		w.API[firstPage] = map[string]any{"events": []api.Event{e}, "next": 0}
	})
}

// TestRunbook: each entry can be shown, and nothing of Markdown is left.
func TestRunbook(t *testing.T) {
	text, err := os.ReadFile("../../../docs/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	w := frametest.New(t, []string{"read:*"}, Room())
	kinds := regexp.MustCompile("(?m)^## `(.+)`$").FindAllStringSubmatch(string(text), -1)
	for _, m := range kinds {
		a := w.See("/ui/runbook?kind="+m[1], "<b>What it says.</b>", "<b>What to do.</b>")
		if body, _, _ := strings.Cut(a.Text, "</main>"); strings.Contains(body, "**") || strings.Contains(body, "`") || strings.Contains(body, "](") {
			t.Errorf("%s: %s", m[1], a.Text)
		}
	}
	if len(kinds) < 20 {
		t.Errorf("there are %d entries", len(kinds))
	}
}
