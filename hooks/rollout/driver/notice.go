package driver

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"narwharf/cache/state"
	"narwharf/hooks/audit"
	"narwharf/hooks/rollout"
	"narwharf/hooks/rollout/rows"
)

// sweep is how often the driver looks who is heard of.
const sweep = 10 * time.Second

// notices are what may be news.
type notices struct {
	mu       sync.Mutex
	hosts    map[string]bool
	channels map[string]bool
	all      bool // some were lost
	rows     bool // another server wrote some, or this one
}

func (n *notices) init() { n.hosts, n.channels = make(map[string]bool), make(map[string]bool) }

// take hands over what there is.
func (n *notices) take() (hosts, channels []string, all, rows bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	hosts, channels = slices.Sorted(maps.Keys(n.hosts)), slices.Sorted(maps.Keys(n.channels))
	all, rows = n.all, n.rows
	n.init()
	n.all, n.rows = false, false
	return hosts, channels, all, rows
}

// changed tells whether rows were written, or whether that is not known.
func (n *notices) changed() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.all || n.rows
}

// Noticed is told which topics the state notified of. It returns at once.
func (d *Driver) Noticed(topics []string) {
	governs, news := d.pub.any(), false
	d.notices.mu.Lock()
	for _, topic := range topics {
		if topic == state.All {
			d.notices.all, news = true, true
		} else if name, ok := strings.CutPrefix(topic, audit.Channel("")); ok {
			d.notices.channels[name], news = true, true
		} else if name, ok := strings.CutPrefix(topic, audit.Host("")); ok && governs {
			d.notices.hosts[name], news = true, true
		} else if rows.Is(topic) {
			d.notices.rows = true
			news = news || !d.lease.Held()
		}
	}
	d.notices.mu.Unlock()
	if news {
		d.kick()
	}
}

// Came is that a host is heard of that was away.
func (d *Driver) Came(host string) {
	if d.pub.any() {
		d.Noticed([]string{audit.Host(host)})
	}
}

// kick has the driver look at what is new.
func (d *Driver) kick() { d.at(d.o.Clock()) }

func (d *Driver) at(when time.Time) { d.o.Timers.First(when, "rollouts", d.work) }

// gather makes events of what is new.
func (d *Driver) gather(now time.Time) (events []rollout.Event) {
	hosts, channels, all, _ := d.notices.take()
	if all {
		channels = slices.Sorted(maps.Keys(d.o.Policies.All()))
		hosts = slices.Sorted(maps.Keys(d.o.Hosts.Records()))
		for name := range d.e.Hosts {
			hosts = append(hosts, name)
		}
	}
	for _, name := range channels {
		events = append(events, d.channelEvents(name, now)...)
	}
	for name, g := range d.governed {
		if !g.next.IsZero() && !now.Before(g.next) {
			events = append(events, d.windowEvent(name, g, now)...)
		}
	}
	for _, name := range slices.Compact(hosts) {
		events = append(events, d.hostEvents(name, now)...)
	}
	if now.Sub(d.swept) >= sweep {
		d.swept = now
		events = append(events, d.seen(now)...)
	}
	return events
}

// hostEvents are what is new of a host.
func (d *Driver) hostEvents(name string, now time.Time) (events []rollout.Event) {
	r := d.o.Hosts.Record(name)
	l, known := d.level(name, r, now), d.e.Hosts[name]
	if l == nil || d.governed[l.Channel] == nil {
		if known != nil {
			events = append(events, rollout.Gone{Host: name})
		}
		return events
	}
	if r.Hold != nil && r.Hold.Until != nil && r.Hold.Until.After(now) {
		d.o.Timers.At(*r.Hold.Until, "rollouts/hold/"+name, func() { d.Came(name) })
	}
	away := d.away(name, r, now)
	if known == nil || !known.Level.Same(l) {
		events = append(events, rollout.Report{Level: l})
		if !away.IsZero() {
			events = append(events, rollout.Seen{Host: name, Away: away})
		}
	} else if away.IsZero() != known.Away.IsZero() {
		events = append(events, rollout.Seen{Host: name, Away: away})
	}
	return events
}

// seen are hosts that came or went, by who was heard of.
func (d *Driver) seen(now time.Time) (events []rollout.Event) {
	for name, h := range d.e.Hosts {
		if online := d.online(name, now); online != h.Away.IsZero() {
			away := time.Time{}
			if !online {
				away = d.away(name, d.o.Hosts.Record(name), now)
			}
			events = append(events, rollout.Seen{Host: name, Away: away})
		}
	}
	return events
}
