package driver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/rollout"
	"narwharf/hooks/rollout/engine"
	"narwharf/hooks/rollout/lease"
	"narwharf/hooks/rollout/logbook"
	"narwharf/hooks/rollout/rows"
)

// retry is when a step that failed is taken again.
const retry = time.Second

// work takes what is new, and what time has changed.
func (d *Driver) work() {
	d.mu.Lock()
	err := d.turn(context.Background())
	d.mu.Unlock()
	if err != nil {
		if !errors.Is(err, lease.ErrFenced) {
			d.o.Log.Error("a step of the roll-outs failed; it is taken again", "error", err)
		}
		d.at(d.o.Clock().Add(retry))
	}
	d.o.Wake(d.pub.woken()...)
}

// turn is a step for what is new, if there is anything. It is for mu's holder.
func (d *Driver) turn(ctx context.Context) error {
	if !d.wanted() {
		return nil
	}
	now := d.o.Clock()
	leads, err := d.leads(ctx)
	if err == nil && !leads {
		err = d.follow(ctx, now)
	}
	if err != nil || !leads {
		return d.noted(err)
	}
	if d.e == nil {
		return d.noted(d.load(ctx, now))
	}
	events := d.gather(now)
	if len(events) == 0 && (d.due.IsZero() || now.Before(d.due)) {
		d.schedule(now)
		return nil
	}
	out, err := d.e.Step(now, events...)
	if err != nil { // of the server's own: what it says is not true any more
		d.o.Log.Info("the roll-outs did not take something", "why", err)
	}
	return d.noted(d.store(ctx, now, out, nil, nil))
}

// wanted tells whether there is anything to drive.
func (d *Driver) wanted() bool {
	if len(d.governed) > 0 {
		return true
	}
	d.govern(d.o.Clock())
	if d.e != nil && len(d.governed) == 0 {
		return true // its last channel is not governed any more
	}
	return len(d.governed) > 0
}

// noted keeps how it went, for people.
func (d *Driver) noted(err error) error {
	if d.stats.Err = ""; err != nil {
		d.stats.Err = err.Error()
	}
	return err
}

// within is what is changed in the transaction of a step by who caused it.
type within func(tx *mirror.Tx) error

// store makes a step true: its rows in one transaction, then what hosts are told.
func (d *Driver) store(ctx context.Context, now time.Time, out *rollout.Changes, locks []string, also within) error {
	if err := d.failed; err != nil {
		d.drop(err)
		return fmt.Errorf("read a release: %w", err)
	}
	if empty(out) && also == nil {
		d.publish(now, out)
		return nil
	}
	ctx = context.WithoutCancel(ctx) // who asked may go; what was decided stays
	err := d.o.Set.Update(ctx, append(locks, rows.Lock), func(tx *mirror.Tx) error {
		if also != nil {
			if err := also(tx); err != nil {
				return err
			}
		}
		return d.write(tx, out)
	})
	return d.stored(now, out, err)
}

// write is the part of a transaction that is a step's.
func (d *Driver) write(tx *mirror.Tx, out *rollout.Changes) error {
	if err := d.lease.Fence(tx); err != nil {
		return err
	}
	rows.Write(tx, out)
	logbook.Note(tx, out)
	return nil
}

// stored goes on after a step's transaction. The engine is ahead of the rows if that failed.
func (d *Driver) stored(now time.Time, out *rollout.Changes, err error) error {
	if err != nil {
		d.drop(err)
		return err
	}
	d.publish(now, out)
	return nil
}

func empty(out *rollout.Changes) bool {
	return len(out.Hosts)+len(out.Removed)+len(out.Rollouts)+len(out.Channels)+len(out.Quarantines)+len(out.Decisions) == 0
}

// drop forgets the engine, which is loaded anew with the next step.
func (d *Driver) drop(err error) {
	d.e, d.failed = nil, nil
	if errors.Is(err, lease.ErrFenced) {
		d.lease.Lost()
		d.stats.Leads = false
	}
	d.at(d.o.Clock().Add(retry))
}

// load makes an engine of the rows and of what is known of hosts now, and takes its first
// step. The driver leads.
func (d *Driver) load(ctx context.Context, now time.Time) error {
	orphans, err := d.read(ctx, now)
	if err != nil {
		d.e = nil
		return err
	}
	var events []rollout.Event
	for _, c := range d.e.Order {
		name := c.Row.Name
		p := d.o.Policies.Of(name)
		events = append(events, d.policySet(name, p, c.Row.Seq))
	}
	for name := range d.governed {
		events = append(events, d.unmade(name)...)
	}
	d.swept = now
	out, err := d.e.Step(now, events...)
	if err != nil {
		d.o.Log.Info("the roll-outs did not take something", "why", err)
	}
	out.Removed = append(out.Removed, orphans...)
	d.pub.anew()
	return d.store(ctx, now, out, nil, nil)
}

// read makes an engine of the rows. orphans are hosts with rows that have gone, or moved to
// a channel that is not governed.
func (d *Driver) read(ctx context.Context, now time.Time) (orphans []string, err error) {
	d.notices.take() // all is read now
	d.govern(now)
	stored, err := d.rows.Load(ctx)
	if err != nil {
		return nil, err
	}
	s := &engine.Snapshot{
		Now: now, Channels: stored.Channels, Rollouts: stored.Rollouts, Hosts: stored.Hosts, Quarantines: stored.Quarantines,
		Away: make(map[string]time.Time), Limits: d.rows.Limits(),
	}
	d.failed = nil
	for name, g := range d.governed {
		s.Policies = append(s.Policies, rollout.PolicySet{Channel: name, Policy: rulesOf(g.policy)})
		if !g.open {
			s.Closed = append(s.Closed, name)
		}
	}
	known := make(map[string]bool)
	for name, r := range d.o.Hosts.Records() {
		if l := d.level(name, r, now); l != nil && d.governed[l.Channel] != nil {
			s.Levels, known[name] = append(s.Levels, l), true
			if away := d.away(name, r, now); !away.IsZero() {
				s.Away[name] = away
			}
		}
	}
	for _, row := range stored.Hosts {
		if !known[row.Name] {
			orphans = append(orphans, row.Name)
		}
	}
	e := engine.New(engine.Options{Releases: d.release, Began: d.began})
	if err := e.Load(s); err != nil {
		return nil, fmt.Errorf("load the roll-outs: %w", err)
	}
	d.e, d.loaded = e, now
	return orphans, nil
}

// publish says what hosts are told from now on, and who is to be woken.
func (d *Driver) publish(now time.Time, out *rollout.Changes) {
	d.pub.publish(d, now, out)
	if !empty(out) {
		d.stats.Steps++
		d.stats.Last = now
	}
	d.due = out.Next
	d.schedule(now)
}

// schedule sets the time of the next step that nobody asks for.
func (d *Driver) schedule(now time.Time) {
	next := now.Add(sweep)
	sooner := func(at time.Time) {
		if !at.IsZero() && at.Before(next) {
			next = at
		}
	}
	sooner(d.due)
	for _, g := range d.governed {
		sooner(g.next)
	}
	if len(d.governed) > 0 {
		d.at(next)
	}
}

// said turns what the engine refuses into an answer for people.
func said(err error) error {
	var r *rollout.Refusal
	if !errors.As(err, &r) {
		return err
	}
	kind := map[string]api.Kind{"not_proven": api.NotProven, "quarantined": api.Quarantined, "in_progress": api.InProgress, "not_found": api.NotFound}[r.Kind]
	if kind == "" {
		kind = api.Conflict
	}
	return api.Errorf(kind, "%s", r.Text)
}

// topics of a roll-out are those of what is shown of it.
func topics(channel string) []string {
	return append(audit.Hosts(channel), Topic(channel), Topic(""))
}

// Topic is what polls of a channel's roll-outs wait for, of all for "". It is woken when
// they are others, at most once a second.
func Topic(channel string) string { return "rollout/" + channel }
