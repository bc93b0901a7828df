package alarm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"narwharf/cache/state"
	"narwharf/cache/state/memory"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/api/alarm"
	"narwharf/hooks/audit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a log with a book.
type world struct {
	*Book
	t     *testing.T
	store state.Store
	time  time.Time
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	w.store = memory.New(func() time.Time { return w.time })
	w.restart()
	return w
}

// restart opens what a server would that starts on the state.
func (w *world) restart() {
	w.t.Helper()
	var err error
	set := mirror.NewSet(w.store, slog.New(slog.DiscardHandler))
	if w.Book, err = New(set, func() time.Time { return w.time }, slog.New(slog.DiscardHandler)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) note(e api.Event) {
	w.t.Helper()
	err := w.set.Update(w.t.Context(), nil, func(tx *mirror.Tx) error {
		audit.Note(tx, e)
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

var everybody = Caller{Name: "op", Sees: func(string) bool { return true }, May: func(string) error { return nil }}

// list is the alarms as "kind of subject", sorted.
func (w *world) list(closed bool) (list []string) {
	w.t.Helper()
	all, err := w.List(w.t.Context(), alarm.Query{Closed: closed}, everybody)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, a := range all {
		list = append(list, title(&a))
	}
	slices.Sort(list)
	return list
}

func (w *world) want(open ...string) {
	w.t.Helper()
	if got := w.list(false); !slices.Equal(got, open) {
		w.t.Errorf("open are %q, want %q", got, open)
	}
}

func (w *world) events(kind string) (list []api.Event) {
	w.t.Helper()
	list, _, err := audit.Since(w.set, 1, 1000, func(e *api.Event) bool { return e.Kind == kind })
	if err != nil {
		w.t.Fatal(err)
	}
	return list
}

func hostState(state api.State, alarm bool) api.Event {
	return api.Event{Kind: "host.state", Channel: "web", Host: "web-1", Seq: 4, Alarm: alarm, Text: "web-1 is " + string(state), Data: map[string]string{"state": string(state)}}
}

// TestEndings: of each kind of alarm the event that ends it, and one beside it that does not.
func TestEndings(t *testing.T) {
	host := func(kind string) api.Event {
		return api.Event{Kind: kind, Channel: "web", Host: "web-1", Seq: 4, Text: "x"}
	}
	of := func(kind, channel string) api.Event {
		return api.Event{Kind: kind, Channel: channel, Seq: 4, Text: "x"}
	}
	with := func(e api.Event, key, value string) api.Event {
		e.Data = map[string]string{key: value}
		return e
	}
	other := func(e api.Event) api.Event { e.Host = "web-2"; return e }
	texted := func(e api.Event, text string) api.Event { e.Text = text; return e }
	lower := func(e api.Event) api.Event { e.Seq = 3; return e }
	for _, c := range []struct {
		name         string
		opens        api.Event
		goesOn, ends api.Event
	}{
		{"host.state of web-1", hostState(api.Failed, false), hostState(api.Activating, false), hostState(api.OK, false)},
		{"host.state of web-1", hostState(api.Rejected, false), other(hostState(api.OK, false)), hostState(api.Reverted, false)},
		{"host.state of web-1", hostState(api.Failed, false), other(host("host.removed")), host("host.removed")},
		{"host.identity of web-1", host("host.identity"), other(host("host.approved")), host("host.approved")},
		{"host.identity of web-1", host("host.identity"), host("host.machine"), host("host.withdrawn")},
		{"host.cloned of web-1", host("host.cloned"), host("host.withdrawn"), host("host.approved")},
		{"channel.behind of web", host("channel.behind"), lower(of("channel.promoted", "web")), of("channel.promoted", "web")},
		{"channel.lost of web", of("channel.lost", "web"), of("channel.promoted", "db"), of("channel.promoted", "web")},
		{"channel.keys of web", of("channel.keys", "web"), of("channel.keys", "web"), of("channel.deleted", "web")},
		{"channel.restored of web", of("channel.restored", "web"), of("channel.promoted", "web"), of("channel.deleted", "web")},
		{"reboot.late of web-1", host("reboot.late"), host("reboot.granted"), host("reboot.ended")},
		{"reboot.unused of web-1", host("reboot.unused"), hostState(api.Armed, false), hostState(api.OK, false)},
		{"rollout.halted of web", of("rollout.halted", "web"), of("rollout.paused", "web"), of("rollout.running", "web")},
		{"rollout.halted of web", of("rollout.halted", "web"), of("rollout.aborting", "db"), of("rollout.aborting", "web")},
		{"rollout.quarantined of web", of("rollout.quarantined", "web"), of("rollout.running", "web"), of("rollout.completed", "web")},
		{"rollout.quarantined of web", texted(of("rollout.quarantined", "web"), "2 hosts went back from /nix/store/a-x by themselves"), with(of("quarantine.cleared", ""), "path", "/nix/store/a"), with(of("quarantine.cleared", ""), "path", "/nix/store/a-x")},
		{"gc.over", of("gc.over", ""), of("gc.grace", ""), of("gc.over", "")},
		{"disk.full", of("disk.full", ""), of("gc.over", ""), of("disk.full", "")},
		{"server.tls", of("server.tls", ""), of("server.keys", ""), of("server.tls", "")},
		{"access.issuer of github", with(of("access.issuer", ""), "issuer", "github"), with(of("access.issuer", ""), "issuer", "gitlab"), with(of("access.issuer", ""), "issuer", "github")},
		{"cache.damaged of nar/a.nar web", with(of("cache.damaged", "web"), "file", "nar/a.nar"), of("channel.promoted", "web"), of("channel.deleted", "web")},
		{"notify.failing of ops", with(of("notify.failing", ""), "target", "ops"), with(of("notify.failing", ""), "target", "dev"), with(of("notify.failing", ""), "target", "ops")},
		{"some.kind of web-1", host("some.kind"), other(host("some.kind")), host("some.kind")},
	} {
		t.Run(c.name+" by "+c.ends.Kind, func(t *testing.T) {
			w := newWorld(t)
			c.opens.Alarm = true
			w.note(c.opens)
			w.want(c.name)
			w.note(c.opens)
			w.note(c.goesOn)
			w.want(c.name)
			list, err := w.List(t.Context(), alarm.Query{}, everybody)
			if err != nil || len(list) != 1 || list[0].Count != 2 || list[0].ID != 1 {
				t.Fatalf("%+v, %v", list, err)
			}
			c.ends.By = "who"
			w.note(c.ends)
			w.want()
			closed, err := w.List(t.Context(), alarm.Query{Closed: true}, everybody)
			if err != nil || len(closed) != 1 || closed[0].Closed == nil || closed[0].Closed.Event == 0 || closed[0].Closed.By != "who" {
				t.Errorf("%+v, %v", closed, err)
			}
			if err := w.set.Update(t.Context(), nil, func(tx *mirror.Tx) error { return tx.Put(closedBucket, closedKey(7), []byte("{no JSON")) }); err != nil {
				t.Fatal(err)
			}
			if closed, err = w.List(t.Context(), alarm.Query{Closed: true}, everybody); err != nil || len(closed) != 1 {
				t.Errorf("beside one that cannot be read: %+v, %v", closed, err)
			}
			if e := w.events("alarm.closed"); len(e) != 1 || e[0].Data["alarm"] != "1" || e[0].Data["kind"] != c.opens.Kind {
				t.Errorf("%+v", e)
			}
		})
	}
}

// TestRestart: what is open stays so, and no event counts twice.
func TestRestart(t *testing.T) {
	w := newWorld(t)
	w.note(hostState(api.Failed, true))
	w.want("host.state of web-1")
	if _, err := w.Take(t.Context(), "1", "looking", everybody); err != nil {
		t.Fatal(err)
	}
	w.restart()
	w.note(hostState(api.Failed, true))
	w.restart()
	list, err := w.List(t.Context(), alarm.Query{}, everybody)
	if err != nil || len(list) != 1 || list[0].Count != 2 || list[0].Taken == nil || list[0].Taken.By != "op" || list[0].Taken.Reason != "looking" {
		t.Fatalf("%+v, %v", list, err)
	}
	if e := w.events("alarm.taken"); len(e) != 1 || e[0].By != "op" || e[0].Text != "op took the alarm host.state of web-1: looking" {
		t.Errorf("%+v", e)
	}
}

// TestTwoServers: whoever of two reads an event first, it counts once.
func TestTwoServers(t *testing.T) {
	w := newWorld(t)
	other := &world{t: t, store: w.store, time: w.time}
	other.restart()
	for _, s := range []*world{w, other} {
		defer w.store.Watch(s.set.Noticed)()
		if err := s.CatchUp(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 10 {
		w.note(hostState(api.Failed, true))
		first, second := w, other
		if i%2 > 0 {
			first, second = other, w
		}
		first.want("host.state of web-1")
		second.want("host.state of web-1")
	}
	list, err := other.List(t.Context(), alarm.Query{}, everybody)
	if err != nil || list[0].Count != 10 {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestClose: a person closes what no event ends, says why, and nobody closes it twice.
func TestClose(t *testing.T) {
	w := newWorld(t)
	w.note(api.Event{Kind: "channel.restored", Channel: "web", Alarm: true, Text: "restored"})
	for id, want := range map[string]api.Kind{"0": api.BadRequest, "x": api.BadRequest, "-1": api.BadRequest, "": api.BadRequest, "01": api.BadRequest, "9007199254740992": api.BadRequest, "2": api.NotFound} {
		_, err := w.Close(t.Context(), id, "why", everybody)
		if e := new(api.Error); !errors.As(err, &e) || e.Kind != want {
			t.Errorf("%q: %v, want %s", id, err, want)
		}
	}
	if _, err := w.Close(t.Context(), "1", "", everybody); err == nil {
		t.Error("closed without a reason")
	}
	no := Caller{Name: "other", Sees: func(string) bool { return false }, May: func(c string) error { return fmt.Errorf("not for %s", c) }}
	if _, err := w.Close(t.Context(), "1", "why", no); err == nil || err.Error() != "not for web" {
		t.Errorf("by another: %v", err)
	}
	if list, err := w.List(t.Context(), alarm.Query{}, no); err != nil || len(list) != 0 {
		t.Errorf("he sees %+v, %v", list, err)
	}
	a, err := w.Close(t.Context(), "1", "it was me", everybody)
	if err != nil || a.Closed == nil || a.Closed.By != "op" || a.Closed.Reason != "it was me" {
		t.Fatalf("%+v, %v", a, err)
	}
	w.want()
	_, err = w.Take(t.Context(), "1", "", everybody)
	if e := new(api.Error); !errors.As(err, &e) || e.Kind != api.NotFound || !strings.Contains(e.Message, "was closed at") {
		t.Errorf("taken when closed: %v", err)
	}
	if _, err = w.Take(t.Context(), "1", "", no); err == nil || strings.Contains(err.Error(), "it was me") {
		t.Errorf("he hears of it: %v", err)
	}
}

// TestFirstLook: a log that is years long opens what is new alone.
func TestFirstLook(t *testing.T) {
	w := newWorld(t)
	w.note(api.Event{Kind: "channel.restored", Channel: "old", Alarm: true})
	w.time = w.time.Add(20 * 24 * time.Hour)
	w.note(api.Event{Kind: "channel.restored", Channel: "new", Alarm: true})
	w.time = w.time.Add(20 * 24 * time.Hour)
	w.want("channel.restored of new")
}

// TestBounds: so many are open and so many closed ones are kept.
func TestBounds(t *testing.T) {
	w := newWorld(t)
	err := w.set.Update(t.Context(), nil, func(tx *mirror.Tx) error {
		for i := range maxOpen {
			audit.Note(tx, api.Event{Kind: "some.kind", Host: fmt.Sprint("h", i), Alarm: true})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(w.list(false)); n != maxOpen {
		t.Fatalf("%d are open", n)
	}
	if _, err := w.Take(t.Context(), "1", "", everybody); err != nil {
		t.Fatal(err)
	}
	w.note(api.Event{Kind: "some.kind", Host: "last", Alarm: true})
	open := w.list(false)
	if len(open) != maxOpen || !slices.Contains(open, "some.kind of h0") || slices.Contains(open, "some.kind of h1") || !slices.Contains(open, "some.kind of last") {
		t.Errorf("%d are open", len(open))
	}
	err = w.set.Update(t.Context(), nil, func(tx *mirror.Tx) error {
		for i := range maxOpen {
			audit.Note(tx, api.Event{Kind: "some.kind", Host: fmt.Sprint("h", i)})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	w.want("some.kind of last")
	if n := len(w.list(true)); n != maxClosed {
		t.Errorf("%d closed ones are kept", n)
	}
}

// TestOver: who cannot know whether an alarm is open writes nothing if none is.
func TestOver(t *testing.T) {
	w := newWorld(t)
	over := api.Event{Kind: "server.tls", Text: "it is over"}
	if err := w.Over(t.Context(), over); err != nil || len(w.events("server.tls")) != 0 {
		t.Errorf("%+v, %v", w.events("server.tls"), err)
	}
	w.note(api.Event{Kind: "server.tls", Alarm: true})
	if err := w.Over(t.Context(), over); err != nil || len(w.events("server.tls")) != 2 {
		t.Errorf("%+v, %v", w.events("server.tls"), err)
	}
	w.want()
}

// TestTend: an alarm is closed without anybody asking, also where the notice of the event is lost.
func TestTend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); w.Tend(ctx) }()
		w.note(hostState(api.Failed, true))
		w.Noticed([]string{audit.Events})
		synctest.Wait()
		if a := w.open.Get("host.state/web-1"); a == nil {
			t.Error("it is not open")
		}
		w.note(hostState(api.OK, false))
		time.Sleep(lookEvery)
		synctest.Wait()
		if a := w.open.Get("host.state/web-1"); a != nil {
			t.Errorf("it is open: %+v", a)
		}
		cancel()
		<-done
	})
}
