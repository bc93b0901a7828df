package nixstore

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"narwharf/narinfo"
)

// known is what Nix says about a path, as text; the database and the daemon
// write most of it in the same way.
type known struct {
	path       narinfo.Path
	narHash    string // with "sha256:" in front
	deriver    string // full path, or empty
	narSize    int64
	registered int64 // seconds since 1970
	ultimate   bool
	sigs       []string
	ca         string
}

// info checks k. References are left to be filled in.
func (k known) info(storeDir string) (*PathInfo, error) {
	fail := func(err error) (*PathInfo, error) {
		return nil, fmt.Errorf("what Nix knows about %s makes no sense: %w", k.path.In(storeDir), err)
	}
	hash, err := narinfo.ParseHash(k.narHash)
	if err != nil {
		return fail(err)
	}
	if k.narSize <= 0 {
		// Nix wrote no size before 2010, and fills it in when it verifies.
		return fail(errors.New("it has no NAR size; nix-store --verify --check-contents fills it in"))
	}
	var deriver narinfo.Path
	if k.deriver != "" {
		if deriver, err = narinfo.ParsePath(storeDir, k.deriver); err != nil {
			return fail(fmt.Errorf("deriver: %w", err))
		}
	}
	return &PathInfo{
		Info: &narinfo.Info{
			StoreDir: storeDir, Path: k.path, NarHash: hash, NarSize: k.narSize,
			Deriver: deriver, CA: k.ca, Sigs: goodSigs(k.sigs),
		},
		Ultimate:   k.ultimate,
		Registered: time.Unix(k.registered, 0),
	}, nil
}

// refer sets the references from full paths with spaces between them.
func (i *PathInfo) refer(storeDir, refs string) error {
	if refs == "" {
		return nil
	}
	i.References = make([]narinfo.Path, 0, strings.Count(refs, " ")+1)
	for r := range strings.SplitSeq(refs, " ") {
		if id, ok := strings.CutPrefix(r, "#"); ok {
			return missingRow(i.Path.In(storeDir), id)
		}
		if err := i.addReference(storeDir, r); err != nil {
			return err
		}
	}
	i.sortReferences()
	return nil
}

// missingRow is for a reference to a row that Nix's own foreign keys should
// have kept.
func missingRow(path, id string) error {
	return fmt.Errorf("the Nix database is damaged: %s refers to row %s, which is not there; run nix-store --verify", path, id)
}

func (i *PathInfo) addReference(storeDir, full string) error {
	p, err := narinfo.ParsePath(storeDir, full)
	if err != nil {
		return fmt.Errorf("what Nix knows about %s makes no sense: reference: %w", i.Path.In(storeDir), err)
	}
	i.References = append(i.References, p)
	return nil
}

func (i *PathInfo) sortReferences() {
	slices.Sort(i.References)
	i.References = slices.Compact(i.References)
}

// fields splits at single spaces, as Nix writes signatures.
func fields(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Fields(s)
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
