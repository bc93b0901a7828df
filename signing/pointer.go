package signing

import (
	"errors"
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"

	"narwharf/signing/ijson"
	"narwharf/signing/merkle"
)

// A Pointer is what one host is sent: the head, its entry, and the proof that
// the head commits to it.
type Pointer struct {
	Head  *Envelope        `json:"head"`
	Entry []byte           `json:"entry"` // base64 in JSON
	Index int64            `json:"index"`
	Proof tlog.RecordProof `json:"proof"` // base64 hashes, from the leaf upwards
}

// maxPointer bounds the JSON of a pointer in bytes.
const maxPointer = maxEnvelope + 16<<10

// maxProof is the depth of the tree over MaxTargets leaves.
var maxProof = bits.Len(MaxTargets - 1)

// UnmarshalJSON reads a pointer strictly; it verifies nothing.
func (p *Pointer) UnmarshalJSON(text []byte) error {
	if len(text) > maxPointer {
		return fmt.Errorf("pointer: %d bytes, at most %d", len(text), maxPointer)
	}
	o, err := ijson.Parse(text)
	if err != nil {
		return fmt.Errorf("pointer: %w", err)
	}
	r := ijson.Read(o, "head", "entry", "index", "proof")
	n := Pointer{Head: new(Envelope), Entry: ijson.Text(r, "entry", ijson.Base64), Index: r.Int("index"), Proof: tlog.RecordProof{}}
	path := r.Array("proof")
	if len(path) > maxProof {
		r.Fail("proof: %d hashes, at most %d", len(path), maxProof)
	}
	for i, item := range path {
		s, _ := item.(string)
		hash, err := ijson.Base64(s)
		if err != nil || len(hash) != tlog.HashSize {
			r.Fail("proof: hash %d is not base64 of %d bytes", i+1, tlog.HashSize)
			break
		}
		n.Proof = append(n.Proof, tlog.Hash(hash))
	}
	head := r.Sub("head")
	if r.Err == nil {
		r.Err = n.Head.fromJSON(head)
	}
	if r.Err != nil {
		return fmt.Errorf("pointer: %w", r.Err)
	}
	*p = n
	return nil
}

// Pointer cuts the part for one entry out of a release. The hashes are
// computed once for all of them. It may be called by several goroutines at
// once.
func (r *Release) Pointer(index int) (*Pointer, error) {
	if index < 0 || index >= len(r.Entries) {
		return nil, fmt.Errorf("no entry %d in a release of %d", index, len(r.Entries))
	}
	trees.Lock()
	if !r.tree.IsOf(r.Entries, index) {
		r.tree = merkle.New(r.Entries)
	}
	tree := r.tree
	trees.Unlock()
	return &Pointer{Head: r.Head, Entry: r.Entries[index], Index: int64(index), Proof: tree.Proof(index)}, nil
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
//
// A proof cannot show that no other entry has the same target; that is for
// those who sign to see (Release.Check), and why they sign.
func (p *Pointer) Verify(t Trust) (*Head, *Entry, error) {
	if p == nil {
		return nil, nil, errors.New("there is no pointer")
	}
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
