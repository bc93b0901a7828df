package series

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"narwharf/cache/state"
)

// Table is the series of a group: all columns at the same times.
type Table struct {
	Step    time.Duration
	Begin   []time.Time // of each step, oldest first, without a gap
	Columns []Values
}

// Values are those of a column, one for each step; NaN is not known.
type Values struct {
	Column
	Values []float64
}

// Get is a column, of nothing but NaN where there is none of that name.
func (t *Table) Get(name string) Values {
	for _, c := range t.Columns {
		if c.Name == name {
			return c
		}
	}
	return Values{Column{Name: name}, unknowns(len(t.Begin))}
}

// Prefixed are the columns whose names begin with prefix, and are called by what follows it.
func (t *Table) Prefixed(prefix string) (list []Values) {
	for _, c := range t.Columns {
		if name, ok := strings.CutPrefix(c.Name, prefix); ok {
			list = append(list, Values{Column{name, c.Gauge}, c.Values})
		}
	}
	return list
}

func unknowns(n int) []float64 {
	list := make([]float64, n)
	for i := range list {
		list[i] = math.NaN()
	}
	return list
}

// Read reads the series of a group up to now. One of which nothing is known has no columns.
func Read(ctx context.Context, s state.Store, group string, res Resolution) (*Table, error) {
	var t *Table
	err := s.View(ctx, func(tx state.Reader) error {
		now, err := tx.Now()
		if err != nil {
			return err
		}
		columns, err := state.GetJSON[[]Column](tx, columnsBucket, group)
		if err != nil {
			return err
		}
		list, err := tx.List(res.bucket+group, state.Range{})
		if err != nil {
			return err
		}
		if columns == nil {
			columns = new([]Column)
		}
		t = table(res, now, *columns, list)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the series of %s: %w", group, err)
	}
	return t, nil
}

// table puts records in their places.
func table(res Resolution, now time.Time, columns []Column, list []state.Entry) *Table {
	last := res.slot(now)
	first := last - res.Slots + 1
	t := &Table{Step: res.Step}
	for slot := first; slot <= last; slot++ {
		t.Begin = append(t.Begin, res.begin(slot))
	}
	for _, c := range columns {
		t.Columns = append(t.Columns, Values{c, unknowns(len(t.Begin))})
	}
	for _, e := range list {
		r := decode(e.Value)
		if r.slot < first || r.slot > last {
			continue // of before, or of a clock that was ahead
		}
		for i := range columns {
			t.Columns[i].Values[r.slot-first] = r.at(i)
		}
	}
	return t
}
