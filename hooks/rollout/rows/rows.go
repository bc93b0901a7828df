// Package rows keeps what hooks/rollout/engine decides, and what people set for all
// roll-outs.
//
// # Format
//
// In the state, as JSON:
//
//	hooks/rollout/channel     <channel>                     rollout.Channel
//	hooks/rollout/run         <channel> NUL <seq, 8 bytes>  rollout.Rollout, at most Kept of a channel
//	hooks/rollout/host        <host>                        rollout.Host
//	hooks/rollout/quarantine  <store path> <closure>        rollout.Quarantine
//	hooks/rollout/budget      <name>                        rollout.Budget
//	hooks/rollout/hold        <name>                        rollout.Hold
//	hooks/rollout/freeze      all                           rollout.Hold
//
// Whoever writes any of them holds the lock "rollouts" of the state, and has read in
// the same transaction that the lease (hooks/rollout/lease) is its own.
package rows

import (
	"context"
	"fmt"
	"strings"

	"narwharf/cache/state"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/rollout"
)

// Lock is the lock of the state under which rows are written.
const Lock = "rollouts"

// Kept is how many roll-outs of a channel are kept, the newest.
const Kept = 20

const (
	channels    = "hooks/rollout/channel"
	runs        = "hooks/rollout/run"
	hosts       = "hooks/rollout/host"
	quarantines = "hooks/rollout/quarantine"
	freezeKey   = "all"
)

// Topic is what every change of a row notifies of.
const Topic = "hooks/rollout"

// Rows are those of a state.
type Rows struct {
	set     *mirror.Set
	Budgets *mirror.Table[rollout.Budget]
	Holds   *mirror.Table[rollout.Hold]
	freeze  *mirror.Table[rollout.Hold]
}

// Open opens them in the state of a set.
func Open(set *mirror.Set) (r *Rows, err error) {
	r = &Rows{set: set}
	if r.Budgets, err = mirror.Open[rollout.Budget](set, "hooks/rollout/budget", "budget", nil); err == nil {
		r.Holds, err = mirror.Open[rollout.Hold](set, "hooks/rollout/hold", "hold", nil)
	}
	if err == nil {
		r.freeze, err = mirror.Open[rollout.Hold](set, "hooks/rollout/freeze", "freeze", nil)
	}
	if err != nil {
		return nil, fmt.Errorf("open roll-outs: %w", err)
	}
	return r, nil
}

// Is tells whether a topic is of a row, or may be.
func Is(topic string) bool {
	return topic == state.All || topic == Topic || strings.HasPrefix(topic, Topic+"/")
}

// Limits are what people set, as memory has it.
func (r *Rows) Limits() rollout.Limits {
	l := rollout.Limits{Budgets: make(map[string]rollout.Budget), Holds: make(map[string]rollout.Hold), Freeze: r.freeze.Get(freezeKey)}
	for name, b := range r.Budgets.All() {
		l.Budgets[name] = *b
	}
	for name, h := range r.Holds.All() {
		l.Holds[name] = *h
	}
	return l
}

// Freeze is the freeze that was set, nil if there is none. Its end may be over.
func (r *Rows) Freeze() *rollout.Hold { return r.freeze.Get(freezeKey) }

// SetFreeze replaces it; nil takes it away.
func (r *Rows) SetFreeze(tx *mirror.Tx, h *rollout.Hold) { r.freeze.Put(tx, freezeKey, h) }

// Stored is all rows of an engine.
type Stored struct {
	Channels    []*rollout.Channel
	Rollouts    []*rollout.Rollout // the present one of each channel
	Hosts       []*rollout.Host
	Quarantines []*rollout.Quarantine
}

// Load reads them as they are at one moment.
func (r *Rows) Load(ctx context.Context) (s *Stored, err error) {
	err = r.set.View(func(tx state.Reader) (err error) {
		s = new(Stored)
		if s.Channels, err = all[rollout.Channel](tx, channels); err != nil {
			return err
		}
		for _, c := range s.Channels {
			if c.V > rollout.Version {
				return fmt.Errorf("the row of channel %s has version %d, of a newer narwharf", c.Name, c.V)
			}
			row, err := state.GetJSON[rollout.Rollout](tx, runs, runKey(c.Name, c.Seq))
			if err != nil {
				return err
			}
			if row != nil {
				s.Rollouts = append(s.Rollouts, row)
			}
		}
		if s.Hosts, err = all[rollout.Host](tx, hosts); err == nil {
			s.Quarantines, err = all[rollout.Quarantine](tx, quarantines)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read roll-outs: %w", err)
	}
	return s, ctx.Err()
}

func all[T any](tx state.Reader, bucket string) (list []*T, err error) {
	err = state.Each(tx, bucket, state.Range{}, func(e state.Entry) error {
		v := new(T)
		if err := decode(e.Value, v); err != nil {
			return fmt.Errorf("%s %q: %w", bucket, e.Key, err)
		}
		list = append(list, v)
		return nil
	})
	return list, err
}

// Rollout is one of a channel, nil if it is not kept.
func (r *Rows) Rollout(channel string, seq int64) (row *rollout.Rollout, err error) {
	err = r.set.View(func(tx state.Reader) (err error) {
		row, err = state.GetJSON[rollout.Rollout](tx, runs, runKey(channel, seq))
		return err
	})
	return row, err
}

// Rollouts are those of a channel that are kept, the newest first.
func (r *Rows) Rollouts(channel string) (list []*rollout.Rollout, err error) {
	of := state.Prefix(channel + "\x00")
	of.Reverse = true
	err = r.set.View(func(tx state.Reader) error {
		list = nil
		return state.Each(tx, runs, of, func(e state.Entry) error {
			row := new(rollout.Rollout)
			if err := decode(e.Value, row); err != nil {
				return fmt.Errorf("roll-out %q: %w", e.Key, err)
			}
			list = append(list, row)
			return nil
		})
	})
	return list, err
}

// Needed are the releases of a channel whose systems have to stay: the one that is rolled
// out, the one that is queued, the newest that completed, and the last that completed well.
func Needed(tx state.Reader, channel string) ([]int64, error) {
	c, err := state.GetJSON[rollout.Channel](tx, channels, channel)
	if c == nil || err != nil {
		return nil, err
	}
	seqs := []int64{c.Seq, c.Newest(), c.LastWell()}
	if c.Queued != nil {
		seqs = append(seqs, c.Queued.Seq)
	}
	return seqs, nil
}
