package retention

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"narwharf/cache/index"
)

const (
	// roomPatience is how long an upload waits for room at most: its client waits
	// for an answer and may have begun to send.
	roomPatience = 20 * time.Second
	// barrenPause is how long nothing is tried for an upload after there was not enough
	// that may go for one as large.
	barrenPause = time.Minute
)

// Room makes room for an upload of size bytes and returns how many are free then. First
// packed copies make way, then what a collection may delete, grace yielding down to lease.
// Nothing of that goes if it would not be enough, or before the roots are settled. It
// frees some more than size, for those that come next, and takes no longer than twenty
// seconds. Who finds less than size refuses the upload.
func (c *Collector) Room(ctx context.Context, size int64) (free int64) {
	lacks := func() int64 {
		if c.Free == nil {
			return 0
		}
		var err error
		if free, err = c.Free(); err != nil {
			return 0
		}
		return size - free
	}
	lack := lacks()
	if lack > 0 && c.Local != nil {
		c.Local.MakeRoom(lack)
		lack = lacks()
	}
	if lack <= 0 || c.isBarren(size) || !c.settled.Load() {
		return free
	}
	ctx, cancel := context.WithTimeout(ctx, roomPatience)
	defer cancel()
	done := c.takeOrRoom(ctx, func() bool { return lacks() <= 0 })
	if done == nil {
		return free
	}
	defer done()
	before := free
	res, err := c.collect(ctx, Request{need: size - free, more: c.Uploads.Counts().NarBytes / 100})
	if lacks() > 0 {
		var more noRoomError
		errors.As(err, &more)
		c.mu.Lock()
		c.barren, c.most = c.Now(), free+int64(more)
		c.mu.Unlock()
		c.Log.Error("the disk is full, and not enough may go for an upload", "size", size, "free", free, "error", err)
	} else {
		c.Log.Warn("the disk was full: made room for uploads", "bytes", free-before, "paths", res.Paths(), "grace_yielded", res.GraceYielded)
	}
	return free
}

func (c *Collector) isBarren(size int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	since := c.Now().Sub(c.barren)
	return since >= 0 && since < barrenPause && size > c.most
}

// takeOrRoom waits for the turn. done is nil if another collection has made enough room
// before, or ctx ends.
func (c *Collector) takeOrRoom(ctx context.Context, enough func() bool) (done func()) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case c.turn <- struct{}{}:
			done = func() { <-c.turn }
			if enough() {
				done()
				return nil
			}
			return done
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if enough() {
				return nil
			}
		}
	}
}

// thereIs tells an error from there being none.
func thereIs(found bool, err error) (bool, error) {
	if errors.Is(err, index.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return found && err == nil, err
}
