package presence

import (
	"context"
	"log/slog"
	"time"

	"narwharf/cache/state"
)

// Servers that share a state tell each other whom they hear of, in the state: bucket
// hooks/rollout/heard, a host's name -> Unix seconds (state.Store.Merge), by the clock of the state.

const (
	heardBucket = "hooks/rollout/heard"
	shareEvery  = 20 * time.Second
	keepHeard   = 24 * time.Hour // a row of a host that nobody hears of
	dropAtOnce  = 1000           // rows
)

// Share is what one server tells and is told.
type Share struct {
	State state.Store
	Book  *Book
	Clock func() time.Time // that of State
	Log   *slog.Logger
}

// Run shares until ctx ends.
func (s *Share) Run(ctx context.Context) {
	tick := time.NewTicker(shareEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		if err := s.Once(ctx); err != nil && ctx.Err() == nil {
			s.Log.Warn("servers do not tell each other which hosts they hear of", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// Once tells the others whom this server hears of, and reads whom they do.
func (s *Share) Once(ctx context.Context) error {
	now := s.Clock()
	here := make(map[string]uint64)
	for _, name := range s.Book.here(now) {
		here[name] = uint64(now.Unix())
	}
	if err := s.State.Merge(ctx, heardBucket, here); err != nil {
		return err
	}
	var old []string
	err := s.State.Scan(ctx, heardBucket, state.Range{}, func(page []state.Entry) error {
		for _, e := range page {
			at := time.Unix(int64(state.Uint64(e.Value)), 0)
			switch since := now.Sub(at); {
			case since < OnlineFor && here[e.Key] == 0:
				s.Book.Of(e.Key).heardElsewhere(at)
			case since > keepHeard && len(old) < dropAtOnce:
				old = append(old, e.Key)
			}
		}
		return ctx.Err()
	})
	if err != nil || len(old) == 0 {
		return err
	}
	return s.State.Update(ctx, []string{heardBucket}, func(tx state.Tx) error {
		for _, name := range old {
			if err := tx.Delete(heardBucket, name); err != nil {
				return err
			}
		}
		return nil
	})
}

// here are the hosts that this server hears of.
func (b *Book) here(now time.Time) (names []string) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for name, p := range b.seen {
		p.mu.Lock()
		if p.onlineHere(now) {
			names = append(names, name)
		}
		p.mu.Unlock()
	}
	return names
}

// heardElsewhere notes that another server has heard of the host.
func (p *Presence) heardElsewhere(at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at.After(p.elsewhere) {
		p.elsewhere = at
	}
}
