package series

import (
	"encoding/binary"
	"math"
	"time"
)

// Bounds of what is kept.
const (
	MaxGroups  = 128 // the cache is one of them
	MaxColumns = 64  // of a group
)

// Resolution is how often a record is made, and for how long it is kept.
type Resolution struct {
	bucket string
	Step   time.Duration
	Slots  int64 // a record is overwritten after so many others
}

// The two that there are.
var (
	Fine   = Resolution{"series/5m/", 5 * time.Minute, 576} // two days
	Coarse = Resolution{"series/1h/", time.Hour, 2160}      // 90 days
)

// slot is the number of the steps since 1970 in which a time is.
func (r Resolution) slot(t time.Time) int64 { return t.Unix() / int64(r.Step/time.Second) }

// begin is when a slot begins.
func (r Resolution) begin(slot int64) time.Time {
	return time.Unix(slot*int64(r.Step/time.Second), 0).UTC()
}

// Column is a number of a group.
type Column struct {
	Name  string `json:"name"`
	Gauge bool   `json:"gauge,omitempty"` // else a counter
}

// A record is what the columns were within a slot; what is not known is NaN.
type record struct {
	slot   int64
	values []float64
}

const unknown = math.MaxUint64

func (r record) encode() []byte {
	b := make([]byte, 0, 8*(1+len(r.values)))
	b = binary.BigEndian.AppendUint64(b, uint64(r.slot))
	for _, v := range r.values {
		n := uint64(unknown)
		if v >= 0 && v < math.MaxInt64 {
			n = uint64(math.Round(v))
		}
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return b
}

// decode reads a record; one that cannot be is of slot -1.
func decode(b []byte) record {
	if len(b) < 8 || len(b)%8 != 0 {
		return record{slot: -1}
	}
	r := record{slot: int64(binary.BigEndian.Uint64(b))}
	for b = b[8:]; len(b) > 0; b = b[8:] {
		v := math.NaN()
		if n := binary.BigEndian.Uint64(b); n != unknown {
			v = float64(n)
		}
		r.values = append(r.values, v)
	}
	return r
}

// at is the value of a column, NaN where there is none.
func (r record) at(column int) float64 {
	if column >= len(r.values) {
		return math.NaN()
	}
	return r.values[column]
}

// with is the record of a slot after more was counted, and gauges were read. The record may be of
// another time, and counts for nothing then.
func (r record) with(slot int64, columns []Column, now map[string]float64) record {
	next := record{slot: slot, values: make([]float64, len(columns))}
	for i, c := range columns {
		v, known := now[c.Name]
		was := math.NaN()
		if r.slot == slot {
			was = r.at(i)
		}
		switch {
		case c.Gauge && !known:
			v = 0 // as no host is in a state
		case c.Gauge:
		case !known || math.IsNaN(v):
			v = was
		case !math.IsNaN(was):
			v += was
		}
		next.values[i] = v
	}
	return next
}

// Group is numbers that are looked at together.
type Group struct {
	Name   string // of bytes of the names of channels, and slashes
	Values []Value
}

// Value is a number as it is now. NaN is not known.
type Value struct {
	Column
	Now float64 // a counter's is what it counted since it began
}
