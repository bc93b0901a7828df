package server

import (
	"context"
	"slices"

	"narwharf/cache/replica"
	"narwharf/cache/signed"
	"narwharf/cache/state/lease"
	"narwharf/cache/stored"
	"narwharf/cmd/narwharf/server/storage"
	own "narwharf/hooks/replica"
	"narwharf/signing"
)

// lease lets one of the servers that share the state do a kind of work; nil where there is one.
func (d *DataDir) lease(work string) *lease.Lease {
	if !d.Config.Storage.Shared() {
		return nil
	}
	return lease.New(d.State, work, d.Config.Name())
}

// alone is work that one of the servers does which share the state.
func (d *DataDir) alone(name string, work func(ctx context.Context)) func(ctx context.Context) {
	return func(ctx context.Context) {
		d.lease(name).Run(ctx, func(ctx context.Context, _ lease.Held) { work(ctx) })
	}
}

// share has a cache hear what other servers change, until the state is closed.
func (d *DataDir) share(c *stored.Cache, signer *signed.Signer) {
	d.shared = &replica.Cache{State: d.State, Index: c.Index(), Uploads: c.Uploads, Signer: signer, Log: d.log}
	d.shared.Watch()
	c.Collector.Recount, c.Collector.Now = d.shared.Recount, storage.Clock(d.State)
}

// check compares files and index, beside everything else.
func (d *DataDir) check(ctx context.Context) {
	if d.shared != nil {
		d.shared.Check(ctx)
		return
	}
	d.cache.Check(ctx)
}

// asReplica is what this server says of itself to the others; nothing where there is none.
func (d *DataDir) asReplica(keys func() []signing.PublicKey) (own.Options, error) {
	if !d.Config.Storage.Shared() {
		return own.Options{}, nil
	}
	id, err := storage.ID(d.Config)
	return own.Options{ID: id, Ahead: storage.Ahead(d.State), Away: storage.Away(d.State), Prints: func() map[string]string {
		prints := storage.Fingerprints(d.Config)
		if keys != nil { // a job serves nothing, and tells nobody of itself
			var all []string
			for _, k := range keys() {
				all = append(all, k.String())
			}
			slices.Sort(all)
			prints["keys"] = storage.Fingerprint(all)
		}
		return prints
	}}, err
}
