package signing

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"narwharf/signing/ijson"
	"narwharf/signing/merkle"
)

// A Release is a signed head and all entries that it commits to, sorted by
// target: what a promoter sends and what a server keeps. Its entries are not
// changed once it was made or checked.
type Release struct {
	Head    *Envelope `json:"head"`
	Entries Leaves    `json:"entries"`

	tree merkle.Tree // of Entries, nil if not yet needed; under trees
}

// trees guards the tree of every release. With a lock of its own a release
// could not be copied, and building is all that it is ever held for.
var trees sync.Mutex

// Leaves are the leaves of a Merkle tree: base64 in JSON, since their bytes
// must stay as they are.
type Leaves [][]byte

// UnmarshalJSON reads an array of strings in strict base64.
func (l *Leaves) UnmarshalJSON(text []byte) error {
	list := Leaves{}
	err := ijson.ParseStrings(text, MaxTargets, func(s string) error {
		raw, err := ijson.Base64(s)
		list = append(list, raw)
		return err
	})
	if err != nil {
		return fmt.Errorf("entries: %w", err)
	}
	*l = list
	return nil
}

// NewRelease sets h.Targets from the entries, which may come in any order, and
// seals the head.
func NewRelease(h Head, entries []Entry, keys ...SecretKey) (*Release, error) {
	var raw [][]byte
	for _, e := range entries {
		// Before Marshal, which makes U+FFFD of what is not UTF-8.
		if err := e.Check(); err != nil {
			return nil, fmt.Errorf("entry of %q: %w", clipped(e.Target), err)
		}
		b, err := json.Marshal(e)
		if err != nil {
			return nil, err
		}
		raw = append(raw, b)
	}
	return SealRelease(h, raw, keys...)
}

// SealRelease is NewRelease for entries that are bytes already. A release that
// takes over entries of an earlier one takes over their bytes: hosts know an
// entry by them, and they may hold fields that this version does not know.
//
// The version and the targets of h are set here, and its times are made UTC
// and cut to seconds.
func SealRelease(h Head, raw [][]byte, keys ...SecretKey) (*Release, error) {
	if len(raw) == 0 || len(raw) > MaxTargets {
		return nil, fmt.Errorf("release: %d entries, it has 1 to %d", len(raw), MaxTargets)
	}
	byTarget := make([]leaf, len(raw))
	for i, b := range raw {
		e, err := ParseEntry(b)
		if err != nil {
			return nil, err
		}
		byTarget[i] = leaf{b, *e}
	}
	slices.SortFunc(byTarget, func(a, b leaf) int { return cmp.Compare(a.entry.Target, b.entry.Target) })
	leaves := make(Leaves, len(raw))
	entries := make([]Entry, len(raw))
	for i, l := range byTarget {
		leaves[i], entries[i] = l.raw, l.entry
	}
	if err := checkTargets(entries); err != nil {
		return nil, err
	}
	tree := merkle.New(leaves)
	h.V = 1
	h.Targets = Targets{Count: int64(len(leaves)), Root: Digest(tree.Root())}
	h.Created = h.Created.UTC().Truncate(time.Second)
	if h.Expires != nil {
		at := h.Expires.UTC().Truncate(time.Second)
		h.Expires = &at
	}
	payload, err := h.payload()
	if err != nil {
		return nil, err
	}
	r := &Release{Head: Seal(HeadKind, payload, keys...), Entries: leaves, tree: tree}
	if err := r.Head.check(); err != nil {
		return nil, err
	}
	return r, nil
}

type leaf struct {
	raw   []byte
	entry Entry
}

// checkTargets says what is wrong with the entries of one release together.
func checkTargets(entries []Entry) error {
	for i, e := range entries {
		if e.Target == Everyone && len(entries) > 1 {
			return errors.New(`release: the target "*" stands for all hosts and must be the only one`)
		}
		if i > 0 && entries[i-1].Target >= e.Target {
			return fmt.Errorf("release: target %q is there twice or out of order", e.Target)
		}
	}
	return nil
}

// Check parses a release and sees that head and entries belong together. It
// verifies no signature.
func (r *Release) Check() (*Head, []Entry, error) {
	if r == nil || r.Head == nil {
		return nil, nil, errors.New("release: head is missing")
	}
	if err := r.Head.check(); err != nil {
		return nil, nil, err
	}
	h, err := ParseHead(r.Head.Payload)
	if err != nil {
		return nil, nil, err
	}
	if int64(len(r.Entries)) != h.Targets.Count {
		return nil, nil, fmt.Errorf("release: %d entries, the head says %d", len(r.Entries), h.Targets.Count)
	}
	entries := make([]Entry, len(r.Entries))
	for i, raw := range r.Entries {
		e, err := ParseEntry(raw)
		if err != nil {
			return nil, nil, err
		}
		entries[i] = *e
	}
	if err := checkTargets(entries); err != nil {
		return nil, nil, err
	}
	tree := merkle.New(r.Entries)
	if root := Digest(tree.Root()); root != h.Targets.Root {
		return nil, nil, fmt.Errorf("release: the entries have the root %s, the head says %s", root, h.Targets.Root)
	}
	trees.Lock()
	r.tree = tree
	trees.Unlock()
	return h, entries, nil
}

// Find returns the index of the entry for a host that calls itself target:
// the only entry if that is for everyone, else the one of exactly that name.
// The entries are those of one release, as Check returns them.
func Find(entries []Entry, target string) (int, bool) {
	if len(entries) == 1 && entries[0].Target == Everyone {
		return 0, true
	}
	return slices.BinarySearchFunc(entries, target, func(e Entry, t string) int { return cmp.Compare(e.Target, t) })
}

// Same tells whether two releases are one, signatures aside: whether their
// heads have the same bytes, which commit to all the rest.
func (r *Release) Same(other *Release) bool {
	return r.Head != nil && other.Head != nil && bytes.Equal(r.Head.Payload, other.Head.Payload)
}
