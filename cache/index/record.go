package index

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"narwharf/cache/state"
	"narwharf/narinfo"
)

type recordHead struct {
	Uploaded   time.Time `json:"uploaded"`
	By         string    `json:"by,omitempty"`
	Alternates []string  `json:"alternates,omitempty"`
}

// get returns nil for a path that is not there.
func get(tx state.Reader, g generation, hash string) (*Record, error) {
	v, err := tx.Get(g.path(), hash)
	if err != nil || v == nil {
		return nil, err
	}
	return decode(hash, v)
}

// put writes a record of a path that has none.
func put(write state.PutFunc, g generation, r *Record) error {
	hash := r.Info.Path.Hash()
	v, err := encode(r)
	if err != nil {
		return err
	}
	if err := write(g.path(), hash, v); err != nil {
		return err
	}
	for _, f := range r.Files() {
		if err := write(g.nar(), f+"\x00"+hash, nil); err != nil {
			return err
		}
	}
	for _, ref := range r.Info.References {
		if err := write(g.ref(), ref.Hash()+hash, nil); err != nil {
			return err
		}
	}
	return nil
}

// remove returns what the totals lose.
func remove(tx state.Tx, g generation, hash string) (Totals, error) {
	r, err := get(tx, g, hash)
	if err != nil || r == nil {
		return Totals{}, err
	}
	for _, f := range r.Files() {
		if err := tx.Delete(g.nar(), f+"\x00"+hash); err != nil {
			return Totals{}, err
		}
	}
	for _, ref := range r.Info.References {
		if err := tx.Delete(g.ref(), ref.Hash()+hash); err != nil {
			return Totals{}, err
		}
	}
	return Totals{Paths: -1, NarSize: -r.Info.NarSize}, tx.Delete(g.path(), hash)
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
	if err := json.Unmarshal(head, &h); err != nil {
		return nil, fmt.Errorf("index record of %s is damaged: %w: run narwharf rebuild", hash, err)
	}
	info, err := narinfo.Parse(text)
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
