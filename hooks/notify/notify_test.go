package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"narwharf/cache/state"
	"narwharf/cache/state/memory"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/alarm"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// request is what a target got.
type request struct {
	to     string
	header http.Header
	body   string
	at     time.Time
	ctx    context.Context
}

// reply is what it answers.
type reply struct {
	status int
	header http.Header
}

// world is an audit log, and targets that answer as they are told to.
type world struct {
	t       *testing.T
	store   state.Store
	set     *mirror.Set
	targets []Target
	*Sender

	mu     sync.Mutex
	got    []request
	answer func(request) (reply, error)

	stop func()
}

func newWorld(t *testing.T, targets ...Target) *world {
	w := &world{t: t, store: memory.New(time.Now), targets: targets, answer: says(200)}
	w.start()
	return w
}

func says(status int, headers ...string) func(request) (reply, error) {
	return func(request) (reply, error) {
		h := http.Header{}
		for i := 0; i < len(headers); i += 2 {
			h.Set(headers[i], headers[i+1])
		}
		return reply{status, h}, nil
	}
}

// RoundTrip implements http.RoundTripper.
func (w *world) RoundTrip(req *http.Request) (*http.Response, error) {
	text, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	r := request{req.URL.String(), req.Header, string(text), time.Now(), req.Context()}
	w.mu.Lock()
	w.got = append(w.got, r)
	answer := w.answer
	w.mu.Unlock()
	a, err := answer(r)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: a.status, Header: a.header, Body: io.NopCloser(strings.NewReader("the answer"))}, nil
}

func (w *world) answers(with func(request) (reply, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answer = with
}

// start starts a server on the state.
func (w *world) start() {
	w.t.Helper()
	log := slog.New(slog.DiscardHandler)
	w.set = mirror.NewSet(w.store, log)
	book, err := alarm.New(w.set, time.Now, log)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Sender = New(Options{Set: w.set, Targets: w.targets, PublicURL: "https://cache.example.org", Version: "1", Alarms: book, Clock: time.Now, Log: log, transport: w})
	unwatch := w.store.Watch(func(topics []string) { w.set.Noticed(topics); w.Noticed(topics) })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); w.Tend(ctx) }()
	w.stop = func() { unwatch(); cancel(); <-done }
	synctest.Wait()
}

func (w *world) note(list ...api.Event) {
	w.t.Helper()
	err := w.set.Update(w.t.Context(), nil, func(tx *mirror.Tx) error {
		for _, e := range list {
			audit.Note(tx, e)
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait()
}

// requests are those since the last call.
func (w *world) requests() []request {
	w.mu.Lock()
	defer w.mu.Unlock()
	got := w.got
	w.got = nil
	return got
}

// texts are the texts of the events that were sent since the last call.
func (w *world) texts() (list []string) {
	w.t.Helper()
	for _, r := range w.requests() {
		var b Body
		if err := json.Unmarshal([]byte(r.body), &b); err != nil || b.Data == nil {
			w.t.Fatalf("%s: %v", r.body, err)
		}
		list = append(list, b.Data.Text)
	}
	return list
}

func (w *world) want(texts ...string) {
	w.t.Helper()
	if got := w.texts(); !slices.Equal(got, texts) {
		w.t.Errorf("sent was %q, want %q", got, texts)
	}
}

func (w *world) alarms() (list []string) {
	w.t.Helper()
	events, _, err := audit.Since(w.set, 1, 1<<20, func(e *api.Event) bool { return e.Kind == "notify.failing" })
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range events {
		list = append(list, fmt.Sprint(e.Alarm, " ", e.Text))
	}
	return list
}

func at(t *testing.T, text string) *url.URL {
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func target(t *testing.T, change func(*Target)) Target {
	target := Target{Name: "ops", URL: at(t, "https://hooks.example.org/secret"), Format: JSON, Events: []string{"channel.*"}}
	if change != nil {
		change(&target)
	}
	return target
}

func promoted(text string) api.Event {
	return api.Event{Kind: "channel.promoted", Channel: "web", By: "ci", Seq: 4, Text: text}
}

// TestSent: what was before a target was configured is not sent, what comes then is, in order, once.
func TestSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.note(promoted("before"))
		w.stop()
		w.targets = []Target{target(t, nil)}
		w.start()
		w.want()
		w.note(promoted("one"), api.Event{Kind: "host.state", Text: "other"}, promoted("two"))
		got := w.requests()
		if len(got) != 2 || got[0].to != "https://hooks.example.org/secret" || got[0].header.Get("Content-Type") != "application/json" || got[0].header.Get("User-Agent") != "narwharf/1" {
			t.Fatalf("%+v", got)
		}
		var b map[string]any
		if err := json.Unmarshal([]byte(got[0].body), &b); err != nil || b["type"] != "channel.promoted" || b["server"] != "https://cache.example.org" || b["timestamp"] == "" {
			t.Errorf("%s, %v", got[0].body, err)
		}
		if id := got[0].header.Get("Webhook-Id"); id == "" || id == got[1].header.Get("Webhook-Id") || got[0].header.Get("Webhook-Signature") != "" {
			t.Errorf("%+v", got[0].header)
		}
		if s := w.List()[0]; s.Sent != 2 || s.Queued != 0 || s.To != "https://hooks.example.org" || s.Last.Status != 200 || s.Last.Answer != "the answer" {
			t.Errorf("%+v", s)
		}
		w.stop()
		w.note(promoted("three")) // nobody is there
		w.start()
		w.want("three")
		w.stop()
	})
}

// TestWants: kinds, alarms and what becomes of them, channels.
func TestWants(t *testing.T) {
	alarmed := api.Event{Kind: "host.state", Channel: "web", Alarm: true}
	taken, server := api.Event{Kind: "alarm.taken", Channel: "web"}, api.Event{Kind: "disk.full", Alarm: true}
	for _, c := range []struct {
		t    Target
		want []api.Event
		not  []api.Event
	}{
		{Target{Events: []string{"host.*"}}, []api.Event{alarmed}, []api.Event{taken, server, promoted("")}},
		{Target{Events: []string{"*"}}, []api.Event{alarmed, taken, server, promoted("")}, nil},
		{Target{Alarms: true}, []api.Event{alarmed, taken, server}, []api.Event{promoted(""), {Kind: "host.state"}}},
		{Target{Alarms: true, Events: []string{"channel.promoted"}, Channels: []string{"we*"}}, []api.Event{alarmed, taken, promoted("")}, []api.Event{server, {Kind: "channel.promoted", Channel: "db"}}},
	} {
		for _, e := range c.want {
			if !c.t.wants(&e) {
				t.Errorf("%+v does not want %+v", c.t, e)
			}
		}
		for _, e := range c.not {
			if c.t.wants(&e) {
				t.Errorf("%+v wants %+v", c.t, e)
			}
		}
	}
}

// TestAgain: what fails is sent again, with the same id, after pauses that grow, and is an alarm after a while,
// which is over when it goes out. A restart in between changes nothing.
func TestAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, target(t, nil))
		w.answers(func(request) (reply, error) { return reply{}, errors.New("connection refused") })
		w.note(promoted("one"))
		w.note(promoted("two"))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if got := w.alarms(); got != nil {
			t.Errorf("too early: %q", got)
		}
		first := w.requests()
		if len(first) < 8 || len(first) > 14 {
			t.Fatalf("%d attempts", len(first))
		}
		for i := range first {
			if first[i].header.Get("Webhook-Id") != first[0].header.Get("Webhook-Id") || first[i].body != first[0].body {
				t.Errorf("attempt %d is another event: %s", i, first[i].body)
			}
			if i > 2 && first[i].at.Sub(first[i-1].at) <= first[i-2].at.Sub(first[i-3].at)/4 {
				t.Errorf("attempt %d comes after %s", i, first[i].at.Sub(first[i-1].at))
			}
		}
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		if got := w.alarms(); len(got) != 1 || !strings.Contains(got[0], "true ops (https://hooks.example.org) takes nothing since ") || !strings.Contains(got[0], "connection refused; 2 events wait") {
			t.Errorf("%q", got)
		}
		if s := w.List()[0]; s.Failing == nil || s.Queued != 2 || strings.Contains(fmt.Sprint(s, s.Last), "secret") {
			t.Errorf("%+v, %+v", s, s.Last)
		}
		w.requests()
		w.stop()
		w.answers(says(204))
		w.start()
		w.want("one", "two")
		if got := w.alarms(); len(got) != 2 || got[1] != "false it is over: ops takes what it is sent" {
			t.Errorf("%q", got)
		}
		w.note(promoted("three"))
		if got := w.alarms(); len(got) != 2 {
			t.Errorf("%q", got)
		}
		w.stop()
	})
}

// TestAnswers: which answers are final, and which are tried again.
func TestAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, target(t, nil))
		for status, again := range map[int]bool{200: false, 201: false, 204: false, 301: true, 302: true, 307: true, 400: false, 401: true, 403: true, 404: true, 410: true, 413: false, 422: false, 429: true, 500: true, 503: true} {
			w.answers(says(status, "Location", "https://elsewhere.example.org/"))
			w.note(promoted("one"))
			if got := w.requests(); len(got) != 1 {
				t.Errorf("%d: %d requests", status, len(got))
			}
			w.answers(says(200))
			time.Sleep(time.Minute)
			synctest.Wait()
			if got := w.requests(); len(got) == 1 != again {
				t.Errorf("%d: %d requests then", status, len(got))
			}
		}
		if s := w.List()[0]; s.Refused != 3 || s.Sent != 13 {
			t.Errorf("%+v", s)
		}
		w.answers(says(503, "Retry-After", "1800"))
		w.note(promoted("one"))
		w.requests()
		time.Sleep(29 * time.Minute)
		synctest.Wait()
		if got := w.requests(); len(got) != 0 {
			t.Errorf("%d requests before it wants one", len(got))
		}
		w.answers(says(200))
		time.Sleep(2 * time.Minute)
		w.want("one")
		w.stop()
	})
}

// TestBound: the oldest of too many are dropped, counted, and an alarm; one target is in no other's way.
func TestBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, target(t, nil), target(t, func(t *Target) { t.Name, t.Alarms, t.Events = "dev", true, nil }))
		w.answers(func(r request) (reply, error) {
			if strings.Contains(r.body, "channel.promoted") {
				return reply{}, errors.New("connection refused")
			}
			return says(200)(r)
		})
		w.note(promoted("first"))
		for i := range 4 {
			list := make([]api.Event, 300)
			for j := range list {
				list[j] = promoted(fmt.Sprint(i, "-", j))
			}
			w.note(list...)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		got := w.alarms()
		if len(got) != 1 || !strings.Contains(got[0], "1000 events wait, and the oldest are dropped, ") {
			t.Errorf("%q", got)
		}
		if s := w.List(); s[0].Queued != 1000 || s[0].Dropped != 201 || s[1].Sent != 1 || s[1].Queued != 0 {
			t.Errorf("%+v", s)
		}
		w.requests()
		w.answers(says(200))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if texts := w.texts(); len(texts) < 1000 || texts[0] != "0-200" {
			t.Errorf("%d, first %s", len(texts), texts[0])
		}
		if got := w.alarms(); len(got) != 2 || !strings.HasPrefix(got[1], "false it is over") || !strings.Contains(got[1], "; 201 events were dropped") {
			t.Errorf("%q", got)
		}
		w.stop()
	})
}

// TestAge: what has waited for days is not sent, also where the server was off.
func TestAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, target(t, nil))
		w.stop()
		w.note(promoted("old"))
		time.Sleep(maxAge)
		w.note(promoted("new"))
		time.Sleep(time.Minute)
		w.start()
		w.want("new")
		if s := w.List()[0]; s.Dropped != 1 {
			t.Errorf("%+v", s)
		}
		w.stop()
	})
}

// TestForgotten: a target that was taken out of the configuration and comes back is told what is new.
func TestForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ops := target(t, nil)
		w := newWorld(t, ops)
		w.note(promoted("one"))
		w.stop()
		w.targets = nil
		w.start()
		w.note(promoted("two"))
		w.stop()
		w.targets = []Target{ops}
		w.start()
		w.note(promoted("three"))
		w.want("one", "three")
		w.stop()
	})
}

// TestEnd: Tend ends at once also while a target says nothing, and the event is sent again.
func TestEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, target(t, nil))
		w.answers(func(r request) (reply, error) { <-r.ctx.Done(); return reply{}, r.ctx.Err() })
		w.note(promoted("one"))
		began := time.Now()
		w.stop()
		if d := time.Since(began); d > 0 || len(w.requests()) != 1 {
			t.Errorf("it took %s to stop", d)
		}
		w.answers(says(200))
		w.start()
		w.want("one")
		w.stop()
	})
}

// TestTest: a test goes past the queue, and says what came of it.
func TestTest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, target(t, nil))
		w.answers(says(404))
		a, err := w.Test(t.Context(), "ops", "hello", "op")
		if err != nil || a.Status != 404 || a.Answer != "the answer" || a.Error != "it answers 404 Not Found" {
			t.Errorf("%+v, %v", a, err)
		}
		w.want("hello")
		for name, kind := range map[string]api.Kind{"dev": api.NotFound, "-": api.BadRequest} {
			_, err := w.Test(t.Context(), name, "", "op")
			if e := new(api.Error); !errors.As(err, &e) || e.Kind != kind {
				t.Errorf("%s: %v", name, err)
			}
		}
		w.stop()
	})
}

// TestSlack: what hosts say makes no links and calls nobody.
func TestSlack(t *testing.T) {
	e := &api.Event{Kind: "host.state", Channel: "web", Host: "web-1", Alarm: true, By: "<@U1>", Text: "failed: <!channel> & <https://evil.example|here> @all [here](https://evil.example)\n:white_check_mark: *alarm.closed*\x1b[2J\u202e"}
	var b map[string]string
	if err := json.Unmarshal(body(Slack, "https://cache.example.org/", e), &b); err != nil {
		t.Fatal(err)
	}
	want := ":rotating_light: *ALARM host.state* web web-1\nfailed: &lt;!channel&gt; &amp; &lt;https://evil.example|here&gt; @\u200ball [here]\u200b(https://evil.example)\ufffd:white_check_mark: *alarm.closed*\ufffd[2J\ufffd\nby &lt;@\u200bU1&gt;\n<https://cache.example.org/ui>"
	if len(b) != 1 || b["text"] != want {
		t.Errorf("%q", b)
	}
}
