package hooks

import (
	"context"
	"errors"
	"slices"
	"time"

	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/signing"
)

// adopt makes the cache keep all paths of closures, some of which it may only
// pass on from the store of its machine: there a garbage collection would take
// them from under the channel. It can take minutes, and goes on when the promoter
// is gone, since the next promote then finds it done; it ends with the server.
// adopted is how many were.
func (s *Server) adopt(c *call, channel string, closures map[signing.Digest]*closure) (adopted int, err error) {
	paths := make(map[narinfo.Path]bool)
	for _, cl := range closures {
		for _, l := range cl.manifest.Lines {
			paths[l.Path] = true
		}
	}
	list := make([]narinfo.Path, 0, len(paths))
	for p := range paths {
		list = append(list, p)
	}
	slices.Sort(list)

	ctx, cancel := context.WithCancel(context.WithoutCancel(c.req.Context()))
	defer cancel()
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-s.polls.Stopping():
			cancel()
		case <-ended:
		}
	}()
	n, err := s.cache.Adopt(ctx, list, "adopted for channel "+channel)
	if err == nil {
		if n > 0 {
			s.log.Info("adopted paths of the local store", "channel", channel, "paths", n, "by", c.who.Name)
		}
		return n, nil
	}
	var refused CacheRefusal
	switch {
	case ctx.Err() != nil:
		e := api.Errorf(api.Unavailable, "the server stops; promote again, it goes on from where it was")
		e.RetryAfter = 5 * time.Second
		return 0, e
	case !errors.As(err, &refused):
		return 0, err
	case refused.Conflict():
		return 0, api.Errorf(api.ClosureDiffers, "%v", err)
	case refused.Unavailable():
		return 0, api.Errorf(api.Unavailable, "%v", err)
	}
	return 0, api.Errorf(api.ClosureIncomplete, "%v", err)
}
