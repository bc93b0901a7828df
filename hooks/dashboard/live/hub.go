// Package live keeps open pages up to date by server-sent events
// (https://html.spec.whatwg.org/multipage/server-sent-events.html).
//
// An event says which elements of the page are others now. It leads from one snapshot to the next, and its
// id names the one that it leads to. A browser that comes back says by that which one it has: if it is the
// present one it is sent nothing, else all of it. So nothing is queued for anybody: whoever takes events
// more slowly than they come is sent the newest when he has taken the last, and whoever does not
// take one in time is sent away.
//
// All who look at one view share its snapshots, which are made at most four times a second. The more views
// there are, the longer each waits, so that all together take about a tenth of the time, and
// never more than half of the processors. Those of a view at which
// nobody looks are not made.
package live

import (
	"errors"
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

// Topics tells of changes, as longpoll.Polls does.
type Topics interface {
	// Watch closes changed when something of the topics changes after the call. leave is to be called.
	Watch(topics ...string) (changed <-chan struct{}, leave func())
	// Stopping is closed when the server stops.
	Stopping() <-chan struct{}
}

// Viewer is somebody who looks at a view.
type Viewer struct {
	Key  string // of the view, with all on which its snapshots depend: viewers of one key share them
	Who  string // whose streams are counted together
	Seen string // id of the snapshot that he has, "" for none
	// Load makes a snapshot by the viewer's own rights.
	Load func() (*Snapshot, error)
	// Still says why he may not look any more, nil if he may. It is asked when one of Topics changes and
	// every 15 seconds.
	Still  func() error
	Topics []string
}

// How often, how long and how many.
const (
	atOnce    = 250 * time.Millisecond // between two snapshots
	share     = 10                     // the snapshots of all views together may take one part in so many of the time
	longest   = 10 * time.Second       // between two snapshots that take long
	again     = 30 * time.Second       // to the next one if no topic changes: time alone changes some views
	alive     = 15 * time.Second       // between two comments
	patience  = 10 * time.Second       // for an event to be taken
	mostOf    = 64                     // streams of one credential
	mostOfAll = 2048
)

// ErrFull means that there are as many streams as there may be.
var ErrFull = errors.New("as many pages are open as this server keeps up to date at once: load the page again later")

// errFault is of this program.
var errFault = errors.New("an error that the server's log says more of")

// Hub is the views at which somebody looks.
type Hub struct {
	topics Topics
	log    *slog.Logger
	turns  chan struct{} // holds one for each snapshot that is being made

	mu    sync.Mutex
	views map[string]*view
	of    map[string]int // streams, by Who
	all   int
}

// New makes a Hub of no views.
func New(topics Topics, log *slog.Logger) *Hub {
	return &Hub{
		topics: topics, log: log, turns: make(chan struct{}, max(runtime.GOMAXPROCS(0)/2, 1)),
		views: make(map[string]*view), of: make(map[string]int),
	}
}

// Streams is how many there are.
func (h *Hub) Streams() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.all
}

// view is one at which somebody looks.
type view struct {
	hub  *Hub
	key  string
	done chan struct{} // nobody looks any more

	mu      sync.Mutex
	viewers []*Viewer
	now     *Snapshot // nil: there is none yet
	wasID   string
	step    []byte // event that leads from wasID to now
	whole   []byte // event with all of now; made when it is asked for
	err     error  // the view is over
	changed chan struct{}
}

// join has a viewer look at his view.
func (h *Hub) join(w *Viewer) (*view, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.of[w.Who] >= mostOf || h.all >= mostOfAll {
		return nil, ErrFull
	}
	h.of[w.Who]++
	h.all++
	v := h.views[w.Key]
	if v == nil {
		v = &view{hub: h, key: w.Key, done: make(chan struct{}), changed: make(chan struct{})}
		h.views[w.Key] = v
		defer func() { go v.run() }()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.viewers = append(v.viewers, w)
	return v, nil
}

func (h *Hub) leave(v *view, w *Viewer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.of[w.Who]--; h.of[w.Who] == 0 {
		delete(h.of, w.Who)
	}
	h.all--
	v.mu.Lock()
	defer v.mu.Unlock()
	for i := range v.viewers {
		if v.viewers[i] == w {
			v.viewers = append(v.viewers[:i], v.viewers[i+1:]...)
			break
		}
	}
	if len(v.viewers) == 0 && h.views[v.key] == v {
		delete(h.views, v.key)
		close(v.done)
	}
}

// first is a viewer by whose rights a snapshot can be made, nil if there is none.
func (v *view) first() *Viewer {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.viewers) == 0 {
		return nil
	}
	return v.viewers[0]
}

// run makes snapshots while somebody looks.
func (v *view) run() {
	var topics []string
	for {
		changed, leave := v.hub.topics.Watch(topics...) // first, so that no change is missed
		if !v.turn() {
			leave()
			return
		}
		w := v.first()
		if w == nil {
			<-v.hub.turns
			leave()
			return
		}
		began := time.Now()
		s, err := v.load(w)
		if err != nil && w.Still() != nil && v.others(w) {
			leave() // he may not look any more: make it by the rights of another
			if !v.sleep(atOnce, nil) {
				return
			}
			continue
		}
		v.publish(s, err)
		if err != nil {
			leave()
			v.end()
			return
		}
		news := !same(topics, s.Topics)
		topics = s.Topics
		pause := v.hub.pause(time.Since(began))
		if !v.sleep(pause, nil) || !news && !v.sleep(again, changed) {
			leave()
			return
		}
		leave()
	}
}

// pause is how long a view waits whose snapshot took a time.
func (h *Hub) pause(took time.Duration) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return min(max(atOnce, share*took*time.Duration(len(h.views))), longest)
}

// turn waits until few other snapshots are being made; it is false when the view is over.
func (v *view) turn() bool {
	select {
	case v.hub.turns <- struct{}{}:
		return true
	case <-v.done:
	case <-v.hub.topics.Stopping():
	}
	return false
}

// load makes a snapshot in a turn. A fault of ours ends the view, and not the server with it.
func (v *view) load(w *Viewer) (s *Snapshot, err error) {
	defer func() {
		<-v.hub.turns
		if fault := recover(); fault != nil {
			v.hub.log.Error("a fault of narwharf: please report it", "view", v.key, "panic", fault, "stack", string(debug.Stack()))
			err = errFault
		}
	}()
	return w.Load()
}

// end lets the next who come begin the view anew.
func (v *view) end() {
	v.hub.mu.Lock()
	defer v.hub.mu.Unlock()
	if v.hub.views[v.key] == v {
		delete(v.hub.views, v.key)
	}
}

// others tells whether somebody else looks, and has them come first.
func (v *view) others(w *Viewer) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.viewers) > 1 && v.viewers[0] == w {
		v.viewers = append(v.viewers[1:], w)
	}
	return len(v.viewers) > 0 && v.viewers[0] != w
}

// sleep waits for a time or a change; it is false when the view is over.
func (v *view) sleep(d time.Duration, changed <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-v.done:
		return false
	case <-v.hub.topics.Stopping():
		return false
	}
	return true
}

func same(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// publish shows a snapshot to all viewers, or why there is none.
func (v *view) publish(s *Snapshot, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case err != nil:
		v.err = err
	case v.now != nil && v.now.ID() == s.ID():
		v.now.Topics = s.Topics
		return
	default:
		v.wasID, v.step, v.whole = "", nil, nil
		s.ID()
		if v.now != nil {
			v.wasID, v.step = v.now.ID(), s.since(v.now)
		}
		v.now = s
	}
	close(v.changed)
	v.changed = make(chan struct{})
}

// next is the event for a viewer who has a snapshot, nil if it is the present one.
func (v *view) next(have string) (event []byte, id string, changed <-chan struct{}, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.err != nil:
		return nil, have, v.changed, v.err
	case v.now == nil || v.now.ID() == have:
		return nil, have, v.changed, nil
	case v.wasID != "" && v.wasID == have:
		return v.step, v.now.ID(), v.changed, nil
	}
	if v.whole == nil {
		v.whole = v.now.since(nil)
	}
	return v.whole, v.now.ID(), v.changed, nil
}
