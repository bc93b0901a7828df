package signing

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"narwharf/narinfo"
)

// Bounds of a head.
const (
	MaxSeq     = 1<<53 - 1 // JSON numbers are exact up to here
	MaxSeqJump = 1000      // a larger step is refused: seq cannot be used up
	MaxTargets = 100_000
	maxEntry   = 4096
	maxMeta    = 32
)

// A Head is what a promoter signs: which channel, which step of its history,
// and the Merkle root over the entries.
type Head struct {
	V        int               `json:"v"`      // 1
	Origin   string            `json:"origin"` // which cache and channel, as hosts have it configured
	Channel  string            `json:"channel"`
	Seq      int64             `json:"seq"`
	Targets  Targets           `json:"targets"`
	Order    *int64            `json:"order,omitempty"` // of the source: commit count, run number
	Rollback bool              `json:"rollback"`
	Created  time.Time         `json:"created"`
	Expires  *time.Time        `json:"expires"`
	Meta     map[string]string `json:"meta,omitempty"` // for people: rev, url, by
}

// Targets commits to the entries of a release.
type Targets struct {
	Count int64  `json:"count"`
	Root  Digest `json:"root"`
}

// A Digest is a SHA-256, "sha256:" and 64 hex digits in text.
type Digest [32]byte

// ParseDigest reads the text form.
func ParseDigest(s string) (d Digest, err error) {
	digits, ok := strings.CutPrefix(s, "sha256:")
	if !ok || len(digits) != 64 || strings.ToLower(digits) != digits {
		return d, fmt.Errorf("%q is not sha256: and 64 lower-case hex digits", clipped(s))
	}
	if _, err := hex.Decode(d[:], []byte(digits)); err != nil {
		return d, fmt.Errorf("%q is not sha256: and 64 lower-case hex digits", clipped(s))
	}
	return d, nil
}

func clipped(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

// String is the text form.
func (d Digest) String() string { return "sha256:" + d.Hex() }

// Hex is the text form without its prefix.
func (d Digest) Hex() string { return hex.EncodeToString(d[:]) }

// IsZero tells whether the digest is absent.
func (d Digest) IsZero() bool { return d == Digest{} }

// MarshalText implements encoding.TextMarshaler.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Digest) UnmarshalText(text []byte) (err error) {
	*d, err = ParseDigest(string(text))
	return err
}

// An Action is what a host does with its entry.
type Action string

// The actions. Auto switches, or reboots where a switch is not enough.
const (
	Auto        Action = "auto"
	Switch      Action = "switch"
	Boot        Action = "boot"
	Test        Action = "test"
	DryActivate Action = "dry-activate"
	Reboot      Action = "reboot"
)

// Actions are all of them.
var Actions = []Action{Auto, Switch, Boot, Test, DryActivate, Reboot}

// An Entry says which system one target runs. In a release it is an opaque
// string of bytes, of which this is the meaning.
type Entry struct {
	Target    string `json:"target"` // "*" or exactly what the host calls itself
	StorePath string `json:"store_path"`
	Closure   Digest `json:"closure"` // of the closure manifest
	System    string `json:"system"`  // "x86_64-linux"
	Action    Action `json:"action"`
}

// Everyone is the target of a release that has one system for all.
const Everyone = "*"

var (
	channelGrammar = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
	targetGrammar  = regexp.MustCompile(`^(\*|[a-zA-Z0-9][a-zA-Z0-9._:-]{0,126})$`)
	originGrammar  = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._:-]{0,252}(/[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}){1,8}$`)
	systemGrammar  = regexp.MustCompile(`^[a-z0-9_]{1,32}-[a-z0-9_]{1,32}$`)
)

// CheckChannel says what is wrong with the name of a channel.
func CheckChannel(name string) error {
	if !channelGrammar.MatchString(name) {
		return fmt.Errorf("%q is not a channel name: 1 to 63 of a-z 0-9 . _ -, the first a letter or digit", clipped(name))
	}
	return nil
}

// CheckTarget says what is wrong with the name of a target.
func CheckTarget(name string) error {
	if !targetGrammar.MatchString(name) {
		return fmt.Errorf("%q is not a target: a host name, a name like role:web, or *", clipped(name))
	}
	return nil
}

// ParseHead reads and checks a head's bytes. Unknown fields are let through:
// whatever a host must not ignore gets another v.
func ParseHead(payload []byte) (*Head, error) {
	var h Head
	if err := json.Unmarshal(payload, &h); err != nil {
		return nil, fmt.Errorf("head: %w", err)
	}
	if err := h.Check(); err != nil {
		return nil, fmt.Errorf("head: %w", err)
	}
	return &h, nil
}

// Check says what is wrong with a head on its own.
func (h *Head) Check() error {
	switch {
	case h.V != 1:
		return fmt.Errorf("version %d is not known here (1 is): a newer narwharf made it", h.V)
	case !originGrammar.MatchString(h.Origin):
		return fmt.Errorf("origin %q is not like cache.example.org/prod", clipped(h.Origin))
	case h.Seq < 1 || h.Seq > MaxSeq:
		return fmt.Errorf("seq %d is not between 1 and 2^53-1", h.Seq)
	case h.Targets.Count < 1 || h.Targets.Count > MaxTargets:
		return fmt.Errorf("%d targets are not between 1 and %d", h.Targets.Count, MaxTargets)
	case h.Targets.Root.IsZero():
		return errors.New("targets.root is missing")
	case h.Created.IsZero():
		return errors.New("created is missing")
	case len(h.Meta) > maxMeta:
		return fmt.Errorf("%d fields of meta, at most %d", len(h.Meta), maxMeta)
	}
	return CheckChannel(h.Channel)
}

// ParseEntry reads and checks an entry's bytes.
func ParseEntry(raw []byte) (*Entry, error) {
	if len(raw) > maxEntry {
		return nil, fmt.Errorf("entry: %d bytes, at most %d", len(raw), maxEntry)
	}
	var e Entry
	if err := json.Unmarshal(raw, &e); err != nil {
		return nil, fmt.Errorf("entry: %w", err)
	}
	if err := e.Check(); err != nil {
		return nil, fmt.Errorf("entry of %q: %w", clipped(e.Target), err)
	}
	return &e, nil
}

// Check says what is wrong with an entry on its own.
func (e *Entry) Check() error {
	if err := CheckTarget(e.Target); err != nil {
		return err
	}
	if _, err := e.Path(); err != nil {
		return fmt.Errorf("store_path: %w", err)
	}
	if e.Closure.IsZero() {
		return errors.New("closure is missing")
	}
	if !systemGrammar.MatchString(e.System) {
		return fmt.Errorf("system %q is not like x86_64-linux", clipped(e.System))
	}
	if !slices.Contains(Actions, e.Action) {
		return fmt.Errorf("action %q is none of %s", clipped(string(e.Action)), joinActions())
	}
	return nil
}

// Path is the base name of the entry's store path.
func (e *Entry) Path() (narinfo.Path, error) {
	dir, _, ok := cutLast(e.StorePath, "/")
	if !ok {
		return "", fmt.Errorf("%q is not a store path", clipped(e.StorePath))
	}
	return narinfo.ParsePath(dir, e.StorePath)
}

// StoreDir is the directory of the entry's store path.
func (e *Entry) StoreDir() string {
	dir, _, _ := cutLast(e.StorePath, "/")
	return dir
}

func cutLast(s, sep string) (before, after string, ok bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

func joinActions() string {
	var names []string
	for _, a := range Actions {
		names = append(names, string(a))
	}
	return strings.Join(names, " ")
}

// A Release is a signed head and all entries that it commits to, sorted by
// target: what a promoter sends and what a server keeps.
type Release struct {
	Head    *Envelope  `json:"head"`
	Entries []rawEntry `json:"entries"`
}

// rawEntry is base64 in JSON, since its bytes must stay as they are.
type rawEntry = []byte

// NewRelease sorts the entries, sets h.Targets from them and seals the head.
func NewRelease(h Head, entries []Entry, keys ...SecretKey) (*Release, error) {
	raw := make([][]byte, 0, len(entries))
	sorted := slices.SortedFunc(slices.Values(entries), func(a, b Entry) int { return cmp.Compare(a.Target, b.Target) })
	for _, e := range sorted {
		b, err := json.Marshal(e)
		if err != nil {
			return nil, err
		}
		raw = append(raw, b)
	}
	return SealRelease(h, raw, keys...)
}

// SealRelease is NewRelease for entries that are bytes already, in the order
// of their targets: how a release takes over entries of an earlier one.
func SealRelease(h Head, raw [][]byte, keys ...SecretKey) (*Release, error) {
	root, err := treeRoot(raw)
	if err != nil {
		return nil, err
	}
	h.V = 1
	h.Targets = Targets{Count: int64(len(raw)), Root: root}
	if err := h.Check(); err != nil {
		return nil, err
	}
	payload, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	r := &Release{Head: Seal(HeadKind, payload, keys...), Entries: raw}
	if _, _, err := r.Check(); err != nil {
		return nil, err
	}
	return r, nil
}

// Check parses a release and sees that head and entries belong together. It
// verifies no signature.
func (r *Release) Check() (*Head, []Entry, error) {
	if r.Head == nil {
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
	entries := make([]Entry, 0, len(r.Entries))
	for i, raw := range r.Entries {
		e, err := ParseEntry(raw)
		if err != nil {
			return nil, nil, err
		}
		if e.Target == Everyone && len(r.Entries) > 1 {
			return nil, nil, errors.New(`release: the target "*" stands for all hosts and must be the only one`)
		}
		if i > 0 && entries[i-1].Target >= e.Target {
			return nil, nil, fmt.Errorf("release: target %q is there twice or out of order", e.Target)
		}
		entries = append(entries, *e)
	}
	root, err := treeRoot(r.Entries)
	if err != nil {
		return nil, nil, err
	}
	if root != h.Targets.Root {
		return nil, nil, fmt.Errorf("release: the entries have the root %s, the head says %s", root, h.Targets.Root)
	}
	return h, entries, nil
}

// Find returns the index of the entry for a host that calls itself target:
// the only entry if that is for everyone, else the one of exactly that name.
func Find(entries []Entry, target string) (int, bool) {
	if len(entries) == 1 && entries[0].Target == Everyone {
		return 0, true
	}
	return slices.BinarySearchFunc(entries, target, func(e Entry, t string) int { return cmp.Compare(e.Target, t) })
}

// Same tells whether two releases are one, signatures aside.
func (r *Release) Same(other *Release) bool {
	return bytes.Equal(r.Head.Payload, other.Head.Payload)
}

// A Pointer is what one host is sent: the head, its entry, and the proof that
// the head commits to it.
type Pointer struct {
	Head  *Envelope        `json:"head"`
	Entry []byte           `json:"entry"` // base64 in JSON
	Index int64            `json:"index"`
	Proof tlog.RecordProof `json:"proof"` // base64 hashes, RFC 6962 order
}

// Pointer cuts the part for one entry out of a release.
func (r *Release) Pointer(index int) (*Pointer, error) {
	if index < 0 || index >= len(r.Entries) {
		return nil, fmt.Errorf("no entry %d in a release of %d", index, len(r.Entries))
	}
	hashes, err := treeHashes(r.Entries)
	if err != nil {
		return nil, err
	}
	proof, err := tlog.ProveRecord(int64(len(r.Entries)), int64(index), hashes)
	if err != nil {
		return nil, err
	}
	return &Pointer{Head: r.Head, Entry: r.Entries[index], Index: int64(index), Proof: proof}, nil
}

// Trust is what a host believes in, all of it from its own configuration.
type Trust struct {
	Keys      []PublicKey
	Threshold int
	Origin    string
	Channel   string
	Target    string // what the host calls itself
}

// Verify checks everything about a pointer that does not depend on time or
// on what the host did before: signatures, origin, channel, proof, target.
func (p *Pointer) Verify(t Trust) (*Head, *Entry, error) {
	h, err := VerifyHead(p.Head, t)
	if err != nil {
		return nil, nil, err
	}
	if err := tlog.CheckRecord(p.Proof, h.Targets.Count, tlog.Hash(h.Targets.Root), p.Index, tlog.RecordHash(p.Entry)); err != nil {
		return nil, nil, fmt.Errorf("the entry is not part of the release: %w", err)
	}
	e, err := ParseEntry(p.Entry)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case e.Target == Everyone && h.Targets.Count == 1:
	case e.Target == Everyone:
		return nil, nil, fmt.Errorf("the entry for everyone is one of %d: such a release is not valid", h.Targets.Count)
	case e.Target != t.Target:
		return nil, nil, fmt.Errorf("the entry is for %q, this host is %q", e.Target, t.Target)
	}
	return h, e, nil
}

// VerifyHead checks signatures, origin and channel.
func VerifyHead(env *Envelope, t Trust) (*Head, error) {
	if env == nil {
		return nil, errors.New("there is no head")
	}
	payload, err := env.Open(HeadKind, t.Keys, t.Threshold)
	if err != nil {
		return nil, err
	}
	h, err := ParseHead(payload)
	if err != nil {
		return nil, err
	}
	if h.Origin != t.Origin {
		return nil, fmt.Errorf("the release is of %q, this host follows %q", h.Origin, t.Origin)
	}
	if h.Channel != t.Channel {
		return nil, fmt.Errorf("the release is of the channel %q, this host follows %q", h.Channel, t.Channel)
	}
	return h, nil
}

// treeHashes builds the tree of RFC 6962, section 2.1, over the leaves.
func treeHashes(leaves [][]byte) (tlog.HashReader, error) {
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, 0, len(indexes))
		for _, i := range indexes {
			if i < 0 || i >= int64(len(stored)) {
				return nil, fmt.Errorf("no hash %d in the tree", i)
			}
			out = append(out, stored[i])
		}
		return out, nil
	})
	for i, leaf := range leaves {
		hashes, err := tlog.StoredHashes(int64(i), leaf, reader)
		if err != nil {
			return nil, err
		}
		stored = append(stored, hashes...)
	}
	return reader, nil
}

func treeRoot(leaves [][]byte) (Digest, error) {
	if len(leaves) == 0 {
		return Digest{}, errors.New("a release needs at least one target")
	}
	if len(leaves) > MaxTargets {
		return Digest{}, fmt.Errorf("%d targets, at most %d", len(leaves), MaxTargets)
	}
	hashes, err := treeHashes(leaves)
	if err != nil {
		return Digest{}, err
	}
	root, err := tlog.TreeHash(int64(len(leaves)), hashes)
	return Digest(root), err
}
