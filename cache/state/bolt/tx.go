package bolt

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"narwharf/cache/state"
)

// tx is a state.Tx, and a state.Reader.
type tx struct {
	t      *bbolt.Tx
	clock  func() time.Time
	topics *[]string
	wrote  bool
}

var _ state.Tx = (*tx)(nil)

// bucket finds a bucket, nil if it is not there.
func (x *tx) bucket(name string) *bbolt.Bucket {
	first, rest, nested := strings.Cut(name, "/")
	b := x.t.Bucket([]byte(first))
	for b != nil && nested {
		first, rest, nested = strings.Cut(rest, "/")
		b = b.Bucket([]byte(first))
	}
	return b
}

// makeBucket finds a bucket, and makes it with those around it.
func (x *tx) makeBucket(name string) (*bbolt.Bucket, error) {
	if b := x.bucket(name); b != nil {
		return b, nil
	}
	var in interface {
		CreateBucketIfNotExists(name []byte) (*bbolt.Bucket, error)
	} = x.t
	var b *bbolt.Bucket
	var err error
	for part := range strings.SplitSeq(name, "/") {
		if b, err = in.CreateBucketIfNotExists([]byte(part)); err != nil {
			return nil, fmt.Errorf("bucket %s: %w", name, err)
		}
		in = b
	}
	return b, nil
}

// Get implements state.Reader.
func (x *tx) Get(bucket, key string) ([]byte, error) {
	if b := x.bucket(bucket); b != nil {
		return bytes.Clone(b.Get([]byte(key))), nil
	}
	return nil, nil
}

// List implements state.Reader.
func (x *tx) List(bucket string, r state.Range) (list []state.Entry, err error) {
	b := x.bucket(bucket)
	if b == nil {
		return nil, nil
	}
	limit := state.PageSize(r.Limit)
	c := b.Cursor()
	k, v, next := seek(c, r)
	for ; k != nil && len(list) < limit; k, v = next() {
		if r.Reverse && string(k) < r.From || !r.Reverse && r.To != "" && string(k) >= r.To {
			break
		}
		if v != nil { // nil is a bucket
			list = append(list, state.Entry{Key: string(k), Value: bytes.Clone(v)})
		}
	}
	return list, nil
}

// seek goes to the first entry of a range.
func seek(c *bbolt.Cursor, r state.Range) (k, v []byte, next func() (k, v []byte)) {
	if !r.Reverse {
		k, v = c.Seek([]byte(r.From))
		return k, v, c.Next
	}
	if r.To != "" {
		k, _ = c.Seek([]byte(r.To))
	}
	if k == nil { // all are below
		k, v = c.Last()
	} else {
		k, v = c.Prev()
	}
	return k, v, c.Prev
}

// ReadLog implements state.Reader.
func (x *tx) ReadLog(log string, from uint64, limit int) ([]state.Record, error) {
	list, err := x.List(log, state.Range{From: state.Uint64Key(from), Limit: limit})
	return state.Records(list), err
}

// Now implements state.Reader.
func (x *tx) Now() (time.Time, error) { return x.clock(), nil }

// Put implements state.Tx.
func (x *tx) Put(bucket, key string, value []byte) error {
	x.wrote = true
	if err := state.CheckEntry(bucket, key, value); err != nil {
		return err
	}
	b, err := x.makeBucket(bucket)
	if err != nil {
		return err
	}
	// bbolt keeps the slice until the commit, and takes nil for a bucket.
	return b.Put([]byte(key), append([]byte{}, value...))
}

// Delete implements state.Tx.
func (x *tx) Delete(bucket, key string) error {
	x.wrote = true
	if b := x.bucket(bucket); b != nil {
		return b.Delete([]byte(key))
	}
	return nil
}

// Clear implements state.Tx.
func (x *tx) Clear(bucket string) error {
	x.wrote = true
	if x.bucket(bucket) == nil {
		return nil
	}
	i := strings.LastIndexByte(bucket, '/')
	if i < 0 {
		return x.t.DeleteBucket([]byte(bucket))
	}
	return x.bucket(bucket[:i]).DeleteBucket([]byte(bucket[i+1:]))
}

// Append implements state.Tx. The position is one above the last record's and
// above bbolt's sequence of the bucket, which earlier versions did not set.
func (x *tx) Append(log string, encode func(position uint64) ([]byte, error)) error {
	x.wrote = true
	b, err := x.makeBucket(log)
	if err != nil {
		return err
	}
	position := b.Sequence() + 1
	if k, _ := b.Cursor().Last(); k != nil {
		position = max(position, state.Uint64(k)+1)
	}
	value, err := encode(position)
	if err != nil {
		return err
	}
	if err := b.SetSequence(position); err != nil {
		return err
	}
	return x.Put(log, state.Uint64Key(position), value)
}

// Trim implements state.Tx.
func (x *tx) Trim(log string, below uint64) error {
	x.wrote = true
	b := x.bucket(log)
	if b == nil {
		return nil
	}
	c := b.Cursor()
	for k, v := c.First(); k != nil; {
		if v == nil { // a bucket
			k, v = c.Next()
			continue
		}
		if state.Uint64(k) >= below {
			break
		}
		if err := b.Delete(k); err != nil {
			return err
		}
		k, v = c.Seek(k) // anew, for a Delete may merge pages
	}
	return nil
}

// Notify implements state.Tx.
func (x *tx) Notify(topics ...string) { *x.topics = append(*x.topics, topics...) }
