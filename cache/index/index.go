// Package index answers what has been uploaded to a cache and who refers to
// whom, without reading the files.
//
// Everything in it is derived: the narinfo files are the truth, and an index
// can be made anew from them alone ("narwharf rebuild"). Two facts are an
// exception and are lost with it: who uploaded a path, and when to the second
// (the file's time stands in).
//
// Index is the contract and Table keeps it in a state that it shares with other
// tables. Keys are the 32-character hash parts of store paths, in
// which a store path is unique by Nix's own rules.
package index

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"narwharf/narinfo"
)

// ErrNotFound is returned for a path that was never uploaded, or was removed.
var ErrNotFound = errors.New("not in the index")

// Record is what is known of one uploaded store path.
type Record struct {
	// Info is the stored narinfo: normalised, with the signatures that came
	// with the path and none of this server's own. Callers must not change it.
	Info *narinfo.Info
	// Uploaded is when the first narinfo for the path was accepted.
	Uploaded time.Time
	// By names who uploaded it (a token's name), "" if that is not known.
	By string
	// Alternates are further files with the same NAR in another encoding:
	// names as in Info.URL. The uploader's own Nix remembers that URL, so
	// they stay for 31 days after the last PUT or GET.
	Alternates []string
}

// Files returns the names of all NAR files of the record, Info.URL first.
func (r *Record) Files() []string {
	return append([]string{r.Info.URL}, r.Alternates...)
}

// With copies a record with another narinfo. The NAR file that this one names is no
// alternate then.
func (r *Record) With(info *narinfo.Info) *Record {
	next := *r
	next.Info = info
	next.Alternates = slices.DeleteFunc(slices.Clone(r.Alternates), func(name string) bool { return name == info.URL })
	return &next
}

// Same tells whether two records are equal; nil is no record.
func Same(a, b *Record) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Uploaded.Equal(b.Uploaded) && a.By == b.By && slices.Equal(a.Alternates, b.Alternates) && bytes.Equal(a.Info.Append(nil), b.Info.Append(nil))
}

// Totals are sums over all records.
type Totals struct {
	Paths   int64 `json:"paths"`    // store paths
	NarSize int64 `json:"nar_size"` // bytes unpacked
}

func (t *Totals) add(more Totals) {
	t.Paths += more.Paths
	t.NarSize += more.NarSize
}

// Index is the set of uploaded paths. Methods may be called at once from many
// goroutines; a change is durable when the method has returned nil, and is
// seen by every call that starts after that.
type Index interface {
	// Get returns the record of a path by its hash part, else ErrNotFound.
	Get(hash string) (*Record, error)
	// Users returns the hash parts of the paths that name a NAR file, as
	// Info.URL or as an alternate.
	Users(file string) ([]string, error)
	// Referrers returns the hash parts of the paths that refer to a path,
	// itself left out.
	Referrers(hash string) ([]string, error)
	// Each calls fn for every record in the order of hash parts, and stops
	// at fn's first error. For one that is damaged r is nil and err says so. It
	// reads in pages: a record that comes or goes meanwhile may be seen or not.
	Each(fn func(hash string, r *Record, err error) error) error
	// Change makes one change: what it decides on fn reads in its Tx. locks name
	// that, by PathLock and NarLock; what only has to stay as it is is
	// state.Shared. fn may run again.
	Change(locks []string, fn func(tx *Tx) error) error
	// Use notes that somebody who may upload is about to be told that paths are here,
	// by hash part: they stay for a lease then. missing are not here.
	Use(ctx context.Context, hashes []string) (missing []string, err error)
	// UsedLately tells whether Use of a path would write nothing and find it.
	UsedLately(hash string) (bool, error)
	// File returns the row of a NAR file, nil if it has none.
	File(name string) (*File, error)
	// AskedLately tells whether somebody asked for a NAR file in the last day, or it has no row.
	AskedLately(name string) (bool, error)
	// EachFile calls fn for every row of a NAR file, in pages as Each.
	EachFile(fn func(name string, f *File) error) error
	// Going returns the paths whose narinfo files have to go, in order.
	Going(ctx context.Context) ([]Going, error)
	// Began notes that uses are known from now on, or always in an empty cache, if that
	// is not noted.
	Began(empty bool) error
	// IsGoing tells whether the narinfo file of a path has to go.
	IsGoing(hash string) (bool, error)
	// Prune removes what damaged records left when they were dropped.
	Prune() error
	// Totals sums up the index.
	Totals() (Totals, error)
}

// PathLock is the lock of the path with a hash part, and NarLock that of a NAR file.
func PathLock(hash string) string { return "path:" + hash }

// NarLock is the lock of a NAR file "nar/…".
func NarLock(name string) string { return "nar:" + name }

// Put adds or replaces a record, whatever is there.
func Put(i Index, r *Record) error {
	return i.Change([]string{PathLock(r.Info.Path.Hash())}, func(tx *Tx) error { return tx.Put(r) })
}

// Delete removes a record; a missing one is no error.
func Delete(i Index, hash string) error {
	return i.Change([]string{PathLock(hash)}, func(tx *Tx) error { return tx.Delete(hash) })
}
