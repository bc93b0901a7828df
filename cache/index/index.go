package index

import (
	"errors"
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
	// they live as long as the path does.
	Alternates []string
}

// Files returns the names of all NAR files of the record, Info.URL first.
func (r *Record) Files() []string {
	return append([]string{r.Info.URL}, r.Alternates...)
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
	// Put adds or replaces a record.
	Put(*Record) error
	// Delete removes a record; a missing one is no error.
	Delete(hash string) error
	// Users returns the hash parts of the paths that name a NAR file, as
	// Info.URL or as an alternate.
	Users(file string) ([]string, error)
	// Referrers returns the hash parts of the paths that refer to a path,
	// itself left out.
	Referrers(hash string) ([]string, error)
	// Each calls fn for every record in the order of hash parts, and stops
	// at fn's first error. It reads in pages: a record that comes or goes
	// meanwhile may be seen or not.
	Each(fn func(*Record) error) error
	// Replace makes the index hold just the records that fill hands to
	// put, in the order of hash parts and each path once; readers see the
	// old content until it returns nil.
	Replace(fill func(put func(*Record) error) error) error
	// Totals sums up the index.
	Totals() (Totals, error)
}
