package series

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"slices"
	"time"

	"narwharf/cache/state"
)

const (
	lock          = "series"
	columnsBucket = "series/columns"
)

// Recorder writes the series of this server.
type Recorder struct {
	state  state.Store
	sample func() ([]Group, error)
	log    *slog.Logger

	last map[string]float64 // of counters by group, NUL, name: what was written of them
}

// New is a recorder of what sample finds.
func New(s state.Store, sample func() ([]Group, error), log *slog.Logger) *Recorder {
	return &Recorder{state: s, sample: sample, log: log, last: make(map[string]float64)}
}

// A record is written this long before its time is over, so that it is of that time. After a start it is
// written more often, soon for the first time: whoever tries a server wants to see something.
const (
	ahead = 10 * time.Second
	soon  = 15 * time.Second
)

// Run writes until ctx ends, and then what is left.
func (r *Recorder) Run(ctx context.Context) {
	for early := soon; ctx.Err() == nil; early = min(2*early, Fine.Step) {
		now, err := r.Write(ctx)
		wait := Fine.Step
		switch {
		case ctx.Err() != nil:
		case err != nil:
			r.log.Error("what the page shows of the past was not written", "error", err)
		default:
			wait = min(untilNext(now), early)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer stop()
	if _, err := r.Write(ctx); err != nil {
		r.log.Error("what the page shows of the last minutes was not written", "error", err)
	}
}

// untilNext is how long to wait for the end of the slot in which a time is, or of the next.
func untilNext(now time.Time) time.Duration {
	wait := Fine.begin(Fine.slot(now)+1).Sub(now) - ahead
	if wait <= 0 {
		wait += Fine.Step
	}
	return wait
}

// Write reads all numbers and writes their records of now, which it returns. After an error
// the next one writes what this one did not.
func (r *Recorder) Write(ctx context.Context) (now time.Time, err error) {
	groups, err := r.sample()
	if err != nil {
		return now, err
	}
	var written []Group
	err = r.state.Update(ctx, []string{lock}, func(tx state.Tx) error {
		written = nil
		var err error
		if now, err = tx.Now(); err != nil {
			return err
		}
		known, err := knownGroups(tx, groups)
		if err != nil {
			return err
		}
		for _, g := range groups {
			columns, is := known[g.Name]
			if !is && len(known) >= MaxGroups {
				continue
			}
			if known[g.Name], err = r.put(tx, now, g, columns); err != nil {
				return err
			}
			written = append(written, g)
		}
		return nil
	})
	if err == nil || errors.Is(err, state.ErrUncertain) { // better lost than counted twice
		r.wrote(written)
	}
	return now, err
}

// knownGroups are the columns of the groups that there are records of; those that are gone are deleted.
func knownGroups(tx state.Tx, groups []Group) (map[string][]Column, error) {
	known := make(map[string][]Column)
	list, err := tx.List(columnsBucket, state.Range{})
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		var columns []Column
		is := slices.ContainsFunc(groups, func(g Group) bool { return g.Name == e.Key })
		if !is || json.Unmarshal(e.Value, &columns) != nil {
			if err := forget(tx, e.Key); err != nil {
				return nil, err
			}
			continue
		}
		known[e.Key] = columns
	}
	return known, nil
}

func forget(tx state.Tx, group string) error {
	return errors.Join(tx.Delete(columnsBucket, group), tx.Clear(Fine.bucket+group), tx.Clear(Coarse.bucket+group))
}

// put writes the records of a group, and returns its columns.
func (r *Recorder) put(tx state.Tx, now time.Time, g Group, columns []Column) ([]Column, error) {
	before := len(columns)
	values := make(map[string]float64, len(g.Values))
	for _, v := range g.Values {
		if !slices.Contains(columns, v.Column) {
			if len(columns) >= MaxColumns {
				continue
			}
			columns = append(columns, v.Column)
		}
		values[v.Name] = r.since(g.Name, v)
	}
	if len(columns) > before {
		if err := state.PutJSON(tx, columnsBucket, g.Name, columns); err != nil {
			return nil, err
		}
	}
	for _, res := range []Resolution{Fine, Coarse} {
		slot := res.slot(now)
		bucket, key := res.bucket+g.Name, state.Uint64Key(uint64(slot%res.Slots))
		was, err := tx.Get(bucket, key)
		if err == nil {
			err = tx.Put(bucket, key, decode(was).with(slot, columns, values).encode())
		}
		if err != nil {
			return nil, err
		}
	}
	return columns, nil
}

// since is a gauge's value, or how far a counter has come since it was written.
func (r *Recorder) since(group string, v Value) float64 {
	last, known := r.last[group+"\x00"+v.Name]
	if v.Gauge || !known || v.Now < last {
		return v.Now
	}
	return v.Now - last
}

func (r *Recorder) wrote(groups []Group) {
	last := make(map[string]float64)
	for _, g := range groups {
		for _, v := range g.Values {
			if key := g.Name + "\x00" + v.Name; !v.Gauge && !math.IsNaN(v.Now) {
				last[key] = v.Now
			} else if was, ok := r.last[key]; ok {
				last[key] = was
			}
		}
	}
	r.last = last
}
