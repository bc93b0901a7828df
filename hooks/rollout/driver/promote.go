package driver

import (
	"cmp"
	"context"
	"errors"
	"time"

	"narwharf/cache/state"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/channel"
	"narwharf/hooks/policy"
	"narwharf/hooks/rollout"
	"narwharf/hooks/rollout/release"
	"narwharf/hooks/rollout/rows"
)

// Promotion is a promote that goes through the driver; it implements channel.Rollouts.
type Promotion struct {
	Driver *Driver
	As     rollout.Promote // Now, Force and By
}

// Gate implements channel.Rollouts.
func (p Promotion) Gate(ctx context.Context, r *channel.Release) error {
	return p.Driver.Gate(ctx, p.of(r), release.Make(r.Release, r.Head, r.Entries))
}

// Promote implements channel.Rollouts.
func (p Promotion) Promote(ctx context.Context, r *channel.Release, commit func(locks []string, also func(tx *mirror.Tx)) error) error {
	return p.Driver.Promote(ctx, p.of(r), release.Make(r.Release, r.Head, r.Entries), commit)
}

func (p Promotion) of(r *channel.Release) rollout.Promote {
	ev := p.As
	ev.Channel, ev.Seq, ev.Rollback = r.Head.Channel, r.Head.Seq, r.Head.Rollback
	return ev
}

// Commit is the transaction of a promote: it calls also within it, under some more locks.
type Commit func(locks []string, also func(tx *mirror.Tx)) error

// errPolicy is that a channel's policy became another while something was decided by it.
var errPolicy = errors.New("the policy has changed meanwhile")

// Promote makes a release and its roll-out, in the one transaction that commit makes. An
// *api.Error says why it is not taken; then commit was not called.
func (d *Driver) Promote(ctx context.Context, ev rollout.Promote, r *release.Release, commit Commit) error {
	for {
		p := d.o.Policies.Of(ev.Channel)
		var err error
		if rulesOf(p) == nil {
			err = d.commit(ev.Channel, p, commit, nil)
		} else {
			err = d.promote(ctx, p, ev, r, commit)
		}
		if !errors.Is(err, errPolicy) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// commit commits a promote that was decided by a policy, if that is still the channel's.
func (d *Driver) commit(channel string, p *policy.Policy, commit Commit, write func(tx *mirror.Tx) error) error {
	return commit([]string{state.Shared(policy.Lock(channel))}, func(tx *mirror.Tx) {
		if rulesChanged(p, d.o.Policies.In(tx, channel)) {
			tx.Keep(errPolicy)
		} else if write != nil {
			tx.Keep(write(tx))
		}
	})
}

func (d *Driver) promote(ctx context.Context, p *policy.Policy, ev rollout.Promote, r *release.Release, commit Commit) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	defer d.kick()        // who is woken by it
	d.swept = time.Time{} // who is there is first in the first wave
	if err := d.ready(ctx, d.policySet(ev.Channel, p, ev.Seq)); err != nil {
		return err
	}
	d.pending = &pending{ev.Channel, r.Of}
	defer func() { d.pending = nil }()
	now := d.o.Clock()
	out, refused := d.e.Step(now, d.policySet(ev.Channel, p, ev.Seq), ev)
	if refused != nil || d.failed != nil {
		return cmp.Or(d.store(ctx, now, out, nil, nil), said(refused))
	}
	lock := func(locks []string, also func(tx *mirror.Tx)) error { return commit(append(locks, rows.Lock), also) }
	err := d.commit(ev.Channel, p, lock, func(tx *mirror.Tx) error { return d.write(tx, out) })
	if err == nil {
		d.releases.Add(ev.Channel, r)
	}
	return d.stored(now, out, err)
}

// pending is a release that is about to be promoted.
type pending struct {
	channel string
	*rollout.Release
}

// release finds one for the engine: nil if it is not there any more. Whether that is so is
// not known where its file cannot be read: then the step fails.
func (d *Driver) release(channel string, seq int64) *rollout.Release {
	if p := d.pending; p != nil && p.channel == channel && p.Seq == seq {
		return p.Release
	}
	if seq == 0 {
		return nil
	}
	r, err := d.releases.At(channel, seq)
	if err != nil {
		d.failed = err
	}
	if r == nil {
		return nil
	}
	return r.Of
}

// At is a release of a channel, nil if it is not there any more.
func (d *Driver) At(channel string, seq int64) (*release.Release, error) {
	return d.releases.At(channel, seq)
}

// Gate says whether a promote would be taken now, and changes nothing.
func (d *Driver) Gate(ctx context.Context, ev rollout.Promote, r *release.Release) error {
	p := d.o.Policies.Of(ev.Channel)
	if rulesOf(p) == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	defer d.kick()
	if err := d.ready(ctx, d.policySet(ev.Channel, p, ev.Seq)); err != nil {
		return err
	}
	d.pending = &pending{ev.Channel, r.Of}
	defer func() { d.pending = nil }()
	return said(d.e.Gate(d.o.Clock(), ev))
}

// ready makes this driver the one that acts, with an engine that knows all that is new. It
// is for mu's holder.
func (d *Driver) ready(ctx context.Context, more ...rollout.Event) error {
	taken, err := d.lease.Seize(ctx)
	if err := d.led(taken, err); err != nil {
		return err
	}
	if d.e == nil {
		if err := d.load(ctx, d.o.Clock()); err != nil {
			return err
		}
	}
	now := d.o.Clock()
	out, _ := d.e.Step(now, append(d.gather(now), more...)...)
	return d.store(ctx, now, out, nil, nil)
}
