// Package pathinfo is what Nix knows about a path of its store: as text, as the
// database and the daemon have it, and checked.
package pathinfo

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

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
	NarHash    string // with "sha256:" in front
	Deriver    string // full path, or empty
	NarSize    int64
	Registered int64 // seconds since 1970
	Ultimate   bool
	Sigs       []string
	CA         string
}

// Info checks k. References are left to be filled in.
func (k Known) Info(storeDir string) (*PathInfo, error) {
	fail := func(err error) (*PathInfo, error) {
		return nil, fmt.Errorf("what Nix knows about %s makes no sense: %w", k.Path.In(storeDir), err)
	}
	hash, err := narinfo.ParseHash(k.NarHash)
	if err != nil {
		return fail(err)
	}
	if k.NarSize <= 0 {
		// Nix wrote no size before 2010, and fills it in when it verifies.
		return fail(errors.New("it has no NAR size; nix-store --verify --check-contents fills it in"))
	}
	var deriver narinfo.Path
	if k.Deriver != "" {
		if deriver, err = narinfo.ParsePath(storeDir, k.Deriver); err != nil {
			return fail(fmt.Errorf("deriver: %w", err))
		}
	}
	return &PathInfo{
		Info: &narinfo.Info{
			StoreDir: storeDir, Path: k.Path, NarHash: hash, NarSize: k.NarSize,
			Deriver: deriver, CA: k.CA, Sigs: goodSigs(k.Sigs),
		},
		Ultimate:   k.Ultimate,
		Registered: time.Unix(k.Registered, 0),
	}, nil
}

// AddReference adds a reference, given as full path.
func (i *PathInfo) AddReference(storeDir, full string) error {
	p, err := narinfo.ParsePath(storeDir, full)
	if err != nil {
		return fmt.Errorf("what Nix knows about %s makes no sense: reference: %w", i.Path.In(storeDir), err)
	}
	i.References = append(i.References, p)
	return nil
}

// SortReferences brings them into their order, each once.
func (i *PathInfo) SortReferences() {
	slices.Sort(i.References)
	i.References = slices.Compact(i.References)
}

// goodSigs is sigs sorted, without doubles and without what is no signature:
// Nix before 2.34 took any text with --sigs or from a binary cache, and one bad
// Sig makes newer clients refuse a whole narinfo.
func goodSigs(sigs []string) []string {
	var good []string
	for _, s := range sigs {
		name, data, _ := strings.Cut(s, ":")
		var b [66]byte // 88 digits are 66 bytes before the padding is known
		if !narinfo.ValidKeyName(name) || len(data) != 88 || strings.ContainsAny(data, "\r\n") {
			continue
		}
		if n, err := base64.StdEncoding.Strict().Decode(b[:], []byte(data)); err == nil && n == 64 {
			good = append(good, s)
		}
	}
	slices.Sort(good)
	return slices.Compact(good)
}

// Sort brings infos into the order of their paths.
func Sort(all []*narinfo.Info) {
	slices.SortFunc(all, func(a, b *narinfo.Info) int { return strings.Compare(string(a.Path), string(b.Path)) })
}
