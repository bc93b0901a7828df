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
	floor  int64 // of start IDs: the server knows of one right below it
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

// hand takes a report to deliver, in the place of the one before.
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
	for fails := 0; ; {
		var again <-chan time.Time // never, where nothing is left to deliver
		if fails > 0 {
			pause := min(time.Second<<min(fails-1, 5), 30*time.Second)
			again = time.After(pause + time.Duration(rand.Int64N(int64(pause))))
		}
		select {
		case <-again:
		case <-r.wake: // there is a newer one, and perhaps a network, too
		case <-ctx.Done():
			return
		}
		fails++
		if r.deliver(ctx) {
			fails = 0
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
		// The server has a newer report of this host: this one is of no use to it.
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

// send puts one report. A server that knows a higher start ID – the clock was set back, the
// journal is gone – is sent it again with a higher one still.
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

// numbered is a copy of a report whose start ID the server will believe.
func (r *reporter) numbered(s *api.Status) *api.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := *s
	n.StartID = max(n.StartID, r.floor)
	return &n
}

// close ends run, and tries once more to deliver what is left.
func (r *reporter) close(ctx context.Context) {
	r.stop()
	<-r.done
	r.deliver(ctx)
}
