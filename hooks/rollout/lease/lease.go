// Package lease is who drives the roll-outs of a state: of several servers one at a time.
//
// # Format
//
// In the state, as JSON:
//
//	hooks/rollout/lease  driver  Row
//
// # What it promises
//
//   - Each taking of the lease has a number of its own, and a higher one than those before.
//     Whoever writes what only the holder may reads in its transaction that the number
//     is still its own (Fence). So what a holder does that was cut off fails.
//   - A holder that is silent for 7 seconds, by the clock of who watches it, loses the
//     lease. Clocks of day are not compared.
//   - Where no other server can have the state it is taken at once.
package lease

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"narwharf/cache/state"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/rollout/rows"
)

// Row is the lease as it is stored.
type Row struct {
	Epoch int64  `json:"epoch"` // grows with every taking
	Beat  int64  `json:"beat"`  // grows while its holder is at work
	By    string `json:"by"`    // for people
}

const (
	bucket = "hooks/rollout/lease"
	key    = "driver"
)

// How often a holder is heard of, and after how long of silence it is none any more. A
// watcher looks every Beat, so another acts within 10 s.
const (
	Beat   = 2 * time.Second
	silent = 7 * time.Second
)

// ErrFenced is that another server has taken the lease.
var ErrFenced = errors.New("another server drives the roll-outs now")

// Lease is what one server knows of it. Its methods but Held are called by one at a time.
type Lease struct {
	set    *mirror.Set
	name   string
	shared bool

	has   atomic.Bool
	epoch int64     // of this server
	seen  Row       // of whoever has it
	since time.Time // when seen became what it is
}

// New is the lease of a state for a server. shared is that others may have the state, too.
func New(set *mirror.Set, name string, shared bool) *Lease {
	return &Lease{set: set, name: name, shared: shared}
}

// Held tells whether this server has the lease, as far as it knows.
func (l *Lease) Held() bool { return l.has.Load() }

// Shared tells whether others may want it, so that Try is to be called every Beat.
func (l *Lease) Shared() bool { return l.shared }

// Shown is when this server has shown last that it has the lease.
func (l *Lease) Shown() time.Time { return l.since }

// Epoch is the number under which this server has the lease, or had it.
func (l *Lease) Epoch() int64 { return l.epoch }

// Lost is that a write was refused by Fence.
func (l *Lease) Lost() {
	l.has.Store(false)
	l.since = time.Time{}
}

// Try keeps the lease, or takes it where its holder is silent. taken is that it is this
// server's since now.
func (l *Lease) Try(ctx context.Context) (held, taken bool, err error) {
	if l.Held() {
		return true, false, l.beat(ctx)
	}
	is, err := l.read()
	if err != nil {
		return false, false, err
	}
	if l.shared && is.Epoch > 0 {
		if l.since.IsZero() || is != l.seen {
			l.seen, l.since = is, time.Now()
		}
		if time.Since(l.since) < silent {
			return false, false, nil
		}
	}
	err = l.take(ctx, is)
	return err == nil, err == nil, err
}

// Seize is Try that does not wait: somebody asks this server for what only the holder can
// do.
func (l *Lease) Seize(ctx context.Context) (taken bool, err error) {
	if l.Held() {
		return false, l.beat(ctx)
	}
	is, err := l.read()
	if err != nil {
		return false, err
	}
	err = l.take(ctx, is)
	return err == nil, err
}

func (l *Lease) read() (is Row, err error) {
	err = l.set.View(func(tx state.Reader) (err error) {
		is, err = in(tx)
		return err
	})
	return is, err
}

// Holder is who drives, as people call him; "" if nobody did yet.
func Holder(tx state.Reader) (string, error) {
	is, err := in(tx)
	return is.By, err
}

func in(tx state.Reader) (Row, error) {
	is, err := state.GetJSON[Row](tx, bucket, key)
	if is == nil {
		is = new(Row)
	}
	return *is, err
}

func (l *Lease) take(ctx context.Context, was Row) error {
	next := Row{Epoch: was.Epoch + 1, By: l.name}
	if err := l.put(ctx, was.Epoch, next); err != nil {
		return fmt.Errorf("take the lease of the roll-outs: %w", err)
	}
	l.epoch = next.Epoch
	l.has.Store(true)
	return nil
}

// beat shows others that the holder is there.
func (l *Lease) beat(ctx context.Context) error {
	if !l.shared || time.Since(l.since) < Beat {
		return nil
	}
	next := l.seen
	next.Beat++
	err := l.put(ctx, l.epoch, next)
	if errors.Is(err, ErrFenced) {
		l.Lost()
	}
	return err
}

// put stores the lease, if it is still of an epoch.
func (l *Lease) put(ctx context.Context, epoch int64, next Row) error {
	err := l.set.Update(ctx, []string{rows.Lock}, func(tx *mirror.Tx) error {
		if err := fence(tx, epoch); err != nil {
			return err
		}
		tx.Notify(rows.Topic)
		return state.PutJSON(tx, bucket, key, next)
	})
	if err == nil {
		l.seen, l.since = next, time.Now()
	}
	return err
}

// Fence is ErrFenced in a transaction, if the lease is not this server's any more.
func (l *Lease) Fence(tx *mirror.Tx) error { return fence(tx, l.epoch) }

func fence(tx *mirror.Tx, epoch int64) error {
	is, err := in(tx)
	if err == nil && is.Epoch != epoch {
		err = fmt.Errorf("%w: %s", ErrFenced, is.By)
	}
	return err
}
