package index

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"narwharf/cache/state"
	"narwharf/narinfo"
)

type recordHead struct {
	Uploaded   time.Time `json:"uploaded"`
	By         string    `json:"by,omitempty"`
	Alternates []string  `json:"alternates,omitempty"`
}

func encode(r *Record) ([]byte, error) {
	head, err := json.Marshal(recordHead{r.Uploaded.UTC(), r.By, r.Alternates})
	if err != nil {
		return nil, fmt.Errorf("index record of %s: %w", r.Info.Path, err)
	}
	return r.Info.Append(append(head, '\n')), nil
}

func decode(hash string, v []byte) (*Record, error) {
	head, text, ok := bytes.Cut(v, []byte("\n"))
	if !ok {
		return nil, fmt.Errorf("index record of %s is damaged: run narwharf rebuild", hash)
	}
	var h recordHead
	err := json.Unmarshal(head, &h)
	var info *narinfo.Info
	if err == nil {
		info, err = narinfo.Parse(text)
	}
	if err != nil {
		return nil, fmt.Errorf("index record of %s is damaged: %w: run narwharf rebuild", hash, err)
	}
	return &Record{Info: info, Uploaded: h.Uploaded, By: h.By, Alternates: h.Alternates}, nil
}

// narSize reads the NarSize of an encoded record and nothing else; ok is false
// for one that is damaged.
func narSize(v []byte) (size int64, ok bool) {
	_, text, _ := bytes.Cut(v, []byte("\n"))
	_, text, ok = bytes.Cut(text, []byte("\nNarSize: "))
	digits, _, _ := bytes.Cut(text, []byte("\n"))
	size, err := strconv.ParseInt(string(digits), 10, 64)
	return size, ok && err == nil
}

// Tx is a change that is being made.
type Tx struct {
	state.Tx
	g      generation
	lease  time.Duration
	shared bool
	more   map[string]Totals // what the sums gain, by hash part
}

func (x *Tx) gain(hash string, more Totals) {
	more.add(x.more[hash])
	x.more[hash] = more
	if x.shared {
		x.Notify(RecordTopic + hash)
	}
}

// Record returns that of a path by its hash part, else ErrNotFound.
func (x *Tx) Record(hash string) (*Record, error) { return get(x, x.g, hash) }

// Has tells whether a path is there.
func (x *Tx) Has(p narinfo.Path) (bool, error) {
	v, err := x.Get(x.g.path(), p.Hash())
	return bytes.Contains(v, []byte("/"+string(p)+"\nURL: ")), err
}

// Users is as in Index.
func (x *Tx) Users(file string) ([]string, error) { return suffixes(x, x.g.nar(), file+"\x00") }

// Put adds or replaces a record.
func (x *Tx) Put(r *Record) error {
	hash := r.Info.Path.Hash()
	old, err := x.Record(hash)
	if noError(err) != nil {
		return err
	}
	if old != nil {
		if err := x.remove(old); err != nil {
			return err
		}
	}
	v, err := encode(r)
	if err != nil {
		return err
	}
	x.gain(hash, Totals{Paths: 1, NarSize: r.Info.NarSize})
	err = x.eachRow(r, func(bucket, key string) error { return x.Tx.Put(bucket, key, nil) })
	if err == nil {
		err = x.Tx.Put(x.g.path(), hash, v)
	}
	if err == nil && old != nil {
		err = x.unnameFiles(old)
	}
	if err == nil {
		err = x.nameFiles(r)
	}
	if err != nil {
		return err
	}
	return x.Gone(hash)
}

// Delete removes a record and what is known of its use; a missing one is no error.
func (x *Tx) Delete(hash string) error {
	r, err := x.Record(hash)
	if err != nil {
		return noError(err)
	}
	if err := x.remove(r); err != nil {
		return err
	}
	if err := x.unnameFiles(r); err != nil {
		return err
	}
	return x.Tx.Delete(UseBucket, hash)
}

// remove deletes the rows of a record.
func (x *Tx) remove(r *Record) error {
	hash := r.Info.Path.Hash()
	x.gain(hash, Totals{Paths: -1, NarSize: -r.Info.NarSize})
	if err := x.eachRow(r, x.Tx.Delete); err != nil {
		return err
	}
	return x.Tx.Delete(x.g.path(), hash)
}

// Drop is Delete for a record that may be damaged; Prune removes what it leaves.
func (x *Tx) Drop(hash string) error {
	if _, err := x.Record(hash); noError(err) == nil {
		return x.Delete(hash)
	}
	v, err := x.Get(x.g.path(), hash)
	if size, ok := narSize(v); ok { // it was counted
		x.gain(hash, Totals{Paths: -1, NarSize: -size})
	}
	if err != nil {
		return err
	}
	return x.Tx.Delete(x.g.path(), hash)
}

// eachRow calls fn with the rows of a record in the tables nar and ref.
func (x *Tx) eachRow(r *Record, fn func(bucket, key string) error) error {
	hash := r.Info.Path.Hash()
	for _, file := range r.Files() {
		if err := fn(x.g.nar(), file+"\x00"+hash); err != nil {
			return err
		}
	}
	for _, ref := range r.Info.References {
		if err := fn(x.g.ref(), ref.Hash()+hash); err != nil {
			return err
		}
	}
	return nil
}

// get returns ErrNotFound for a path that is not there.
func get(tx state.Reader, g generation, hash string) (*Record, error) {
	v, err := tx.Get(g.path(), hash)
	if err != nil {
		return nil, err
	}
	if v == nil {
		return nil, ErrNotFound
	}
	return decode(hash, v)
}

// suffixes returns what follows prefix in the keys that begin with it.
func suffixes(tx state.Reader, bucket, prefix string) (rest []string, err error) {
	err = state.Each(tx, bucket, state.Prefix(prefix), func(e state.Entry) error {
		rest = append(rest, strings.TrimPrefix(e.Key, prefix))
		return nil
	})
	return rest, err
}
