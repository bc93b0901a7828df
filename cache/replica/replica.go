// Package replica keeps what one server has in memory of a cache true while others change it:
// the texts of narinfos, and what was counted. See docs/design/068-replicas.md.
package replica

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"narwharf/cache/index"
	"narwharf/cache/signed"
	"narwharf/cache/state"
	"narwharf/cache/upload"
	"narwharf/cache/upload/recovery"
)

// Cache is what one server has of a cache that several share.
type Cache struct {
	State   state.Store
	Index   *index.Table
	Uploads *upload.Store
	Signer  *signed.Signer // nil where nothing is served
	Log     *slog.Logger
}

// Watch drops from memory what others change, until stop is called.
func (c *Cache) Watch() (stop func()) {
	return c.State.Watch(func(topics []string) {
		for _, topic := range topics {
			hash, record := strings.CutPrefix(topic, index.RecordTopic)
			switch {
			case topic == state.All:
				c.forget("")
				go c.recall() // whoever notifies waits for this to return
			case record:
				c.forget(hash)
			case topic == index.CountedTopic:
				go c.recall()
			}
		}
	})
}

func (c *Cache) forget(hash string) {
	if c.Signer != nil {
		c.Signer.Forget(hash)
	}
}

// recall takes over what another has counted.
func (c *Cache) recall() {
	if err := c.Index.Reload(); err != nil {
		c.Log.Warn("what was counted of the cache is not read", "error", err)
		return
	}
	if n := c.Index.Files(); n != nil {
		c.Uploads.NarFiles().Set(n.Count, n.Size)
	}
}

// Recount counts NAR files and records for all servers, before a collection.
func (c *Cache) Recount(ctx context.Context) error {
	if err := c.Uploads.NarFiles().Measure(c.Uploads.Files); err != nil {
		return err
	}
	files, size := c.Uploads.NarFiles().Get()
	return c.Index.Recount(ctx, index.Files{Count: files, Size: size})
}

// checkEvery is how often the files are compared with the index: a server that is killed between
// the two leaves a file without a record.
const checkEvery = 24 * time.Hour

// checkSlack is how far the clock of a disk may be from ours.
const checkSlack = time.Hour

// Check compares files that are new since the last time with the index, once a day, until ctx ends. It is for
// one server at a time.
func (c *Cache) Check(ctx context.Context) {
	for ctx.Err() == nil {
		at, err := c.Index.Checked(ctx)
		if pause := checkEvery - time.Since(at); err == nil && pause > 0 {
			sleep(ctx, pause)
			continue
		}
		began := time.Now()
		if err == nil {
			err = recovery.Check(ctx, c.Uploads, at.Add(-checkSlack))
		}
		if err == nil {
			err = c.Index.SetChecked(ctx, began)
		}
		if err != nil && ctx.Err() == nil {
			c.Log.Error("compare the index with the files", "error", err)
			sleep(ctx, time.Minute)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
