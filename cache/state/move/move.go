// Package move copies a state into another, row by row: that of a file into a database, and back.
//
// Sync makes the second what the first is, and writes what differs alone. So it goes on where one before was
// killed, a second run beside writers costs what they wrote, and a run over a frozen state that
// finds nothing to write has compared every row.
package move

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"narwharf/cache/state"
	"narwharf/cache/state/progress"
)

// Options of Sync.
type Options struct {
	// Logs are known to be logs: a file of an early version does not say so.
	Logs []string
	// Skip names keys that each of the two has for itself. nil: none.
	Skip func(bucket, key string) bool
	// Check writes nothing.
	Check bool
	// Step is what progress calls it.
	Step string
}

// Result is what a Sync did, or would do.
type Result struct {
	Rows    int64 `json:"rows"`    // of the first
	Bytes   int64 `json:"bytes"`   // of their keys and values
	Changed int64 `json:"changed"` // rows of the second that were written or removed
	// First is the first of those, for people.
	First string `json:"first,omitempty"`
}

// page is how many rows are compared, and written, at once.
const page = 1000

// Sync makes to what from is.
func Sync(ctx context.Context, from, to state.Movable, o Options) (Result, error) {
	s := &sync{Options: o, ctx: ctx, from: from, to: to}
	if o.Skip == nil {
		s.Skip = func(string, string) bool { return false }
	}
	buckets, logs, err := s.names()
	if err != nil {
		return Result{}, err
	}
	for _, name := range buckets {
		if err := s.bucket(name); err != nil {
			return s.Result, fmt.Errorf("bucket %s: %w", name, err)
		}
	}
	for _, name := range logs {
		if err := s.log(name); err != nil {
			return s.Result, fmt.Errorf("log %s: %w", name, err)
		}
	}
	return s.Result, nil
}

type sync struct {
	Options
	Result
	ctx      context.Context
	from, to state.Movable
}

// names are the buckets and logs of both.
func (s *sync) names() (buckets, logs []string, err error) {
	logs = slices.Clone(s.Logs)
	for _, st := range []state.Movable{s.from, s.to} {
		b, l, err := st.Names(s.ctx)
		if err != nil {
			return nil, nil, err
		}
		buckets, logs = append(buckets, b...), append(logs, l...)
	}
	slices.Sort(logs)
	logs = slices.Compact(logs)
	slices.Sort(buckets)
	buckets = slices.DeleteFunc(slices.Compact(buckets), func(name string) bool { return slices.Contains(logs, name) })
	return buckets, logs, nil
}

func (s *sync) count(key string, value []byte) {
	s.Rows++
	s.Bytes += int64(len(key) + len(value))
}

func (s *sync) differs(what string) {
	if s.Changed++; s.First == "" {
		s.First = what
	}
}

// bucket goes through a bucket, a page of the first at a time, with what the second has in that range.
func (s *sync) bucket(name string) error {
	for r, more := (state.Range{Limit: page}), true; more; {
		list, err := s.list(s.from, name, r)
		if err != nil {
			return err
		}
		whole := state.Range{From: r.From}
		if more = len(list) == page; more {
			r = r.After(list[page-1].Key)
			whole.To = r.From
		}
		have := make(map[string][]byte)
		for part, left := whole, true; left; {
			part.Limit = page
			entries, err := s.list(s.to, name, part)
			if err != nil {
				return err
			}
			for _, e := range entries {
				have[e.Key] = e.Value
			}
			if left = len(entries) == page; left {
				part = part.After(entries[page-1].Key)
			}
		}
		if err := s.put(name, list, have); err != nil {
			return err
		}
		progress.Report(s.ctx, s.Step, s.Rows, 0)
	}
	return nil
}

func (s *sync) list(st state.Store, bucket string, r state.Range) (list []state.Entry, err error) {
	err = st.View(s.ctx, func(tx state.Reader) error { list, err = tx.List(bucket, r); return err })
	return list, err
}

// put writes what differs between a page of the first and what the second has.
func (s *sync) put(bucket string, list []state.Entry, have map[string][]byte) error {
	var put []state.Entry
	for _, e := range list {
		is, there := have[e.Key]
		delete(have, e.Key)
		if s.Skip(bucket, e.Key) {
			continue
		}
		s.count(e.Key, e.Value)
		if !there || !bytes.Equal(is, e.Value) {
			s.differs(bucket + " " + e.Key)
			put = append(put, e)
		}
	}
	for key := range have {
		if s.Skip(bucket, key) {
			delete(have, key)
			continue
		}
		s.differs(bucket + " " + key)
	}
	if s.Check || len(put)+len(have) == 0 {
		return nil
	}
	return s.to.Update(s.ctx, nil, func(tx state.Tx) error {
		for _, e := range put {
			if err := tx.Put(bucket, e.Key, e.Value); err != nil {
				return err
			}
		}
		for key := range have {
			if err := tx.Delete(bucket, key); err != nil {
				return err
			}
		}
		return nil
	})
}

// log goes through a log, a page of the first at a time.
func (s *sync) log(name string) error {
	for at, more := uint64(0), true; more; {
		list, err := s.from.Records(s.ctx, name, at, page)
		if err != nil {
			return err
		}
		begin, end := at, uint64(0)
		if more = len(list) == page; more {
			at = list[page-1].Position + 1
			end = at
		}
		differs, err := s.compare(name, begin, end, list)
		if err != nil {
			return err
		}
		if differs && !s.Check {
			if err := s.to.Restore(s.ctx, name, begin, end, list); err != nil {
				return err
			}
		}
		progress.Report(s.ctx, s.Step, s.Rows, 0)
	}
	return nil
}

// compare tells whether the second has other records than list from begin on and below end.
func (s *sync) compare(name string, begin, end uint64, list []state.Record) (bool, error) {
	before := s.Changed
	have := make(map[uint64][]byte)
	for at, left := begin, true; left; {
		records, err := s.to.Records(s.ctx, name, at, page)
		if err != nil {
			return false, err
		}
		left = len(records) == page
		for _, r := range records {
			if end != 0 && r.Position >= end {
				left = false
				break
			}
			have[r.Position] = r.Value
			at = r.Position + 1
		}
	}
	for _, r := range list {
		s.count("position", r.Value)
		is, there := have[r.Position]
		delete(have, r.Position)
		if !there || !bytes.Equal(is, r.Value) {
			s.differs(fmt.Sprintf("%s %d", name, r.Position))
		}
	}
	for position := range have {
		s.differs(fmt.Sprintf("%s %d", name, position))
	}
	return s.Changed > before, nil
}
