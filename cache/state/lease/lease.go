// Package lease is work that one of several servers does at a time: collecting, scrubbing,
// telling others what happens.
//
// # Format
//
// In the state, as JSON: bucket "leases", a key for each kind of work, a Row.
//
// # What it promises
//
//   - Each taking has a number of its own, higher than those before. Whoever writes what only
//     the holder may reads in its transaction that the number is still its own (Fence). So what
//     a holder does that was stopped and wakes up fails.
//   - A holder that is silent for Silent, by the clock of who watches it, loses the lease. Clocks
//     of day are not compared: one that is wrong changes nothing.
//   - Who is done gives it back, and another has it at its next look.
package lease

import (
	"context"
	"errors"
	"fmt"
	"time"

	"narwharf/cache/state"
)

// Row is a lease as it is stored.
type Row struct {
	Epoch int64  `json:"epoch"`         // grows with every taking
	Beat  int64  `json:"beat"`          // grows while its holder is at work
	By    string `json:"by"`            // for people
	Free  bool   `json:"free,omitzero"` // it was given back
}

const bucket = "leases"

// How often a holder is heard of, and after how long of silence it is none any more.
const (
	Beat   = 2 * time.Second
	Silent = 7 * time.Second
)

// ErrFenced is that another server has the lease now.
var ErrFenced = errors.New("another server does this now")

// Lease is what one server knows of one kind of work. A nil Lease is held always: nobody else
// has the state. Its methods but Fence are for one goroutine at a time.
type Lease struct {
	state    state.Store
	name, by string

	epoch int64     // of this server; 0: it has it not
	seen  Row       // of whoever has it
	since time.Time // when seen became what it is
}

// New is the lease of a kind of work, for a server that people call by.
func New(s state.Store, name, by string) *Lease { return &Lease{state: s, name: name, by: by} }

// Try keeps the lease, or takes it where its holder is silent or gave it back. It is called every Beat.
func (l *Lease) Try(ctx context.Context) (held bool, err error) {
	if l == nil {
		return true, nil
	}
	if l.epoch > 0 {
		next := l.seen
		next.Beat++
		err := l.put(ctx, l.epoch, next)
		if errors.Is(err, ErrFenced) {
			l.epoch, l.since = 0, time.Time{}
			return false, nil
		}
		return err == nil, err
	}
	var is Row
	err = l.state.View(ctx, func(tx state.Reader) (err error) { is, err = l.in(tx); return err })
	if err != nil {
		return false, err
	}
	if is.Epoch > 0 && !is.Free {
		if l.since.IsZero() || is != l.seen {
			l.seen, l.since = is, time.Now()
		}
		if time.Since(l.since) < Silent {
			return false, nil
		}
	}
	next := Row{Epoch: is.Epoch + 1, By: l.by}
	switch err := l.put(ctx, is.Epoch, next); {
	case errors.Is(err, ErrFenced):
		return false, nil
	case err != nil:
		return false, err
	}
	l.epoch = next.Epoch
	return true, nil
}

// Release gives the lease back.
func (l *Lease) Release(ctx context.Context) error {
	if l == nil || l.epoch == 0 {
		return nil
	}
	next := l.seen
	next.Free = true
	err := l.put(ctx, l.epoch, next)
	l.epoch, l.since = 0, time.Time{}
	if errors.Is(err, ErrFenced) {
		return nil
	}
	return err
}

func (l *Lease) in(tx state.Reader) (Row, error) {
	is, err := state.GetJSON[Row](tx, bucket, l.name)
	if is == nil {
		is = new(Row)
	}
	return *is, err
}

// put stores the lease, if it is still of an epoch.
func (l *Lease) put(ctx context.Context, epoch int64, next Row) error {
	err := l.state.Update(ctx, []string{l.lock()}, func(tx state.Tx) error {
		is, err := l.in(tx)
		switch {
		case err != nil:
			return err
		case is.Epoch != epoch:
			return fmt.Errorf("%w: %s", ErrFenced, is.By)
		}
		return state.PutJSON(tx, bucket, l.name, next)
	})
	if err == nil {
		l.seen, l.since = next, time.Now()
	}
	return err
}

func (l *Lease) lock() string { return "lease:" + l.name }

// Held is a lease that this server has had when its work began.
type Held struct {
	l     *Lease
	epoch int64
}

// Locks are what an Update takes which calls Fence.
func (h Held) Locks() []string {
	if h.l == nil {
		return nil
	}
	return []string{state.Shared(h.l.lock())}
}

// Fence is ErrFenced in a transaction, if the lease is not this server's any more.
func (h Held) Fence(tx state.Reader) error {
	if h.l == nil {
		return nil
	}
	is, err := h.l.in(tx)
	if err == nil && (is.Epoch != h.epoch || is.Free) {
		err = fmt.Errorf("%w: %s", ErrFenced, is.By)
	}
	return err
}

// Once tries to have the lease, and if it can, runs work and gives the lease back. ran is false if another
// server has it.
func (l *Lease) Once(ctx context.Context, work func(ctx context.Context, h Held) error) (ran bool, err error) {
	if l == nil {
		return true, work(ctx, Held{})
	}
	held, err := l.Try(ctx)
	if !held || err != nil {
		return false, err
	}
	return true, l.while(ctx, work)
}

// Run runs work whenever this server has the lease, until ctx ends. The context of work ends when the
// lease is lost; work that returns before is begun again.
func (l *Lease) Run(ctx context.Context, work func(ctx context.Context, h Held)) {
	if l == nil {
		work(ctx, Held{})
		return
	}
	for ctx.Err() == nil {
		if held, err := l.Try(ctx); held && err == nil {
			_ = l.while(ctx, func(ctx context.Context, h Held) error { work(ctx, h); return nil }) // an error is of giving back
		}
		select {
		case <-ctx.Done():
		case <-time.After(Beat):
		}
	}
}

// while runs work and keeps the lease.
func (l *Lease) while(ctx context.Context, work func(ctx context.Context, h Held) error) error {
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- work(within, Held{l, l.epoch}) }()
	beat := time.NewTicker(Beat)
	defer beat.Stop()
	for {
		select {
		case err := <-done:
			return errors.Join(err, l.Release(context.WithoutCancel(ctx)))
		case <-beat.C:
			// While the state is away the work goes on: its writes fail by themselves.
			if held, err := l.Try(ctx); !held && err == nil {
				cancel()
				return errors.Join(ErrFenced, <-done)
			}
		}
	}
}

// Holders are who has leases, by the name that people call him: the kinds of work, sorted.
func Holders(tx state.Reader) (map[string][]string, error) {
	all := make(map[string][]string)
	return all, state.EachJSON(tx, bucket, func(work string, r *Row) error {
		if !r.Free {
			all[r.By] = append(all[r.By], work)
		}
		return nil
	})
}
