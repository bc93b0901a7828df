package index

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"narwharf/cache/state"
	"narwharf/narinfo"
)

// fileBucket has the rows of NAR files: <nar/…> -> JSON (fileRow). One that a record has
// as its URL needs none: the record says all.
const fileBucket = "cache/file"

// File is what is noted of a NAR file that is no record's URL: no record names it, or it
// is an alternate.
type File struct {
	// Facts are what the file holds, the zero value if nobody has read it.
	Facts Facts
	// Asked is when it was sent or asked for last, by the state's clock, and Age how
	// long ago that was when the row was read.
	Asked time.Time
	Age   time.Duration
	// Doomed tells that its last path was collected: it goes with it, unless
	// somebody wants it meanwhile.
	Doomed bool
}

// Facts are what a NAR file is, as narfile.Facts has it.
type Facts struct {
	Compression       string
	FileHash, NarHash narinfo.Hash
	FileSize, NarSize int64
}

// FactsOf are those of the file that a narinfo has as its URL.
func FactsOf(i *narinfo.Info) Facts {
	return Facts{i.Compression, i.FileHash, i.NarHash, i.FileSize, i.NarSize}
}

type fileRow struct {
	Asked       int64  `json:"asked"` // Unix seconds
	Doomed      bool   `json:"doomed,omitempty"`
	Compression string `json:"compression,omitempty"`
	FileHash    string `json:"file_hash,omitempty"`
	NarHash     string `json:"nar_hash,omitempty"`
	FileSize    int64  `json:"file_size,omitempty"`
	NarSize     int64  `json:"nar_size,omitempty"`
}

func (f *File) encode() ([]byte, error) {
	row := fileRow{Asked: f.Asked.Unix(), Doomed: f.Doomed}
	if k := f.Facts; !k.FileHash.IsZero() {
		row.Compression, row.FileHash, row.NarHash, row.FileSize, row.NarSize = k.Compression, k.FileHash.String(), k.NarHash.String(), k.FileSize, k.NarSize
	}
	return json.Marshal(row)
}

func decodeFile(name string, v []byte) (*File, error) {
	var row fileRow
	err := json.Unmarshal(v, &row)
	f := &File{Asked: time.Unix(row.Asked, 0), Doomed: row.Doomed}
	if err == nil && row.FileHash != "" {
		f.Facts = Facts{Compression: row.Compression, FileSize: row.FileSize, NarSize: row.NarSize}
		if f.Facts.FileHash, err = narinfo.ParseHash(row.FileHash); err == nil {
			f.Facts.NarHash, err = narinfo.ParseHash(row.NarHash)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("the row of %s is damaged: %w", name, err)
	}
	return f, nil
}

func file(tx state.Reader, name string) (*File, error) {
	v, err := tx.Get(fileBucket, name)
	if err != nil || v == nil {
		return nil, err
	}
	f, err := decodeFile(name, v)
	if err == nil {
		var now time.Time
		now, err = tx.Now()
		f.Age = now.Sub(f.Asked)
	}
	return f, err
}

// File returns the row of a NAR file, nil if it has none.
func (t *Table) File(name string) (f *File, err error) {
	err = t.view(func(tx state.Reader) error { f, err = file(tx, name); return err })
	return f, err
}

// AskedLately implements Index. Where the state is on another machine, what was read is good for an hour: each NAR
// that goes out asks.
func (t *Table) AskedLately(name string) (lately bool, err error) {
	if at, ok := t.asked.Get(name); ok && time.Since(at) < time.Hour {
		return true, nil
	}
	row, err := t.File(name)
	lately = err == nil && (row == nil || row.Age < 24*time.Hour)
	if lately && t.shared {
		t.asked.Add(name, time.Now())
	}
	return lately, err
}

// EachFile calls fn for every row of a NAR file in the order of names, in pages as Each.
// One that is damaged is taken for a file that was asked for now. Age is not set.
func (t *Table) EachFile(fn func(name string, f *File) error) error {
	return t.state.Scan(context.Background(), fileBucket, state.Range{}, func(page []state.Entry) error {
		for _, e := range page {
			f, err := decodeFile(e.Key, e.Value)
			if err != nil {
				f = &File{Asked: time.Now()}
			}
			if err := fn(e.Key, f); err != nil {
				return err
			}
		}
		return nil
	})
}

// File returns the row of a NAR file, nil if it has none.
func (x *Tx) File(name string) (*File, error) { return file(x, name) }

// PutFile sets the row of a NAR file.
func (x *Tx) PutFile(name string, f *File) error {
	v, err := f.encode()
	if err != nil {
		return fmt.Errorf("the row of %s: %w", name, err)
	}
	return x.Tx.Put(fileBucket, name, v)
}

// DropFile removes the row of a NAR file, if it has one.
func (x *Tx) DropFile(name string) error { return x.Tx.Delete(fileBucket, name) }

// Ask notes that somebody counts on a NAR file: its time begins anew, or, where records
// have it as their URL, the leases of users, whose locks the transaction shares beside
// holding the file's. facts may be the zero value.
func (x *Tx) Ask(name string, facts Facts, users []string) error {
	for _, hash := range users {
		if _, err := x.Use(hash); err != nil {
			return err
		}
	}
	named, err := x.named(name)
	if err != nil {
		return err
	}
	f, err := x.File(name)
	switch {
	case err != nil, named && f == nil:
		return err
	case f == nil:
		f = new(File)
	}
	if !facts.FileHash.IsZero() {
		f.Facts = facts
	}
	return x.ask(name, f)
}

// ask sets a row, whose time begins anew.
func (x *Tx) ask(name string, f *File) (err error) {
	f.Doomed = false
	if f.Asked, err = x.Now(); err != nil {
		return err
	}
	return x.PutFile(name, f)
}

// named tells whether a record names a file.
func (x *Tx) named(name string) (bool, error) {
	users, err := x.List(x.g.nar(), firstUser(name))
	return len(users) > 0, err
}

// nameFiles keeps the rows of a record's files true: that of its URL is not needed any
// more, and an alternate has one.
func (x *Tx) nameFiles(r *Record) error {
	if err := x.DropFile(r.Info.URL); err != nil {
		return err
	}
	for _, name := range r.Alternates {
		f, err := x.File(name)
		if err != nil {
			return err
		}
		if f == nil || f.Doomed {
			if err := x.ask(name, new(File)); err != nil {
				return err
			}
		}
	}
	return nil
}

// unnameFiles gives rows to those of the files of a record, which is gone, that need one
// now.
func (x *Tx) unnameFiles(r *Record) error {
	for _, name := range r.Files() {
		f, err := x.File(name)
		if err != nil {
			return err
		}
		if f == nil {
			f = new(File)
		}
		needs, err := x.needsRow(name)
		if err == nil && needs {
			err = x.ask(name, f)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// needsRow tells whether no record names a file, or the first that does as an alternate.
func (x *Tx) needsRow(name string) (bool, error) {
	list, err := x.List(x.g.nar(), firstUser(name))
	if err != nil || len(list) == 0 {
		return err == nil, err
	}
	r, err := x.Record(strings.TrimPrefix(list[0].Key, name+"\x00"))
	return err == nil && r.Info.URL != name, noError(err)
}

func firstUser(name string) state.Range {
	r := state.Prefix(name + "\x00")
	r.Limit = 1
	return r
}
