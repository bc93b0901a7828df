package hooks

import (
	"sync"
	"time"
)

// alarms wake polls at a time of day: what they look at changes by the passing
// of time alone. Whoever looks sets the alarm for the next change that it sees.
type alarms struct {
	topics *topics
	clock  func() time.Time

	mu   sync.Mutex
	set  map[string]*alarm // by topic
	over bool
}

type alarm struct {
	at    time.Time
	timer *time.Timer
}

// An alarm looks at the clock this often, since the clock may be put right.
const alarmStep = time.Minute

// at notifies a topic at a time, or before if that was asked for, too. Once it
// has rung, it is forgotten.
func (a *alarms) at(t time.Time, topic string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		return
	}
	if old := a.set[topic]; old != nil {
		if !t.Before(old.at) {
			return
		}
		old.timer.Stop()
	}
	if a.set == nil {
		a.set = make(map[string]*alarm)
	}
	n := &alarm{at: t}
	n.timer = time.AfterFunc(a.left(t), func() { a.ring(topic, n) })
	a.set[topic] = n
}

// left is how long to sleep for a time.
func (a *alarms) left(t time.Time) time.Duration {
	return max(min(t.Sub(a.clock()), alarmStep), 0)
}

func (a *alarms) ring(topic string, n *alarm) {
	a.mu.Lock()
	if a.over || a.set[topic] != n {
		a.mu.Unlock()
		return
	}
	if left := a.left(n.at); left > 0 {
		n.timer.Reset(left)
		a.mu.Unlock()
		return
	}
	delete(a.set, topic)
	a.mu.Unlock()
	a.topics.notify(topic)
}

// stop forgets all alarms, for good.
func (a *alarms) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = true
	for _, n := range a.set {
		n.timer.Stop()
	}
	a.set = nil
}
