package driver

import (
	"sync"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/rollout"
)

// Answer is what a host is to be told. It is what was stored.
type Answer struct {
	rollout.Answer
	// Serial orders directives, see api.Directive.
	Serial int64

	channel string
	until   time.Time // of the grant; zero: it is as long as a lease is
	ends    bool      // the host has no use for it any more, and is told so when it asks after that
}

// at is the answer at a time.
func (a Answer) at(now time.Time) Answer {
	if a.ends && !now.Before(a.until) {
		a.Grant = ""
	}
	return a
}

// LeaseAt is for how long the grant is good: never longer than the engine waits for a
// host whose grant it has withdrawn.
func (a *Answer) LeaseAt(now time.Time) time.Duration {
	if a.until.IsZero() {
		return rollout.Lease
	}
	return max(min(a.until.Sub(now), rollout.Lease), time.Second)
}

// published is what is told while a step is under way: the outcome of those before.
type published struct {
	mu       sync.RWMutex
	ready    bool
	all      bool // the engine is another: publish everything
	answers  map[string]Answer
	channels map[string]told
	topics   []string // to wake
	news     map[string]bool
	shown    time.Time
}

// told is what is told of a governed channel.
type told struct {
	newest, well int64 // releases that completed
	first        int64 // that a host is shown of which nothing is known yet
}

func (p *published) init() {
	p.answers, p.channels, p.news = make(map[string]Answer), make(map[string]told), make(map[string]bool)
}

// any tells whether any channel is governed.
func (p *published) any() bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return len(p.channels) > 0
}

func (p *published) anew() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = true
}

// woken hands over the topics that are to be woken.
func (p *published) woken() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	topics := p.topics
	p.topics = nil
	return topics
}

// publish takes over what a step has changed. It is for d.mu's holder.
func (p *published) publish(d *Driver, now time.Time, out *rollout.Changes) {
	p.mu.Lock()
	defer p.mu.Unlock()
	hosts := out.Wake
	if p.all {
		hosts = p.replace(d)
	}
	for _, name := range hosts {
		a := d.answerOf(name, now)
		if was, ok := p.answers[name]; ok && was == a {
			continue
		}
		p.answers[name] = a
		p.topics = append(p.topics, audit.Host(name))
		p.news[a.channel] = true
	}
	for _, name := range out.Removed {
		delete(p.answers, name)
	}
	for _, h := range out.Hosts {
		p.news[h.Channel] = true
		if was, ok := p.answers[h.Name]; ok && h.Phase == rollout.Well && was.Grant != "" { // it is told the same, and not for ever
			p.answers[h.Name] = d.answerOf(h.Name, now)
		}
	}
	for _, r := range out.Rollouts {
		p.news[r.Channel] = true
	}
	p.govern(d)
	if len(p.news) > 0 {
		d.o.Timers.First(later(now, p.shown.Add(showEvery)), "rollouts/show", d.show)
	}
}

// showEvery is how often those who look at a roll-out are woken at most.
const showEvery = time.Second

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// show wakes who looks at roll-outs that are others now.
func (d *Driver) show() {
	var wake []string
	d.pub.mu.Lock()
	for name := range d.pub.news {
		wake = append(wake, topics(name)...)
	}
	clear(d.pub.news)
	d.pub.shown = d.o.Clock()
	d.pub.mu.Unlock()
	if len(wake) > 0 {
		d.o.Wake(wake...)
	}
}

// replace is for an engine that was loaded: all hosts may be told something else.
func (p *published) replace(d *Driver) (hosts []string) {
	p.all, p.ready = false, true
	for name := range p.answers {
		if d.e.Hosts[name] == nil {
			delete(p.answers, name)
		}
	}
	for name := range d.e.Hosts {
		hosts = append(hosts, name)
	}
	for name := range d.governed {
		p.news[name] = true
	}
	return hosts
}

func (p *published) govern(d *Driver) {
	channels := make(map[string]told, len(d.governed))
	for name := range d.governed {
		c := d.e.Channel(name)
		is := told{newest: c.Row.Newest(), well: c.Row.LastWell()}
		if is.first = is.newest; is.first == 0 && c.Run != nil && d.e.ShowsNew(c) {
			is.first = c.Row.Seq // the channel's first: nobody is granted it by that
		}
		channels[name] = is
		if _, known := p.channels[name]; !known { // who asked before waits
			p.topics = append(p.topics, audit.Channel(name))
		}
	}
	p.channels = channels
}

// answerOf is what a host is to be told by the engine as it is now.
func (d *Driver) answerOf(name string, now time.Time) Answer {
	h := d.e.Hosts[name]
	if h == nil {
		return Answer{}
	}
	a := Answer{Answer: d.e.Answer(name, now), channel: h.Row.Channel, Serial: h.Row.At.UnixMilli()}
	if a.Lease = 0; a.Grant != "" && (h.Row.Phase == rollout.Granted || h.Row.Phase == rollout.Well) {
		a.until, a.ends = h.Row.Until, h.Row.Phase == rollout.Well
	}
	return a
}

// Governs tells whether a channel has a rollout policy.
func (d *Driver) Governs(channel string) bool {
	d.pub.mu.RLock()
	defer d.pub.mu.RUnlock()
	_, ok := d.pub.channels[channel]
	return ok
}

// Answer is what a host of a governed channel is to be told. One of which nothing is known
// yet is shown the newest release that completed, or the first there is, and granted nothing
// before it has reported.
func (d *Driver) Answer(channel, host string) (Answer, error) {
	d.pub.mu.RLock()
	defer d.pub.mu.RUnlock()
	c, governed := d.pub.channels[channel]
	if !d.pub.ready || !governed {
		return Answer{}, api.Errorf(api.Unavailable, "the roll-outs of %s are being loaded: ask again", channel)
	}
	if a, ok := d.pub.answers[host]; ok && a.channel == channel {
		return a.at(d.o.Clock()), nil
	}
	return Answer{Answer: rollout.Answer{Seq: c.first, Wait: api.WaitWave}, channel: channel}, nil
}

// Newest is the newest release of a channel that has completed, 0 if none has.
func (d *Driver) Newest(channel string) int64 {
	d.pub.mu.RLock()
	defer d.pub.mu.RUnlock()
	return d.pub.channels[channel].newest
}

// LastWell is the last release of a channel that has completed well, 0 if none has.
func (d *Driver) LastWell(channel string) int64 {
	d.pub.mu.RLock()
	defer d.pub.mu.RUnlock()
	return d.pub.channels[channel].well
}

// Why is what a host waits for at this moment, "" for nothing, with numbers for people.
func (d *Driver) Why(host string) (kind api.WaitKind, detail string) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.e == nil {
		return "", ""
	}
	return d.e.Why(host)
}

// MayRetry tells whether a host has ended a channel's roll-out of a release without running
// it: the verb retry lets it try again.
func (d *Driver) MayRetry(channel, host string, seq int64) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.e == nil || d.e.Hosts[host] == nil || d.runSeq(channel) != seq {
		return false
	}
	r := &d.e.Hosts[host].Row
	return r.Channel == channel && r.Seq == seq && (r.Fault != "" || r.Phase == rollout.Back || r.Phase == rollout.Left)
}

// MayReboot says what keeps an armed host from being given a reboot slot, "" for nothing.
func (d *Driver) MayReboot(host string) (kind api.WaitKind, detail string) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.e == nil {
		return api.WaitWave, "the roll-outs are being loaded"
	}
	return d.e.MayReboot(host)
}
