package stored

import (
	"context"
	"time"

	"narwharf/cache/state"
	"narwharf/cache/upload/fsck"
	"narwharf/cache/upload/scrub"
)

// Scrubber makes what reads all uploads once in an interval. What it finds is fetched
// anew where that can be, and told to alarm.
func (c *Cache) Scrubber(s state.Store, interval time.Duration, alarm func(ctx context.Context, f scrub.Finding) error) *scrub.Scrubber {
	return scrub.New(scrub.Options{
		Uploads: c.Uploads, Next: c.index.After, State: s, Interval: interval, Alarm: alarm, Log: c.log,
		Mend: func(ctx context.Context, hash, name string) (bool, error) {
			return fsck.Mend(ctx, c.Uploads, c.Fetch, hash, name)
		},
	})
}
