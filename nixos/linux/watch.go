package linux

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"narwharf/hooks/api"
)

// lookEvery is how often the host is looked at while a poll is parked.
const lookEvery = 2 * time.Second

// Desired implements Server. A parked poll ends at once when a person on the
// host switches or pauses it: the server should not go on believing what was.
func (h *Host) Desired(ctx context.Context, etag string, wait time.Duration) (*api.Desired, string, error) {
	ask := func(ctx context.Context) (*api.Desired, string, error) {
		return h.Client.Desired(ctx, h.Config.Host, h.Config.Channel, h.Config.Target, etag, wait)
	}
	if wait <= lookEvery {
		return ask(ctx)
	}
	parked, end := context.WithCancel(ctx)
	defer end()
	var changed atomic.Bool
	before := h.looks()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for h.Sleep(parked, lookEvery) == nil {
			if h.looks() != before {
				changed.Store(true)
				end()
			}
		}
	}()
	d, tag, err := ask(parked)
	end()
	<-done
	if err != nil && changed.Load() && ctx.Err() == nil {
		return nil, "", api.ErrNotModified // nothing is known to be new of the server
	}
	return d, tag, err
}

// looks is what people change on a host, cheaply.
func (h *Host) looks() string {
	c := h.Config
	text := ""
	for _, name := range []string{filepath.Join(c.RunDir, "current-system"), c.Profile} {
		to, err := os.Readlink(name)
		text += fmt.Sprintln(to, err)
	}
	if st, err := os.Stat(pauseFile(c.StateDir)); err == nil {
		text += fmt.Sprintln(st.Size(), st.ModTime().UnixNano())
	}
	return text
}
