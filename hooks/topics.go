package hooks

import "sync"

// topics wake parked polls. A poll takes the channel of its topic first, then
// looks at the state, then waits: whatever changes after the look closes the
// channel, so no change is missed and no message is queued for anybody.
type topics struct {
	mu   sync.Mutex
	open map[string]*topic
}

type topic struct {
	wake    chan struct{}
	waiters int
}

// wait returns the channel that the next notify of name closes. done must be
// called when the caller has stopped waiting.
func (t *topics) wait(name string) (wake <-chan struct{}, done func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open == nil {
		t.open = make(map[string]*topic)
	}
	tp := t.open[name]
	if tp == nil {
		tp = &topic{wake: make(chan struct{})}
		t.open[name] = tp
	}
	tp.waiters++
	return tp.wake, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if tp.waiters--; tp.waiters == 0 && t.open[name] == tp {
			delete(t.open, name)
		}
	}
}

// notify wakes everybody who waits for one of the names.
func (t *topics) notify(names ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, name := range names {
		if tp := t.open[name]; tp != nil {
			close(tp.wake)
			delete(t.open, name)
		}
	}
}

func channelTopic(name string) string { return "channel/" + name }
func hostTopic(name string) string    { return "host/" + name }
func hostsTopic(channel string) string {
	return "hosts/" + channel
}

const eventsTopic = "events"
