package hooks

import (
	"sync"
	"time"
)

// alarms call functions at a time of day, mostly to wake polls: what they look
// at changes by the passing of time alone. Whoever looks sets the alarm for the
// next change that it sees.
type alarms struct {
	clock func() time.Time

	mu      sync.Mutex
	set     map[string]*alarm // by key
	over    bool
	ringing sync.WaitGroup
}

type alarm struct {
	at    time.Time
	ring  func()
	timer *time.Timer
}

// An alarm looks at the clock this often, since the clock may be put right.
const alarmStep = time.Minute

// first calls ring at a time, unless the key's alarm rings before that anyway.
// Once it has rung, an alarm is forgotten.
func (a *alarms) first(t time.Time, key string, ring func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if old := a.set[key]; old == nil || t.Before(old.at) {
		a.put(t, key, ring)
	}
}

// at calls ring at a time, in place of the key's alarm of before.
func (a *alarms) at(t time.Time, key string, ring func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.put(t, key, ring)
}

// off forgets the alarm of a key.
func (a *alarms) off(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.drop(key)
}

func (a *alarms) drop(key string) {
	if old := a.set[key]; old != nil {
		old.timer.Stop()
		delete(a.set, key)
	}
}

func (a *alarms) put(t time.Time, key string, ring func()) {
	if a.over {
		return
	}
	a.drop(key)
	if a.set == nil {
		a.set = make(map[string]*alarm)
	}
	n := &alarm{at: t, ring: ring}
	n.timer = time.AfterFunc(a.left(t), func() { a.look(key, n) })
	a.set[key] = n
}

// left is how long to sleep for a time.
func (a *alarms) left(t time.Time) time.Duration {
	return max(min(t.Sub(a.clock()), alarmStep), 0)
}

// look rings, if it is time.
func (a *alarms) look(key string, n *alarm) {
	a.mu.Lock()
	if a.over || a.set[key] != n {
		a.mu.Unlock()
		return
	}
	if left := a.left(n.at); left > 0 {
		n.timer.Reset(left)
		a.mu.Unlock()
		return
	}
	delete(a.set, key)
	a.ringing.Add(1)
	a.mu.Unlock()
	defer a.ringing.Done()
	n.ring()
}

// stop forgets all alarms, for good. When it returns, none is ringing.
func (a *alarms) stop() {
	a.mu.Lock()
	a.over = true
	for key := range a.set {
		a.drop(key)
	}
	a.mu.Unlock()
	a.ringing.Wait()
}
