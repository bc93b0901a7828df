package state

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
)

// Range is a part of a bucket: from From on and below To, where "" sets no
// bound. Limit is how many entries at most, 0 for MaxPage (in a Scan: for all).
type Range struct {
	From, To string
	Reverse  bool // the last first
	Limit    int
}

// Prefix is the range of the keys that begin with p.
func Prefix(p string) Range {
	return Range{From: p, To: after(p)}
}

// After is r without the keys up to and including key.
func (r Range) After(key string) Range {
	if r.Reverse {
		r.To = key
	} else {
		r.From = key + "\x00"
	}
	return r
}

// after is the first string behind all that begin with p, "" if there is none.
func after(p string) string {
	for i := len(p) - 1; i >= 0; i-- {
		if p[i] != 0xff {
			return p[:i] + string([]byte{p[i] + 1})
		}
	}
	return ""
}

// Each calls fn with the entries of a range, in order, within one transaction.
func Each(tx Reader, bucket string, r Range, fn func(e Entry) error) error {
	return r.pages(func(r Range) ([]Entry, error) { return tx.List(bucket, r) }, func(page []Entry) error {
		for _, e := range page {
			if err := fn(e); err != nil {
				return err
			}
		}
		return nil
	})
}

// pages calls fn with what list finds in a range, a page at a time.
func (r Range) pages(list func(r Range) ([]Entry, error), fn func(page []Entry) error) error {
	for left := r.Limit; ; {
		r.Limit = PageSize(left)
		page, err := list(r)
		if err == nil && len(page) > 0 {
			err = fn(page)
		}
		if left -= len(page); err != nil || len(page) < r.Limit || left == 0 {
			return err
		}
		r = r.After(page[len(page)-1].Key)
	}
}

// GetJSON reads a value that PutJSON wrote, nil where there is none.
func GetJSON[T any](tx Reader, bucket, key string) (*T, error) {
	value, err := tx.Get(bucket, key)
	if err != nil || value == nil {
		return nil, err
	}
	v := new(T)
	if err := json.Unmarshal(value, v); err != nil {
		return nil, fmt.Errorf("%s %q: %w", bucket, key, err)
	}
	return v, nil
}

// PutJSON writes a value as JSON.
func PutJSON(tx Tx, bucket, key string, v any) error {
	value, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%s %q: %w", bucket, key, err)
	}
	return tx.Put(bucket, key, value)
}

// Uint64Key is n as a key, 8 bytes, big endian: it sorts as n counts.
func Uint64Key(n uint64) string { return string(binary.BigEndian.AppendUint64(nil, n)) }

// Uint64 reads what Uint64Key or Merge wrote, 0 for anything else.
func Uint64[T string | []byte](b T) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64([]byte(b))
}

// EachJSON calls fn with each key of a bucket and its value, which is JSON.
func EachJSON[T any](tx Reader, bucket string, fn func(key string, v *T) error) error {
	return Each(tx, bucket, Range{}, func(e Entry) error {
		v := new(T)
		if err := json.Unmarshal(e.Value, v); err != nil {
			return fmt.Errorf("%s %s: %w", bucket, e.Key, err)
		}
		return fn(e.Key, v)
	})
}
