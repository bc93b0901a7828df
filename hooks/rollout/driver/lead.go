package driver

import (
	"context"
	"errors"
	"time"

	"narwharf/hooks/rollout/lease"
)

// leads tells whether this driver is the one that acts. It is for mu's holder.
func (d *Driver) leads(ctx context.Context) (bool, error) {
	if d.lease.Shared() {
		d.at(d.o.Clock().Add(lease.Beat))
	}
	before, now := d.lease.Shown(), d.o.Clock()
	held, taken, err := d.lease.Try(ctx)
	if held && !taken && err == nil && d.lease.Shown() != before {
		d.heard.Store(now.UnixNano())
	}
	return held, d.led(taken, err)
}

// Heard tells whether what this driver says was so at a time, or later: another may have driven until then.
// If that is not known it looks.
func (d *Driver) Heard(at time.Time) bool {
	if !d.lease.Shared() || d.heard.Load() >= at.UnixNano() {
		return true
	}
	d.notices.mu.Lock()
	d.notices.rows = true
	d.notices.mu.Unlock()
	d.kick()
	return false
}

// led is what follows from having the lease, or not.
func (d *Driver) led(taken bool, err error) error {
	if taken {
		d.e = nil
		d.stats.Since = d.o.Clock()
		if d.lease.Shared() {
			d.began = d.stats.Since // hosts were the other's, and may not be here yet
		}
	}
	if errors.Is(err, lease.ErrFenced) {
		d.drop(err)
	}
	d.stats.Leads, d.stats.Epoch = d.lease.Held(), d.lease.Epoch()
	return err
}

// follow is for a driver that does not lead: hosts that ask this server are told what the
// rows say.
func (d *Driver) follow(ctx context.Context, now time.Time) error {
	if d.e != nil && !d.notices.changed() {
		return nil
	}
	if wait := d.loaded.Add(time.Second).Sub(now); d.e != nil && wait > 0 {
		d.at(now.Add(wait))
		return nil
	}
	if _, err := d.read(ctx, now); err != nil {
		d.e = nil
		return err
	}
	defer d.heard.Store(now.UnixNano()) // it is published first
	d.pub.anew()
	out := d.e.Finish() // not stored: it is not this driver's to decide
	out.Next = time.Time{}
	d.publish(now, out)
	return nil
}
