package retain

import (
	"context"
	"maps"
	"slices"

	"narwharf/cache/root"
	"narwharf/cache/state"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/host"
	"narwharf/narinfo"
)

const seenBucket = "hooks/seen"

// settleHosts ends the roots of hosts that were not heard of for too long.
func (r *Retainer) settleHosts(ctx context.Context, owners map[string]bool) error {
	seen, err := r.noteSeen(ctx)
	if err != nil {
		return err
	}
	oldest := uint64(max(r.o.Clock().Add(-r.o.ForgetHosts).Unix(), 0))
	for name, at := range seen {
		if stay := at >= oldest; stay != owners[host.RootOwner(name)] {
			if err := r.settleHost(ctx, name, stay); err != nil {
				return err
			}
		}
	}
	for owner := range owners {
		name, ok := host.OfRoots(owner)
		if _, known := seen[name]; !ok || known {
			continue
		}
		if err := r.settleHost(ctx, name, false); err != nil {
			return err
		}
	}
	return nil
}

// settleHost makes or ends the roots of a host.
func (r *Retainer) settleHost(ctx context.Context, name string, stay bool) error {
	var paths []narinfo.Path
	if rec := r.o.Hosts.Record(name); stay && rec != nil {
		paths = host.Roots(rec.Status)
	}
	return r.o.Set.Update(ctx, append(root.Locks(paths), host.Lock(name)), func(tx *mirror.Tx) error {
		var is []narinfo.Path
		if rec := r.o.Hosts.In(tx, name); stay && rec != nil {
			is = host.Roots(rec.Status)
		}
		if !slices.Equal(is, paths) {
			return nil // it has just reported, and so has them
		}
		return root.Set(tx, host.RootOwner(name), paths)
	})
}

// noteSeen writes down when hosts were last heard of, which memory forgets with the server,
// and returns it for all. One of which nothing is noted yet counts from now on.
func (r *Retainer) noteSeen(ctx context.Context) (map[string]uint64, error) {
	noted := make(map[string]uint64)
	err := r.o.Set.Scan(seenBucket, state.Range{}, func(page []state.Entry) error {
		for _, e := range page {
			noted[e.Key] = state.Uint64(e.Value)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	now := r.o.Clock()
	all, fresh := make(map[string]uint64), make(map[string]uint64)
	for name := range r.o.Hosts.Names() {
		at := r.o.Hosts.Describe(name).LastSeen
		was, ok := noted[name]
		if !ok || r.o.Hosts.Online(name, now) {
			at = now
		}
		all[name] = max(was, uint64(max(at.Unix(), 0)))
		if all[name] > was {
			fresh[name] = all[name]
		}
	}
	if err := r.o.State.Merge(ctx, seenBucket, fresh); err != nil {
		return nil, err
	}
	gone := slices.DeleteFunc(slices.Collect(maps.Keys(noted)), func(name string) bool { _, known := all[name]; return known })
	if len(gone) == 0 {
		return all, nil
	}
	return all, r.o.Set.Update(ctx, nil, func(tx *mirror.Tx) error {
		for _, name := range gone {
			tx.Keep(tx.Delete(seenBucket, name))
		}
		return nil
	})
}
