// Package replica is which servers share a state: each says every five seconds that it is there,
// since when, with which program, keys and configuration, and how late it hears of others.
//
// # Format
//
// In the state, as JSON: bucket "hooks/replica", the id of a server -> row. Who stops in order
// takes its row away.
//
// # What it promises
//
//   - Servers whose keys or configuration differ are an alarm in words, server.replicas, of the living
//     one whose id is the first. So is one that fell silent.
//   - Nothing rests on it: leases say who does what (cache/state/lease).
package replica

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"narwharf/cache/state"
	"narwharf/cache/state/lease"
	"narwharf/cache/state/mirror"
	wire "narwharf/hooks/api/replica"
	driver "narwharf/hooks/rollout/lease"
)

// Bucket is where the servers are.
const Bucket = "hooks/replica"

const (
	bucket = Bucket
	topic  = bucket + "/" // and an id

	beat   = 5 * time.Second
	silent = 20 * time.Second
	forget = 24 * time.Hour // after which a silent one is not listed

	// The clock of a machine may be this far from the database's before people are told.
	clockOff = 5 * time.Second
)

// row is what a server says of itself.
type row struct {
	Name    string            `json:"name"`
	Version string            `json:"version"`
	Since   time.Time         `json:"since"`
	At      time.Time         `json:"at"` // by the clock of the state
	LagMS   int64             `json:"lag_ms"`
	ClockMS int64             `json:"clock_ms"`
	Prints  map[string]string `json:"prints"`
}

// Options are what a server says of itself, and how.
type Options struct {
	Set     *mirror.Set
	ID      string
	Name    string
	Version string
	// Prints are fingerprints of what has to be the same everywhere, by what people call it.
	Prints func() map[string]string
	// Ahead is by how much the clock of the state is ahead of this machine's.
	Ahead func() time.Duration
	Clock func() time.Time // that of the state
	// Away is since when the state does not answer, the zero time if it does.
	Away func() time.Time
	// Alarm says what is wrong, "" where nothing is.
	Alarm func(ctx context.Context, text string) error
	Log   *slog.Logger
}

// Book is the servers that share a state.
type Book struct {
	Options
	since time.Time

	mu    sync.Mutex
	heard map[string]time.Time // when notices of others came
	lag   time.Duration
	told  *string // what was said last
	last  read    // for metrics
}

// New makes a Book. It says nothing before Tend.
func New(o Options) *Book {
	return &Book{Options: o, since: o.Clock(), heard: make(map[string]time.Time)}
}

// Noticed passes on which topics the state notified of.
func (b *Book) Noticed(topics []string) {
	for _, t := range topics {
		if id, ok := strings.CutPrefix(t, topic); ok && id != b.ID {
			b.mu.Lock()
			b.heard[id] = b.Clock()
			b.mu.Unlock()
		}
	}
}

// Tend says that this server is there, until ctx ends.
func (b *Book) Tend(ctx context.Context) {
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for {
		if err := b.Once(ctx); err != nil && ctx.Err() == nil {
			b.Log.Warn("other servers do not hear of this one", "error", err)
		}
		select {
		case <-ctx.Done():
			b.leave()
			return
		case <-tick.C:
		}
	}
}

// leave takes the row away, if the state is there.
func (b *Book) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	err := b.Set.Update(ctx, []string{topic + b.ID}, func(tx *mirror.Tx) error { return tx.Delete(bucket, b.ID) })
	if err != nil {
		b.Log.Warn("other servers take it that this one fell silent", "error", err)
	}
}

// Once says that this server is there, looks at the others, and tells people what is wrong.
func (b *Book) Once(ctx context.Context) error {
	b.mu.Lock()
	is := row{Name: b.Name, Version: b.Version, Since: b.since, LagMS: b.lag.Milliseconds(), ClockMS: b.Ahead().Milliseconds(), Prints: b.Prints()}
	b.mu.Unlock()
	err := b.Set.Update(ctx, []string{topic + b.ID}, func(tx *mirror.Tx) error {
		is.At = tx.Time
		tx.Notify(topic + b.ID)
		return state.PutJSON(tx, bucket, b.ID, is)
	})
	if err != nil {
		return err
	}
	all, does, err := b.rows()
	if err != nil {
		return err
	}
	now := b.Clock()
	b.measure(all)
	b.note(all, does, now)
	for id, r := range all {
		if now.Sub(r.At) > forget {
			delete(all, id)
			if err := b.Set.Update(ctx, []string{topic + id}, func(tx *mirror.Tx) error { return tx.Delete(bucket, id) }); err != nil {
				return err
			}
		}
	}
	return b.tell(ctx, all, now)
}

// measure finds out how late notices come: the row has when it was written.
func (b *Book) measure(all map[string]*row) {
	b.mu.Lock()
	defer b.mu.Unlock()
	lag := time.Duration(0)
	for id, at := range b.heard {
		if r := all[id]; r == nil {
			delete(b.heard, id)
		} else if late := at.Sub(r.At); late > lag && late < beat { // else it is of another row
			lag = late
		}
	}
	b.lag = lag
}

// Alone refuses work that is not to be done beside other servers. id is that of who does it.
func Alone(ctx context.Context, st state.Store, id, what string) error {
	var others []string
	err := st.View(ctx, func(tx state.Reader) error {
		others = nil
		now, err := tx.Now()
		if err != nil {
			return err
		}
		return state.EachJSON(tx, bucket, func(other string, r *row) error {
			if other != id && now.Sub(r.At) < silent {
				others = append(others, r.Name)
			}
			return nil
		})
	})
	if err == nil && len(others) > 0 {
		slices.Sort(others)
		err = fmt.Errorf("%s: servers that have the same database run: %s. Stop them first (one that was killed counts for %s)", what, strings.Join(others, ", "), silent)
	}
	return err
}

func (b *Book) rows() (all map[string]*row, does map[string][]string, err error) {
	err = b.Set.View(func(tx state.Reader) error {
		all = make(map[string]*row)
		err := state.EachJSON(tx, bucket, func(id string, r *row) error { all[id] = r; return nil })
		if err != nil {
			return err
		}
		if does, err = lease.Holders(tx); err != nil {
			return err
		}
		driver, err := driver.Holder(tx)
		does[driver] = append(does[driver], "rollouts")
		return err
	})
	return all, does, err
}

// tell raises the alarm, or ends it, if this server is the one that does.
func (b *Book) tell(ctx context.Context, all map[string]*row, now time.Time) error {
	var wrong []string
	for _, id := range slices.Sorted(maps.Keys(all)) {
		r := all[id]
		away := now.Sub(r.At) > silent
		switch {
		case !away && id < b.ID:
			return nil // it tells
		case away:
			wrong = append(wrong, fmt.Sprintf("%s is silent since %s", r.Name, r.At.UTC().Format(time.DateTime)))
			continue
		}
		if off := time.Duration(r.ClockMS) * time.Millisecond; off.Abs() > clockOff {
			wrong = append(wrong, fmt.Sprintf("the clock of %s is off by %s from that of the database", r.Name, off.Abs().Round(time.Second)))
		}
		if what := differ(all[b.ID], r); len(what) > 0 {
			wrong = append(wrong, fmt.Sprintf("%s and %s have not the same %s", all[b.ID].Name, r.Name, strings.Join(what, ", ")))
		}
	}
	text := strings.Join(wrong, "; ")
	b.mu.Lock()
	same := b.told != nil && *b.told == text
	b.mu.Unlock()
	if same {
		return nil
	}
	err := b.Alarm(ctx, text)
	if err == nil {
		b.mu.Lock()
		b.told = &text
		b.mu.Unlock()
	}
	return err
}

// differ is what has different fingerprints. What only one of two versions knows differs not.
func differ(a, b *row) (what []string) {
	if a == nil || b == nil {
		return nil
	}
	for name, print := range a.Prints {
		if other, has := b.Prints[name]; has && other != print {
			what = append(what, name)
		}
	}
	slices.Sort(what)
	return what
}

// List is all servers, by name.
func (b *Book) List() ([]wire.Replica, error) {
	all, does, err := b.rows()
	if err != nil {
		return nil, err
	}
	now := b.Clock()
	list := make([]wire.Replica, 0, len(all))
	for id, r := range all {
		list = append(list, wire.Replica{
			ID: id, Name: r.Name, Version: r.Version, Since: r.Since.UTC(), Heard: r.At.UTC(), Silent: now.Sub(r.At) > silent, LagMS: r.LagMS, ClockMS: r.ClockMS,
			Does: append([]string{}, does[r.Name]...), Differs: append([]string{}, differ(all[b.ID], r)...), Self: id == b.ID,
		})
	}
	slices.SortFunc(list, func(a, b wire.Replica) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return list, nil
}
