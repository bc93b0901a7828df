package remote

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos/effect"
)

// A delivery is of the newest status, until the server has it.
type delivery struct {
	sending sync.Mutex // one report at a time, in order

	mu     sync.Mutex
	newest *api.Status
	floor  int64 // of start IDs: the server knows of one right below it
	taken  int64 // highest counter that the server took
	wake   chan struct{}
	stop   context.CancelFunc
	done   chan struct{}
}

// New begins to deliver reports, until Close.
func New(o Options) *Server {
	ctx, stop := context.WithCancel(context.Background())
	r := &Server{Options: o, delivery: delivery{wake: make(chan struct{}, 1), stop: stop, done: make(chan struct{})}}
	go r.run(ctx)
	return r
}

// Delivered implements nixos.Server.
func (r *Server) Delivered() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.taken
}

// Report implements nixos.Server: it takes the place of the one before.
func (r *Server) Report(_ context.Context, s *api.Status) {
	r.mu.Lock()
	r.newest = s
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// ReportNow implements nixos.Server.
func (r *Server) ReportNow(ctx context.Context, status *api.Status) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return r.send(ctx, status)
}

func (r *Server) run(ctx context.Context) {
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
func (r *Server) deliver(ctx context.Context) bool {
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
		r.Log.Error("the server does not understand the report", "error", err)
	default:
		r.Log.Debug("report not delivered", "error", err)
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
func (r *Server) send(ctx context.Context, s *api.Status) error {
	r.sending.Lock()
	defer r.sending.Unlock()
	err := r.Client.PutStatus(ctx, r.Host, r.numbered(s), false)
	var refused *api.Error
	if errors.As(err, &refused) && refused.Kind == api.StaleStatus && refused.StartID > r.numbered(s).StartID {
		r.mu.Lock()
		r.floor = refused.StartID + 1
		r.mu.Unlock()
		err = r.Client.PutStatus(ctx, r.Host, r.numbered(s), false)
	}
	if err == nil {
		r.took(s)
	}
	return err
}

// took notes that the server has a report.
func (r *Server) took(s *api.Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.taken = max(r.taken, s.Counter)
}

// numbered is a copy of a report whose start ID the server will believe.
func (r *Server) numbered(s *api.Status) *api.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := *s
	n.StartID = max(n.StartID, r.floor)
	return &n
}

// Close ends what runs in the background, after one more try to deliver the last report.
func (r *Server) Close(ctx context.Context) {
	r.stop()
	<-r.done
	r.deliver(ctx)
}

// Outcome is what a confirmation came to that ended with err. It is sent over a connection of
// its own, as the agent of the system on trial does.
func Outcome(err error) effect.ProbeOutcome {
	var refused *api.Error
	switch {
	case err == nil:
		return effect.ProbeOK
	case errors.As(err, &refused) && refused.Status < 500:
		return effect.ProbeRefused
	}
	return effect.ProbeUnreachable
}
