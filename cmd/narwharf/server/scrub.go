package server

import (
	"context"
	"log/slog"
	"time"

	"narwharf/cache/state"
	"narwharf/cache/stored"
	"narwharf/cache/upload/fsck"
	"narwharf/cache/upload/scrub"
	"narwharf/narinfo"
)

// newScrubber makes what reads all uploads once in an interval, fetches anew what a disk has
// spoilt, and tells alarm what it finds.
func newScrubber(c *stored.Cache, s state.Store, interval time.Duration, alarm func(ctx context.Context, f scrub.Finding) error, log *slog.Logger) *scrub.Scrubber {
	return scrub.New(scrub.Options{
		Uploads: c.Uploads, Next: c.After, State: s, Interval: interval, Alarm: alarm, Log: log,
		Mend: func(ctx context.Context, hash, name string) (bool, error) {
			return fsck.Mend(ctx, c.Uploads, elsewhere{c}, hash, name)
		},
	})
}

// elsewhere is the local store, and the upstreams.
type elsewhere struct{ *stored.Cache }

// Has implements fsck.Elsewhere. What cannot be asked now has nothing.
func (e elsewhere) Has(ctx context.Context, info *narinfo.Info) bool {
	if e.Local != nil {
		is, err := e.Local.Info(ctx, info.Path.Hash())
		if err == nil && is.Path == info.Path && is.NarHash == info.NarHash {
			return true
		}
	}
	if e.Upstreams == nil {
		return false
	}
	is, err := e.Upstreams.Find(ctx, info.Path.Hash())
	return err == nil && is.Info.Path == info.Path && is.Info.NarHash == info.NarHash
}
