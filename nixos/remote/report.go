package remote

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"narwharf/hooks/api"
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

// delivered is the highest counter that the server took.
func (r *reporter) delivered() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.taken
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
