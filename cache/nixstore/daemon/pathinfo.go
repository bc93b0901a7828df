package daemon

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"narwharf/narinfo"
)

// ErrNotValid is for paths that Nix does not know. The error that wraps it
// starts with the path.
var ErrNotValid = errors.New("is not in the local store")

// PathInfo is what Nix knows about a path beyond its narinfo.
type PathInfo struct {
	*narinfo.Info
	Ultimate   bool      // built here, not fetched: Nix trusts it without a signature
	Registered time.Time // when the path became valid, in whole seconds
}

// Known is what Nix says about a path, as text; the database and the daemon
// write most of it in the same way.
type Known struct {
	Path       narinfo.Path
	NarHash    string   // with "sha256:" in front
	Deriver    string   // full path, or empty
	References []string // full paths
	NarSize    int64
	Registered int64 // seconds since 1970
	Ultimate   bool
	Sigs       []string
	CA         string
}

// RowError is for what Nix has answered of one path, and makes no sense: asking again, or
// another way, does not help.
type RowError struct{ Err error }

func (e *RowError) Error() string { return e.Err.Error() }

// Unwrap returns what is wrong.
func (e *RowError) Unwrap() error { return e.Err }

// Info checks k. Signatures that are none are left out: Nix before 2.34 took any text
// with --sigs or from a binary cache, and one bad Sig makes newer clients refuse a whole narinfo.
func (k Known) Info(storeDir string) (*PathInfo, error) {
	i := &narinfo.Info{StoreDir: storeDir, Path: k.Path, NarSize: k.NarSize, CA: k.CA}
	if err := k.fill(i); err != nil {
		return nil, &RowError{fmt.Errorf("what Nix knows about %s makes no sense: %w", k.Path.In(storeDir), err)}
	}
	for _, s := range k.Sigs {
		if narinfo.ValidSig(s) {
			i.Sigs = append(i.Sigs, s)
		}
	}
	i.Sigs = ordered(i.Sigs)
	return &PathInfo{Info: i, Ultimate: k.Ultimate, Registered: time.Unix(k.Registered, 0)}, nil
}

func (k Known) fill(i *narinfo.Info) (err error) {
	if i.NarHash, err = narinfo.ParseHash(k.NarHash); err != nil {
		return err
	}
	if strings.ContainsFunc(k.CA, unicode.IsControl) {
		return fmt.Errorf("content address %q", k.CA)
	}
	if k.NarSize <= 0 {
		// Nix wrote no size before 2010, and fills it in when it verifies.
		return errors.New("it has no NAR size; nix-store --verify --check-contents fills it in")
	}
	if k.Deriver != "" {
		if i.Deriver, err = narinfo.ParsePath(i.StoreDir, k.Deriver); err != nil {
			return fmt.Errorf("deriver: %w", err)
		}
	}
	for _, full := range k.References {
		p, err := narinfo.ParsePath(i.StoreDir, full)
		if err != nil {
			return fmt.Errorf("reference: %w", err)
		}
		i.References = append(i.References, p)
	}
	i.References = ordered(i.References)
	return nil
}

func ordered[S ~[]E, E ~string](s S) S {
	slices.Sort(s)
	return slices.Compact(s)
}

// Sort brings infos into the order of their paths.
func Sort(all []*narinfo.Info) {
	slices.SortFunc(all, func(a, b *narinfo.Info) int { return strings.Compare(string(a.Path), string(b.Path)) })
}
