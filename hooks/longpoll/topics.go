package longpoll

import (
	"net"
	"sync"
	"time"
)

// topics wake parked polls. A poll joins its topics first, then looks at the
// state, then waits: whatever changes after the look wakes it, so no change is
// missed and no message is queued for anybody. It may be woken for nothing.
type topics struct {
	mu   sync.Mutex
	open map[string]map[*waiter]struct{}
}

// join lets the next notify of any of the names wake w.
func (t *topics) join(w *waiter, names []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open == nil {
		t.open = make(map[string]map[*waiter]struct{})
	}
	for _, name := range names {
		if t.open[name] == nil {
			t.open[name] = make(map[*waiter]struct{})
		}
		t.open[name][w] = struct{}{}
	}
}

// leave is called when whoever joined has stopped waiting.
func (t *topics) leave(w *waiter, names []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, name := range names {
		if set := t.open[name]; set != nil {
			if delete(set, w); len(set) == 0 {
				delete(t.open, name)
			}
		}
	}
}

// notify wakes everybody who waits for one of the names.
func (t *topics) notify(names ...string) {
	var sets []map[*waiter]struct{}
	t.mu.Lock()
	for _, name := range names {
		if set := t.open[name]; set != nil {
			sets = append(sets, set)
			delete(t.open, name)
		}
	}
	t.mu.Unlock()
	wakeAll(sets)
}

// notifyAll wakes everybody.
func (t *topics) notifyAll() {
	var sets []map[*waiter]struct{}
	t.mu.Lock()
	for _, set := range t.open {
		sets = append(sets, set)
	}
	t.open = nil
	t.mu.Unlock()
	wakeAll(sets)
}

// count counts the waiters, and those of them that wait in a Read.
func (t *topics) count() (all, reading int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	seen := make(map[*waiter]struct{})
	for _, set := range t.open {
		for w := range set {
			if _, twice := seen[w]; twice {
				continue
			}
			seen[w] = struct{}{}
			w.mu.Lock()
			if w.conn != nil {
				reading++
			}
			w.mu.Unlock()
		}
	}
	return len(seen), reading
}

func wakeAll(sets []map[*waiter]struct{}) {
	for _, set := range sets {
		for w := range set {
			w.wake()
		}
	}
}

// A waiter is one poll that may be woken. It waits either for a channel or in
// the Read of a connection, of which the end of the deadline wakes it.
type waiter struct {
	mu    sync.Mutex
	woken bool
	ch    chan struct{}
	conn  net.Conn
}

func (w *waiter) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.woken {
		return
	}
	w.woken = true
	if w.ch != nil {
		close(w.ch)
	}
	if w.conn != nil {
		_ = w.conn.SetReadDeadline(longAgo) // fails if it is closed, and Read has ended
	}
}

// reset prepares for another wake-up.
func (w *waiter) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.woken, w.ch, w.conn = false, nil, nil
}

// channel is closed by the wake-up.
func (w *waiter) channel() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ch = make(chan struct{})
	if w.woken {
		close(w.ch)
	}
	return w.ch
}

// onRead lets Read of conn end at the wake-up, or at the time until. It is
// false if the wake-up has been.
func (w *waiter) onRead(conn net.Conn, until time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.woken {
		return false
	}
	_ = conn.SetReadDeadline(until) // what fails here fails in Read
	w.conn = conn
	return true
}

// offRead lets go of the connection, so that a late wake-up does not touch it,
// and tells whether there was one.
func (w *waiter) offRead() (woken bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conn = nil
	return w.woken
}
