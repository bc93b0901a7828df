package remote

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/nixos"
	"narwharf/nixos/effect"
	"narwharf/signing"
)

// Options say who speaks to which server.
type Options struct {
	Client                *api.Client
	Host, Channel, Target string
	Log                   *slog.Logger
	// Look is what people change on the host. A poll that is parked ends at once when
	// Look returns another text: the server should not go on believing what was. It is
	// nil where nobody changes anything.
	Look func() string
}

// A Server implements nixos.Server.
type Server struct {
	Options
	delivery
}

var _ nixos.Server = (*Server)(nil)

// lookEvery is how often the host is looked at while a poll is parked.
const lookEvery = 2 * time.Second

// Desired implements nixos.Server.
func (r *Server) Desired(ctx context.Context, etag string, have api.Have, wait time.Duration) (*api.Desired, string, error) {
	parked, end := context.WithCancel(ctx)
	defer end()
	var changed atomic.Bool
	var looking sync.WaitGroup
	if r.Look != nil && wait > lookEvery {
		before := r.Look()
		looking.Go(func() {
			tick := time.NewTicker(lookEvery)
			defer tick.Stop()
			for {
				select {
				case <-parked.Done():
					return
				case <-tick.C:
				}
				if r.Look() != before {
					changed.Store(true)
					end()
				}
			}
		})
	}
	d, tag, err := r.Client.Desired(parked, r.Host, r.Channel, r.Target, have, etag, wait)
	end()
	looking.Wait()
	if err != nil && changed.Load() && ctx.Err() == nil {
		return nil, "", api.ErrNotModified // nothing is known to be new of the server
	}
	return d, tag, err
}

// Confirm implements nixos.Server.
func (r *Server) Confirm(ctx context.Context, status *api.Status, probe func(context.Context, *api.Status) effect.Probed) effect.Probed {
	p := probe(ctx, r.numbered(status))
	if p.Outcome == effect.ProbeOK {
		r.took(status)
	}
	return p
}

// Manifest implements nixos.Server.
func (r *Server) Manifest(ctx context.Context, d signing.Digest) ([]byte, error) {
	return r.Client.Closure(ctx, d)
}

// PostLog implements nixos.Server.
func (r *Server) PostLog(ctx context.Context, attempt string, text []byte) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return r.Client.PostLog(ctx, r.Host, attempt, r.Channel, text)
}

// narinfosAtOnce is how many requests run side by side.
const narinfosAtOnce = 8

// Narinfos implements nixos.Server.
func (r *Server) Narinfos(ctx context.Context, paths []narinfo.Path) ([]*narinfo.Info, error) {
	infos := make([]*narinfo.Info, len(paths))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(narinfosAtOnce)
	for i, p := range paths {
		group.Go(func() error {
			info, err := r.Client.Narinfo(ctx, p)
			if err != nil {
				return fmt.Errorf("narinfo of %s: %w", p, err)
			}
			infos[i] = info
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return infos, nil
}

// ErrNotJoined is that a host tried to join until its time was over.
var ErrNotJoined = errors.New("the time is over and no server has answered")

// Await tries until a host has joined by its identity: the network of a first boot may take its
// time, and so may the person who says whose key it is.
func Await(ctx context.Context, host string, log *slog.Logger, try func() error) error {
	var said string
	for n := 1; ; n++ {
		err := try()
		if err == nil {
			return nil
		}
		if text := err.Error(); text != said || n%20 == 0 {
			log.Warn("cannot join yet", "host", host, "tries", n, "error", err)
			said = text
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrNotJoined, err)
		case <-time.After(min(time.Second<<min(n-1, 4), 15*time.Second)):
		}
	}
}

// Join exchanges the join token that the client has for the host's own. It asks until
// there is an answer: the network of a first boot may take its time, and what was asked
// twice is answered as if it had been once. A server that refuses has answered.
func Join(ctx context.Context, client *api.Client, host, channel string, log *slog.Logger) (*api.Joined, error) {
	for try := 1; ; try++ {
		joined, err := client.Join(ctx, host, channel)
		var refused *api.Error
		if err == nil || errors.As(err, &refused) && refused.Status < 500 {
			return joined, err
		}
		if try == 1 || try%20 == 0 {
			log.Warn("cannot join yet", "tries", try, "error", err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ErrNotJoined, err)
		case <-time.After(min(time.Second<<min(try-1, 4), 15*time.Second)):
		}
	}
}
