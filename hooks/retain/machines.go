package retain

import (
	"context"
	"time"

	"narwharf/cache/state"
	"narwharf/cache/state/mirror"
)

// forgetEvery is how often it is looked which machines are gone.
const forgetEvery = 5 * time.Second

// TendHosts forgets hosts that have a time of their own for that (forget_after) and were not heard of for so
// long, until ctx ends: gone takes one away, if it was not heard of since at.
func (r *Retainer) TendHosts(ctx context.Context, gone func(ctx context.Context, name string, after time.Duration) error) {
	tick := time.NewTicker(forgetEvery)
	defer tick.Stop()
	for {
		if err := r.ForgetGone(ctx, gone); err != nil && ctx.Err() == nil {
			r.o.Log.Error("forget machines that are gone", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// ForgetGone forgets those that are gone now. What memory says of when a host was heard of is only
// believed if it was heard of; the rest is noted, so that a restart of the server keeps nobody for ever.
func (r *Retainer) ForgetGone(ctx context.Context, gone func(ctx context.Context, name string, after time.Duration) error) error {
	forgets := r.o.Hosts.Forgets()
	if len(forgets) == 0 {
		return nil
	}
	now, fresh := r.o.Clock(), make(map[string]uint64)
	for name, after := range forgets {
		if r.o.Hosts.Online(name, now) {
			fresh[name] = uint64(max(now.Unix(), 0))
			continue
		}
		at, err := r.heardOf(ctx, name)
		if err != nil {
			return err
		}
		if at.IsZero() { // nothing is noted: it counts from now on
			fresh[name] = uint64(max(now.Unix(), 0))
			continue
		}
		if now.Sub(at) >= after {
			if err := gone(ctx, name, after); err != nil {
				return err
			}
			if err := r.o.Set.Update(ctx, nil, func(tx *mirror.Tx) error { return tx.Delete(seenBucket, name) }); err != nil {
				return err
			}
		}
	}
	return r.o.State.Merge(ctx, seenBucket, fresh)
}

// heardOf is when a host was heard of last, by this server or another.
func (r *Retainer) heardOf(ctx context.Context, name string) (at time.Time, err error) {
	at = r.o.Hosts.Describe(name).LastSeen
	err = r.o.State.View(ctx, func(tx state.Reader) error {
		v, err := tx.Get(seenBucket, name)
		if noted := time.Unix(int64(state.Uint64(v)), 0); err == nil && v != nil && noted.After(at) { //nolint:gosec // a time of ours
			at = noted
		}
		return err
	})
	return at, err
}
