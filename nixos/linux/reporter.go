package linux

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/nixos"
	"narwharf/signing"
)

// A reporter delivers the newest status until the server has it.
type reporter struct {
	client *api.Client
	host   string
	log    *slog.Logger

	sending sync.Mutex // one report at a time, in order

	mu     sync.Mutex
	newest *api.Status
	floor  int64 // of start ids: the server has seen a higher one than ours
	taken  int64 // highest counter that the server took
	wake   chan struct{}
	stop   context.CancelFunc
	done   chan struct{}
}

func newReporter(c *api.Client, host string, log *slog.Logger) *reporter {
	ctx, stop := context.WithCancel(context.Background())
	r := &reporter{client: c, host: host, log: log, wake: make(chan struct{}, 1), stop: stop, done: make(chan struct{})}
	go r.run(ctx)
	return r
}

func (r *reporter) hand(s *api.Status) {
	r.mu.Lock()
	r.newest = s
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *reporter) run(ctx context.Context) {
	defer close(r.done)
	fails := 0
	for {
		pause := time.Duration(0)
		if fails > 0 {
			pause = min(time.Second<<min(fails-1, 5), 30*time.Second)
			pause += time.Duration(rand.Int64N(int64(pause)))
		}
		if fails == 0 {
			select {
			case <-r.wake:
			case <-ctx.Done():
				return
			}
		} else {
			select {
			case <-time.After(pause):
			case <-r.wake: // something new: perhaps the network, too
			case <-ctx.Done():
				return
			}
		}
		if r.deliver(ctx) {
			fails = 0
		} else {
			fails++
		}
	}
}

// deliver sends the newest report, and tells whether there is none left.
func (r *reporter) deliver(ctx context.Context) bool {
	r.mu.Lock()
	s := r.newest
	r.mu.Unlock()
	if s == nil {
		return true
	}
	err := r.send(ctx, s)
	var refused *api.Error
	switch {
	case err == nil:
	case errors.As(err, &refused) && refused.Kind == api.StaleStatus:
		// A newer report of this host is there, or now is: both are heard of.
	case errors.As(err, &refused) && refused.Status == 400:
		r.log.Error("the server does not understand the report", "error", err)
	default:
		r.log.Debug("report not delivered", "error", err)
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.newest == s {
		r.newest = nil
		return true
	}
	return false
}

// send puts one report. A server that knows a higher start id – the clock was
// set back, the journal is gone – is answered with a higher one still.
func (r *reporter) send(ctx context.Context, s *api.Status) error {
	r.sending.Lock()
	defer r.sending.Unlock()
	err := r.client.PutStatus(ctx, r.host, r.numbered(s), false)
	var refused *api.Error
	if errors.As(err, &refused) && refused.Kind == api.StaleStatus && refused.StartID > r.numbered(s).StartID {
		r.mu.Lock()
		r.floor = refused.StartID + 1
		r.mu.Unlock()
		err = r.client.PutStatus(ctx, r.host, r.numbered(s), false)
	}
	if err == nil {
		r.took(s)
	}
	return err
}

// took notes that the server has a report.
func (r *reporter) took(s *api.Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.taken = max(r.taken, s.Counter)
}

func (r *reporter) numbered(s *api.Status) *api.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := *s
	n.StartID = max(n.StartID, r.floor)
	return &n
}

func (r *reporter) close(ctx context.Context) {
	r.stop()
	<-r.done
	r.deliver(ctx)
}

// Report implements Server.
func (h *Host) Report(_ context.Context, s *api.Status) { h.reporter.hand(s) }

// Delivered implements Server.
func (h *Host) Delivered() int64 {
	h.reporter.mu.Lock()
	defer h.reporter.mu.Unlock()
	return h.reporter.taken
}

// ReportNow implements Server.
func (h *Host) ReportNow(ctx context.Context, s *api.Status) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return h.reporter.send(ctx, s)
}

// Manifest implements Server.
func (h *Host) Manifest(ctx context.Context, d signing.Digest) ([]byte, error) {
	return h.Client.Closure(ctx, d)
}

// narinfosAtOnce is how many requests run side by side.
const narinfosAtOnce = 8

// Narinfos implements Server.
func (h *Host) Narinfos(ctx context.Context, paths []narinfo.Path) ([]*narinfo.Info, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	infos := make([]*narinfo.Info, len(paths))
	next := make(chan int)
	var wait sync.WaitGroup
	for range min(narinfosAtOnce, len(paths)) {
		wait.Go(func() {
			for i := range next {
				info, err := h.Client.Narinfo(ctx, paths[i])
				if err != nil {
					cancel(fmt.Errorf("narinfo of %s: %w", paths[i], err))
					return
				}
				infos[i] = info
			}
		})
	}
feed:
	for i := range paths {
		select {
		case next <- i:
		case <-ctx.Done():
			break feed
		}
	}
	close(next)
	wait.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return infos, nil
}

// PostLog implements Server.
func (h *Host) PostLog(ctx context.Context, attempt string, runs []nixos.Run) error {
	var b strings.Builder
	for _, r := range runs {
		text, err := h.runLog(ctx, r, api.MaxLog/2)
		if err != nil {
			text = "the log cannot be read: " + err.Error()
		}
		fmt.Fprintf(&b, "--- %s/bin/switch-to-configuration %s\n%s\n", r.Path, r.Action, text)
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return h.Client.PostLog(ctx, h.Config.Host, attempt, h.Config.Channel, []byte(b.String()))
}
