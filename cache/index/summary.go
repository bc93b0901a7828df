package index

import (
	"bytes"
	"context"
	"encoding/json"
	"strconv"
	"time"

	"narwharf/cache/state"
)

// summaryPage is how many records one transaction reads for Summaries: a long one
// keeps others from growing the file.
const summaryPage = 4000

// Summary is what a walk over all records needs of each: the rest is not parsed.
type Summary struct {
	Hash string // the hash part
	// FileSize is of the file that Info.URL names, in bytes; alternates do not count.
	FileSize int64
	// Used is when the path was last of use: uploaded, or asked for by one who may
	// upload (Table.Use).
	Used time.Time
	// Deriver is the base name of its .drv, nil if that is not known.
	Deriver []byte
	// Damaged is set for a record that cannot be read; nothing else of it is known.
	Damaged bool
}

// Summaries calls fn with a summary of every record, in the order of hash parts, a
// page at a time. fn may call the index; the page is good until it returns. A record
// that comes or goes meanwhile may be seen or not.
func (t *Table) Summaries(ctx context.Context, fn func(page []Summary) error) error {
	var page []Summary
	for after := ""; ; {
		err := t.state.View(ctx, func(tx state.Reader) (err error) {
			page, err = t.summaries(tx, after, page[:0])
			return err
		})
		if err == nil && len(page) > 0 {
			err = fn(page)
		}
		if err != nil || len(page) < summaryPage {
			return err
		}
		after = page[len(page)-1].Hash
	}
}

func (t *Table) summaries(tx state.Reader, after string, page []Summary) ([]Summary, error) {
	r := state.Range{Limit: summaryPage}
	if after != "" {
		r = r.After(after)
	}
	records, err := tx.List(t.g.path(), r)
	if err != nil || len(records) == 0 {
		return nil, err
	}
	r.To, r.Limit = records[len(records)-1].Key+"\x00", 0
	uses := make(map[string]uint64)
	err = state.Each(tx, UseBucket, r, func(e state.Entry) error {
		uses[e.Key] = state.Uint64(e.Value)
		return nil
	})
	for _, e := range records {
		s := summarise(e)
		if used := time.Unix(int64(uses[e.Key]), 0); used.After(s.Used) {
			s.Used = used
		}
		page = append(page, s)
	}
	return page, err
}

// summarise reads a record without parsing the narinfo in it.
func summarise(e state.Entry) Summary {
	s := Summary{Hash: e.Key, Damaged: true}
	head, text, ok := bytes.Cut(e.Value, []byte("\n"))
	if !ok {
		return s
	}
	var err error
	if quoted, _, ok := bytes.Cut(bytes.TrimPrefix(head, []byte(`{"uploaded":"`)), []byte(`"`)); ok {
		s.Used, err = time.Parse(time.RFC3339Nano, string(quoted))
	}
	if s.Used.IsZero() || err != nil { // other fields first: no narwharf wrote it so, and any may
		var h recordHead
		if err = json.Unmarshal(head, &h); err != nil {
			return s
		}
		s.Used = h.Uploaded
	}
	if size := field(text, "FileSize"); size != nil {
		if s.FileSize, err = strconv.ParseInt(string(size), 10, 64); err != nil {
			return s
		}
	}
	s.Deriver = field(text, "Deriver")
	s.Damaged = field(text, "NarSize") == nil
	return s
}

// field returns the value of a line that is not the first, nil if there is none.
func field(text []byte, name string) []byte {
	_, rest, ok := bytes.Cut(text, []byte("\n"+name+": "))
	if !ok {
		return nil
	}
	value, _, _ := bytes.Cut(rest, []byte("\n"))
	return value
}

// Used is when a path that is here was last of use, as in Summary.
func (x *Tx) Used(hash string) (time.Time, error) {
	v, err := x.Get(x.g.path(), hash)
	if err != nil || v == nil {
		return time.Time{}, err
	}
	at, _, err := used(x, hash, v)
	return at, err
}

// EachReference calls fn with each pair of hash parts of which the second refers to
// the first, in order. Paths that refer to themselves are among them.
func (t *Table) EachReference(ctx context.Context, fn func(to, from string) error) error {
	return t.state.Scan(ctx, t.g.ref(), state.Range{}, func(page []state.Entry) error {
		for _, e := range page {
			if len(e.Key) != 64 {
				continue // fsck's
			}
			if err := fn(e.Key[:32], e.Key[32:]); err != nil {
				return err
			}
		}
		return nil
	})
}
