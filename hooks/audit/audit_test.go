package audit

import (
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"narwharf/cache/state/memory"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
)

// log is an audit log with a clock.
type log struct {
	t   *testing.T
	set *mirror.Set
	now time.Time
}

func newLog(t *testing.T) *log {
	l := &log{t: t, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	l.set = mirror.NewSet(memory.New(func() time.Time { return l.now }), slog.New(slog.DiscardHandler))
	return l
}

func (l *log) note(texts ...string) {
	l.t.Helper()
	err := l.set.Update(l.t.Context(), nil, func(tx *mirror.Tx) error {
		for _, text := range texts {
			Note(tx, api.Event{Kind: "test", Channel: "web", Text: text})
		}
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *log) all() []api.Event {
	l.t.Helper()
	list, _, err := Since(l.set, 1, 1<<30, func(*api.Event) bool { return true })
	if err != nil {
		l.t.Fatal(err)
	}
	return list
}

func TestSince(t *testing.T) {
	l := newLog(t)
	for i := range 2500 {
		l.note(fmt.Sprint(i))
	}
	list, next, err := Since(l.set, 1000, 5, func(e *api.Event) bool { return e.ID%500 == 0 })
	if err != nil || len(list) != 4 || next != list[3].ID+1 && next != 2501 {
		t.Fatalf("%d events, next %d, %v", len(list), next, err)
	}
	for i, e := range list {
		if e.ID != int64(1000+500*i) || e.Text != fmt.Sprint(e.ID-1) || !e.Time.Equal(l.now) {
			t.Errorf("%+v", e)
		}
	}
	if _, next, _ := Since(l.set, 1, 5, func(*api.Event) bool { return true }); next != 6 {
		t.Errorf("next %d after five", next)
	}
}

// A line that is no event stops nobody: it is passed over, and the server's log says so once.
func TestSinceGoesOnBehindADamagedLine(t *testing.T) {
	l := newLog(t)
	var said strings.Builder
	l.set = mirror.NewSet(memory.New(func() time.Time { return l.now }), slog.New(slog.NewTextHandler(&said, nil)))
	l.note("first")
	for _, bad := range []string{"{", `{"id":"x"}`, ""} {
		err := l.set.Update(t.Context(), nil, func(tx *mirror.Tx) error {
			return tx.Append(bucket, func(uint64) ([]byte, error) { return []byte(bad), nil })
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	l.note("last")
	for range 3 {
		list, next, err := Since(l.set, 1, 100, func(*api.Event) bool { return true })
		if err != nil || next != 6 || len(list) != 2 || list[0].Text != "first" || list[1].Text != "last" {
			t.Fatalf("%+v, next %d, %v", list, next, err)
		}
	}
	if n := strings.Count(said.String(), "passed over"); n != 3 || !strings.Contains(said.String(), "hooks/event 2") {
		t.Errorf("the log says\n%s", &said)
	}
}

// TestNewest: whatever the log holds, the last position is found.
func TestNewest(t *testing.T) {
	l := newLog(t)
	for i := range 70 {
		if last, err := Newest(l.set); err != nil || last != int64(i) {
			t.Fatalf("after %d lines: %d, %v", i, last, err)
		}
		l.note("x")
	}
}

// TestEndings: lines that are older than the newest hundred thousand do not count at first; what came since is added.
func TestEndings(t *testing.T) {
	l := newLog(t)
	end := func(channel, host string, state api.State, more ...string) {
		t.Helper()
		data := map[string]string{"state": string(state)}
		for _, m := range more {
			data[m] = "true"
		}
		err := l.set.Update(t.Context(), nil, func(tx *mirror.Tx) error {
			Note(tx, api.Event{Kind: "host.state", Channel: channel, Host: host, Seq: 7, Data: data})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	end("web", "old", api.OK)
	for range maxEnded / 1000 {
		l.note(make([]string, 1000)...)
	}
	end("web", "new", api.OK)
	var n Memory
	want := func(channel string, ok, reverted int) {
		t.Helper()
		ended, err := n.Endings(l.set, channel)
		if err != nil || len(ended) != 1 || ended[7][api.OK] != ok || ended[7][api.Reverted] != reverted {
			t.Errorf("%s: %v, %v", channel, ended, err)
		}
	}
	want("web", 1, 0)
	end("web", "later", api.OK)
	end("db", "later", api.OK)
	end("web", "new", api.Reverted)
	end("web", "later", api.Reverted, Asked)
	want("web", 1, 1)
	want("db", 1, 0)
	newest, err := Newest(l.set)
	if want("web", 1, 1); err != nil || n.next != newest+1 {
		t.Errorf("read up to %d of %d, %v", n.next, newest, err)
	}
}

// TestMemoryOfAHost: its lines come from memory as from the log, below each id, and what was dropped meanwhile is passed over.
func TestMemoryOfAHost(t *testing.T) {
	l := newLog(t)
	for i := range 400 {
		host := fmt.Sprintf("web-%d", i%3)
		err := l.set.Update(t.Context(), nil, func(tx *mirror.Tx) error {
			Note(tx, api.Event{Kind: []string{"a", "b"}[i%2], Channel: "web", Host: host, Text: fmt.Sprint(i)})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	var m Memory
	for _, id := range []int64{1, 2, 3, 77, 399, 400, 401, newest - 1} {
		for _, limit := range []int{1, 7, 1000} {
			keep := func(e *api.Event) bool { return e.Host == "web-1" && e.Kind == "b" }
			want, _, err := Before(l.set, id, limit, keep)
			if err != nil {
				t.Fatal(err)
			}
			got, next, err := m.before(l.set, "web-1", id, limit, keep)
			if err != nil || !reflect.DeepEqual(got, want) || len(got) < limit && next != 0 || len(got) == limit && next != got[limit-1].ID {
				t.Errorf("below %d, %d lines: %d, next %d, %v", id, limit, len(got), next, err)
			}
		}
	}
	err := l.set.Update(t.Context(), nil, func(tx *mirror.Tx) error { return tx.Trim(bucket, 300) })
	if err != nil {
		t.Fatal(err)
	}
	list, _, err := m.before(l.set, "web-1", newest-1, 1000, func(*api.Event) bool { return true })
	if err != nil || len(list) < 30 || list[len(list)-1].ID < 300 {
		t.Errorf("after a trim: %d, %v", len(list), err)
	}
}

// TestTrimByAge: what is older goes, by days, and a line says what it was.
func TestTrimByAge(t *testing.T) {
	l := newLog(t)
	tr := &trimmer{set: l.set, limits: Limits{Keep: 30 * 24 * time.Hour}, clock: func() time.Time { return l.now }}
	for range 60 {
		l.note("one", "two")
		if _, err := tr.trim(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.now = l.now.Add(25 * time.Hour)
	}
	list, lines := l.all(), 0
	for _, e := range list {
		if age := l.now.Sub(e.Time); age > 33*25*time.Hour {
			t.Errorf("event %d is %s old", e.ID, age)
		}
		if e.Kind == "audit.dropped" {
			lines++
		}
	}
	if len(list) < 2*28 || lines == 0 {
		t.Errorf("%d lines are left, %d say what was dropped", len(list), lines)
	}
	// A fresh one, as after a restart, finds nothing to do.
	tr = &trimmer{set: l.set, limits: tr.limits, clock: tr.clock}
	l.now = l.now.Add(-25 * time.Hour)
	if n, err := tr.trim(t.Context()); n != 0 || err != nil {
		t.Errorf("dropped %d, %v", n, err)
	}
}

// TestTrimBySize: the oldest go until the rest fits.
func TestTrimBySize(t *testing.T) {
	l := newLog(t)
	text := strings.Repeat("x", 900)
	for range 10 {
		for range 50 {
			l.note(text)
		}
		for range 10 {
			l.note(text, text, text, text, text)
		}
	}
	const limit = 300 << 10
	tr := &trimmer{set: l.set, limits: Limits{MaxSize: limit}, clock: func() time.Time { return l.now }}
	if n, err := tr.trim(t.Context()); n != 0 || err != nil || len(l.all()) != 1000 {
		t.Fatalf("the last piece goes: %d, %v", n, err)
	}
	for range 1100 {
		l.note(text)
	}
	n, err := tr.trim(t.Context())
	if err != nil || n != 2000 {
		t.Errorf("dropped %d, %v", n, err)
	}
	list := l.all()
	if len(list) != 101 || list[0].ID != 2001 {
		t.Fatalf("%d are left, from %d on", len(list), list[0].ID)
	}
	if e := list[100]; e.Kind != "audit.dropped" || e.Data["from"] != "1" || e.Data["to"] != "2000" || e.Data["lines"] != "2000" || !strings.Contains(e.Text, "dropped its 2000 oldest lines, 1 to 2000") {
		t.Errorf("%+v", e)
	}
	// Another server that knows of the log as it was before drops nothing twice.
	old := &trimmer{set: l.set, limits: tr.limits, clock: tr.clock}
	if err := old.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	old.pieces = append([]piece{{first: 1, last: 1000, count: 1000, size: limit, oldest: l.now, newest: l.now}}, old.pieces...)
	old.size += limit
	if n, err := old.trim(t.Context()); n != 0 || err != nil || len(l.all()) != 101 {
		t.Errorf("dropped %d, %v", n, err)
	}
}

// TestWords: whatever is noted is a line that prints, in each of its strings; what the caller gave stays as it is.
func TestWords(t *testing.T) {
	l := newLog(t)
	nasty := "a\nb\x1b[2J\u202ec"
	e := api.Event{Kind: "k", Channel: "web", By: nasty, Text: nasty, Data: map[string]string{"x": nasty}}
	if err := l.set.Update(t.Context(), nil, func(tx *mirror.Tx) error {
		Note(tx, e)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	const want = "a\ufffdb\ufffd[2J\ufffdc"
	got := l.all()
	if len(got) != 1 || got[0].By != want || got[0].Text != want || got[0].Data["x"] != want || e.Data["x"] != nasty {
		t.Errorf("%+v, from %+v", got, e)
	}
}
