package remote

import (
	"context"
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
	reports *reporter
}

var _ nixos.Server = (*Server)(nil)

// New begins to deliver reports, until Close.
func New(o Options) *Server {
	return &Server{o, newReporter(o.Client, o.Host, o.Log)}
}

// Close ends what runs in the background, after one more try to deliver the
// last report.
func (s *Server) Close(ctx context.Context) { s.reports.close(ctx) }

// lookEvery is how often the host is looked at while a poll is parked.
const lookEvery = 2 * time.Second

// Desired implements nixos.Server.
func (s *Server) Desired(ctx context.Context, etag string, wait time.Duration) (*api.Desired, string, error) {
	parked, end := context.WithCancel(ctx)
	defer end()
	var changed atomic.Bool
	var looking sync.WaitGroup
	if s.Look != nil && wait > lookEvery {
		before := s.Look()
		looking.Go(func() {
			tick := time.NewTicker(lookEvery)
			defer tick.Stop()
			for {
				select {
				case <-parked.Done():
					return
				case <-tick.C:
				}
				if s.Look() != before {
					changed.Store(true)
					end()
				}
			}
		})
	}
	d, tag, err := s.Client.Desired(parked, s.Host, s.Channel, s.Target, etag, wait)
	end()
	looking.Wait()
	if err != nil && changed.Load() && ctx.Err() == nil {
		return nil, "", api.ErrNotModified // nothing is known to be new of the server
	}
	return d, tag, err
}

// Report implements nixos.Server.
func (s *Server) Report(_ context.Context, status *api.Status) { s.reports.hand(status) }

// Delivered implements nixos.Server.
func (s *Server) Delivered() int64 { return s.reports.delivered() }

// ReportNow implements nixos.Server.
func (s *Server) ReportNow(ctx context.Context, status *api.Status) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return s.reports.send(ctx, status)
}

// Confirm implements nixos.Server.
func (s *Server) Confirm(ctx context.Context, status *api.Status, probe func(context.Context, *api.Status) effect.Probed) effect.Probed {
	p := probe(ctx, s.reports.numbered(status))
	if p.Outcome == effect.ProbeOK {
		s.reports.took(status)
	}
	return p
}

// Manifest implements nixos.Server.
func (s *Server) Manifest(ctx context.Context, d signing.Digest) ([]byte, error) {
	return s.Client.Closure(ctx, d)
}

// PostLog implements nixos.Server.
func (s *Server) PostLog(ctx context.Context, attempt string, text []byte) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return s.Client.PostLog(ctx, s.Host, attempt, s.Channel, text)
}

// narinfosAtOnce is how many requests run side by side.
const narinfosAtOnce = 8

// Narinfos implements nixos.Server.
func (s *Server) Narinfos(ctx context.Context, paths []narinfo.Path) ([]*narinfo.Info, error) {
	infos := make([]*narinfo.Info, len(paths))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(narinfosAtOnce)
	for i, p := range paths {
		group.Go(func() error {
			info, err := s.Client.Narinfo(ctx, p)
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
