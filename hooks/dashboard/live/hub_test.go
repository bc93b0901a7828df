package live

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"narwharf/cache/limits"
	"narwharf/hooks/dashboard/plot"
	"narwharf/hooks/longpoll"
)

// world is a view whose text is what a test says, and browsers that look at it.
type world struct {
	t     *testing.T
	polls *longpoll.Polls
	hub   *Hub

	mu    sync.Mutex
	text  string
	cells string
	err   error
	loads atomic.Int64
}

func newWorld(t *testing.T) *world {
	log := slog.New(slog.DiscardHandler)
	polls := longpoll.New(longpoll.Options{Log: log})
	return &world{t: t, polls: polls, hub: New(polls, log), text: "one", cells: "qqq"}
}

func (w *world) set(text, cells string, err error) {
	w.mu.Lock()
	w.text, w.cells, w.err = text, cells, err
	w.mu.Unlock()
	w.polls.Notify("topic")
}

func (w *world) load() (*Snapshot, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.loads.Add(1)
	if w.err != nil {
		return nil, w.err
	}
	return &Snapshot{
		Fragments: map[string]string{"a": "<p id=a>" + w.text + "</p>", "b": "<p id=b>same</p>"}, Topics: []string{"topic"},
		Cells: map[string]*plot.Cells{"c": {ID: "c", Names: []string{"x", "y", "z"}, States: []byte(w.cells)}},
	}, nil
}

// look opens a stream, and returns its text so far. It ends when the server ends it, or by stop.
type looker struct {
	mu     sync.Mutex
	text   strings.Builder
	stop   func()
	done   chan struct{}
	header http.Header
	stuck  chan struct{} // while it is not nil, writes wait for it or for their deadline
	until  time.Time
}

func (l *looker) Header() http.Header { return l.header }
func (l *looker) WriteHeader(int)     {}
func (l *looker) Flush()              {}
func (l *looker) SetWriteDeadline(t time.Time) error {
	l.until = t
	return nil
}

func (l *looker) Write(p []byte) (int, error) {
	if l.stuck != nil {
		select {
		case <-l.stuck:
		case <-time.After(time.Until(l.until)):
			return 0, errors.New("it takes too long")
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// take returns the events that came since the last call.
func (l *looker) take() string {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	text := l.text.String()
	l.text.Reset()
	return text
}

func (w *world) look(v Viewer) *looker {
	ctx, stop := context.WithCancel(w.t.Context())
	l := &looker{stop: stop, done: make(chan struct{}), header: make(http.Header)}
	if v.Load == nil {
		v.Load = w.load
	}
	if v.Still == nil {
		v.Still = func() error { return nil }
	}
	if v.Key == "" {
		v.Key = "view"
	}
	go func() {
		defer close(l.done)
		if err := w.hub.Serve(l, httptest.NewRequestWithContext(ctx, "GET", "/ui/live", http.NoBody), &v); err != nil {
			_, _ = io.WriteString(l, err.Error())
		}
	}()
	return l
}

func id(event string) string {
	_, rest, _ := strings.Cut(event, "id: ")
	id, _, _ := strings.Cut(rest, "\n")
	return id
}

func data(t *testing.T, event string) (u update) {
	t.Helper()
	_, rest, _ := strings.Cut(event, "data: ")
	text, _, _ := strings.Cut(rest, "\n")
	if err := json.Unmarshal([]byte(text), &u); err != nil {
		t.Fatalf("%q: %v", event, err)
	}
	return u
}

func TestUpdates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		l := w.look(Viewer{})
		first := l.take()
		if u := data(t, first); len(u.Fragments) != 3 || !strings.Contains(u.Fragments["c"], "<svg") {
			t.Errorf("at first: %s", first)
		}
		if l.header.Get("X-Accel-Buffering") != "no" || l.header.Get("Content-Type") != "text/event-stream" || !strings.HasPrefix(first, "retry:") {
			t.Errorf("%v %s", l.header, first)
		}
		time.Sleep(time.Second)
		w.set("two", "qwq", nil)
		event := l.take()
		if u := data(t, event); u.Fragments["a"] != "<p id=a>two</p>" || len(u.Fragments) != 1 || u.Cells["c"] != "1:w" {
			t.Errorf("then: %s", event)
		}
		// Who has that one is sent nothing; who has another is sent all.
		same := w.look(Viewer{Seen: id(event)})
		if text := same.take(); strings.Contains(text, "data: {") {
			t.Errorf("again, with the last id: %s", text)
		}
		if u := data(t, w.look(Viewer{Seen: id(first)}).take()); len(u.Fragments) != 1 {
			t.Errorf("again, with the id before: %+v", u)
		}
		if u := data(t, w.look(Viewer{Seen: "of another server"}).take()); len(u.Fragments) != 3 {
			t.Errorf("again, with an older id: %+v", u)
		}
		same.stop()
		<-same.done
		w.polls.Stop()
		<-l.done
	})
}

// However often something changes, and whoever looks, a view is made four times a second.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var all []*looker
		for range 50 {
			all = append(all, w.look(Viewer{}))
		}
		synctest.Wait()
		w.loads.Store(0)
		for i := range 1000 {
			w.set(strings.Repeat("x", i), "qqq", nil)
			time.Sleep(10 * time.Millisecond)
		}
		if w.loads.Load() < 30 || w.loads.Load() > 42 {
			t.Errorf("%d snapshots in ten seconds", w.loads.Load())
		}
		synctest.Wait()
		w.loads.Store(0)
		time.Sleep(time.Minute)
		if w.loads.Load() > 3 {
			t.Errorf("%d snapshots in a minute in which nothing changed", w.loads.Load())
		}
		for _, l := range all {
			l.stop()
			<-l.done
		}
		w.loads.Store(0)
		time.Sleep(time.Minute)
		if w.loads.Load() > 0 || len(w.hub.views) > 0 || w.hub.Streams() > 0 {
			t.Errorf("nobody looks: %d snapshots, %d views, %d streams", w.loads.Load(), len(w.hub.views), w.hub.Streams())
		}
	})
}

// Many views that are all made anew again and again take a tenth of the time together, as one does.
func TestShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		const took = 20 * time.Millisecond
		var loads atomic.Int64
		var all []*looker
		for i := range 40 {
			all = append(all, w.look(Viewer{Key: strings.Repeat("v", i+1), Load: func() (*Snapshot, error) {
				loads.Add(1)
				time.Sleep(took)
				return w.load()
			}}))
		}
		time.Sleep(20 * time.Second)
		loads.Store(0)
		for i := range 600 {
			w.set(strings.Repeat("x", i), "qqq", nil)
			time.Sleep(100 * time.Millisecond)
		}
		if spent := time.Duration(loads.Load()) * took; spent < 4*time.Second || spent > 7*time.Second {
			t.Errorf("%s of a minute", spent)
		}
		for _, l := range all {
			l.stop()
			<-l.done
		}
	})
}

// Who takes nothing is sent away; who takes slowly is sent the newest and nothing in between.
func TestSlowReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		l := w.look(Viewer{})
		l.take()
		l.stuck = make(chan struct{})
		for i := range 12 { // 6 s
			w.set(strings.Repeat("x", i), "qqq", nil)
			time.Sleep(500 * time.Millisecond)
		}
		close(l.stuck)
		if text := l.take(); strings.Count(text, "data: {") != 2 || !strings.Contains(text, strings.Repeat("x", 11)) {
			t.Errorf("slow: %s", text)
		}
		l.stuck = make(chan struct{})
		w.set("last", "qqq", nil)
		time.Sleep(11 * time.Second)
		<-l.done
		if w.hub.Streams() != 0 {
			t.Error("it is still there")
		}
	})
}

func TestRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var revoked error
		l := w.look(Viewer{Topics: []string{"token"}, Still: func() error { return revoked }})
		other := w.look(Viewer{})
		l.take()
		time.Sleep(time.Second)
		revoked = errors.New("the token was revoked")
		w.polls.Notify("token")
		if text := l.take(); !strings.Contains(text, "event: bye\ndata: {\"why\":\"the token was revoked\"}") {
			t.Errorf("revoked: %s", text)
		}
		<-l.done
		other.take()
		time.Sleep(time.Second)
		w.set("two", "qqq", nil)
		if text := other.take(); !strings.Contains(text, "two") {
			t.Errorf("the other: %s", text)
		}
		other.stop()
		<-other.done
	})
}

// What cannot be shown any more ends the streams in words, and a later look begins anew.
func TestGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		l := w.look(Viewer{})
		l.take()
		time.Sleep(time.Second)
		w.set("", "", errors.New("the host is gone"))
		if text := l.take(); !strings.Contains(text, "the host is gone") {
			t.Errorf("gone: %s", text)
		}
		<-l.done
		w.set("again", "qqq", nil)
		l = w.look(Viewer{})
		if text := l.take(); !strings.Contains(text, "again") {
			t.Errorf("again: %s", text)
		}
		time.Sleep(16 * time.Second)
		if text := l.take(); !strings.Contains(text, ": still here\nevent: alive\n") {
			t.Errorf("alive: %s", text)
		}
		l.stop()
		<-l.done
	})
}

func TestFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for range mostOf {
			w.look(Viewer{Who: "one"})
		}
		synctest.Wait()
		if text := w.look(Viewer{Who: "one"}).take(); text != ErrFull.Error() {
			t.Errorf("one too many: %q", text)
		}
		if text := w.look(Viewer{Who: "two"}).take(); !strings.Contains(text, "data: {") {
			t.Errorf("another: %q", text)
		}
		w.polls.Stop()
		synctest.Wait()
		if w.hub.Streams() != 0 {
			t.Errorf("%d streams of a server that stops", w.hub.Streams())
		}
	})
}

// TestManyViews: whoever opens many views, each of them a little different, has few loaded at once.
func TestManyViews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var at, most atomic.Int64
		for i := range mostOf {
			w.look(Viewer{Who: "one", Key: fmt.Sprint("view ", i), Load: func() (*Snapshot, error) {
				most.Store(max(most.Load(), at.Add(1)))
				defer at.Add(-1)
				time.Sleep(time.Second)
				return w.load()
			}})
		}
		other := w.look(Viewer{Who: "two"})
		time.Sleep(2 * mostOf * time.Second)
		if text := other.take(); !strings.Contains(text, "data: {") {
			t.Errorf("another sees %q", text)
		}
		if few := int64(cap(w.hub.turns)); most.Load() > few || few > int64(runtime.GOMAXPROCS(0)) {
			t.Errorf("%d at once, and there should be %d", most.Load(), few)
		}
		w.polls.Stop()
		time.Sleep(time.Minute) // some are being made
		if w.hub.Streams() != 0 || len(w.hub.turns) != 0 {
			t.Errorf("%d streams and %d turns of a server that stops", w.hub.Streams(), len(w.hub.turns))
		}
	})
}

// TestFault: a view that makes the program panic ends, and the server does not.
func TestFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		l := w.look(Viewer{Load: func() (*Snapshot, error) { panic(http.ErrAbortHandler) }})
		if text := l.take(); !strings.Contains(text, errFault.Error()) {
			t.Errorf("%q", text)
		}
		<-l.done
		l = w.look(Viewer{})
		if text := l.take(); !strings.Contains(text, "one") {
			t.Errorf("afterwards: %q", text)
		}
		l.stop()
		<-l.done
	})
}

// TestAnswerDeadline: an event has the deadline of events, whatever writer it goes through.
func TestAnswerDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &looker{header: make(http.Header), stuck: make(chan struct{})}
		s := newStream(limits.NewAnswer(l))
		began := time.Now()
		if s.send([]byte("x")); !s.failed || time.Since(began) != patience {
			t.Errorf("failed %v after %s", s.failed, time.Since(began))
		}
	})
}
