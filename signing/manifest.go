package signing

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"narwharf/narinfo"
	"narwharf/signing/ijson"
)

// A Manifest lists a closure, one line a path, sorted by path, each line
// Nix's own fingerprint of the path and a newline:
//
//	1;/nix/store/…;sha256:<nix32>;<NarSize>;<references>
//
// Its SHA-256 in an entry binds every byte that a host will run: who checks
// it needs to trust neither the cache nor the cache's key.
type Manifest struct {
	StoreDir string
	Lines    []Line // sorted by Path
}

// A Line is one path of a closure.
type Line struct {
	Path       narinfo.Path
	NarHash    narinfo.Hash
	NarSize    int64
	References []narinfo.Path // sorted, unique
}

// MaxManifest bounds the text of a manifest in bytes.
const MaxManifest = 64 << 20

// maxNars bounds the sum of all NarSizes, so that nobody's sum overflows.
const maxNars = ijson.MaxNumber

// NewManifest makes the manifest of a closure. It must be complete: every
// reference of a path is a path of it. The infos are not changed.
func NewManifest(infos []*narinfo.Info) (*Manifest, error) {
	if len(infos) == 0 {
		return nil, errors.New("manifest: the closure is empty")
	}
	m := &Manifest{StoreDir: infos[0].StoreDir, Lines: make([]Line, 0, len(infos))}
	for _, i := range infos {
		if i.StoreDir != m.StoreDir {
			return nil, fmt.Errorf("manifest: paths of %s and %s", m.StoreDir, i.StoreDir)
		}
		m.Lines = append(m.Lines, LineOf(i))
	}
	slices.SortFunc(m.Lines, func(a, b Line) int { return strings.Compare(string(a.Path), string(b.Path)) })
	if err := m.check(); err != nil {
		return nil, err
	}
	if len(m.Text()) > MaxManifest {
		return nil, fmt.Errorf("manifest: its text has more than %d bytes", MaxManifest)
	}
	return m, nil
}

// check holds m to all that a reader of its text will hold it to.
func (m *Manifest) check() error {
	if err := cmp.Or(checkStoreDir(m.StoreDir), m.checkOrder()); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	var nars int64
	for _, l := range m.Lines {
		if err := m.checkLine(l); err != nil {
			return fmt.Errorf("manifest: %w", err)
		}
		if nars += l.NarSize; nars > maxNars {
			return errors.New("manifest: the NARs are together larger than 2^53-1 bytes")
		}
	}
	return nil
}

// checkOrder sees to the order that Find relies on. In it, paths of one hash
// stand side by side.
func (m *Manifest) checkOrder() error {
	for i := 1; i < len(m.Lines); i++ {
		before, path := m.Lines[i-1].Path, m.Lines[i].Path
		if before >= path {
			return fmt.Errorf("%s is there twice or out of order", path)
		}
		if before.Hash() == path.Hash() {
			return fmt.Errorf("%s and %s have one hash, no cache can hold both", before, path)
		}
	}
	return nil
}

func (m *Manifest) checkLine(l Line) error {
	if _, err := narinfo.ParseBase(string(l.Path)); err != nil {
		return err
	}
	if l.NarHash.IsZero() || l.NarSize < 1 || l.NarSize > maxNars {
		return fmt.Errorf("%s has no NarHash, or a NarSize of %d", l.Path, l.NarSize)
	}
	for n, ref := range l.References {
		if n > 0 && l.References[n-1] >= ref {
			return fmt.Errorf("the references of %s are not sorted and unique", l.Path)
		}
		if _, ok := m.Find(ref); !ok {
			return fmt.Errorf("%s refers to %s, which is not listed", l.Path, ref)
		}
	}
	return nil
}

// Find returns the line of a path.
func (m *Manifest) Find(p narinfo.Path) (Line, bool) {
	i, ok := slices.BinarySearchFunc(m.Lines, p, func(l Line, p narinfo.Path) int { return strings.Compare(string(l.Path), string(p)) })
	if !ok {
		return Line{}, false
	}
	return m.Lines[i], true
}

// Text is what is hashed and stored.
func (m *Manifest) Text() []byte {
	var b []byte
	for _, l := range m.Lines {
		b = append(m.appendLine(b, l), '\n')
	}
	return b
}

func (m *Manifest) appendLine(b []byte, l Line) []byte {
	i := narinfo.Info{StoreDir: m.StoreDir, Path: l.Path, NarHash: l.NarHash, NarSize: l.NarSize, References: l.References}
	return i.AppendFingerprint(b)
}

// Digest is the SHA-256 of Text.
func (m *Manifest) Digest() Digest { return sha256.Sum256(m.Text()) }

// Equal tells whether a path is the same in both.
func (l Line) Equal(o Line) bool {
	return l.Path == o.Path && l.NarHash == o.NarHash && l.NarSize == o.NarSize && slices.Equal(l.References, o.References)
}

// LineOf is the line that a path of a cache or a store would have.
func LineOf(i *narinfo.Info) Line {
	refs := slices.Clone(i.References)
	slices.Sort(refs)
	return Line{i.Path, i.NarHash, i.NarSize, slices.Compact(refs)}
}

// ParseManifest reads and checks a manifest. Text of another digest is
// refused; what is accepted is byte for byte what Text returns. The closure
// must have root in it and nothing that root does not need.
func ParseManifest(text []byte, digest Digest, root narinfo.Path) (*Manifest, error) {
	if got := Digest(sha256.Sum256(text)); got != digest {
		return nil, fmt.Errorf("manifest: the text has the digest %s, not %s", got, digest)
	}
	m, err := ReadManifest(text)
	if err == nil {
		err = m.rootedAt(root)
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

// ReadManifest is ParseManifest for a text of which nothing is known.
func ReadManifest(text []byte) (*Manifest, error) {
	if len(text) == 0 || len(text) > MaxManifest {
		return nil, fmt.Errorf("manifest: %d bytes, it should have 1 to %d", len(text), MaxManifest)
	}
	m := new(Manifest)
	for line := range bytes.Lines(text) {
		if err := m.parseLine(string(line)); err != nil {
			return nil, fmt.Errorf("manifest line %d: %w", len(m.Lines)+1, err)
		}
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	if !bytes.Equal(m.Text(), text) {
		return nil, errors.New("manifest: not in the one form that it has")
	}
	return m, nil
}

func (m *Manifest) parseLine(line string) error {
	line, ok := strings.CutSuffix(line, "\n")
	if !ok {
		return errors.New("no newline at its end")
	}
	fields := strings.SplitN(line, ";", 6)
	if len(fields) != 5 || fields[0] != "1" {
		return errors.New("not of the form 1;path;hash;size;references")
	}
	if m.StoreDir == "" {
		m.StoreDir = storeDirOf(fields[1])
	}
	var l Line
	var err error
	if l.Path, err = narinfo.ParsePath(m.StoreDir, fields[1]); err != nil {
		return err
	}
	if l.NarHash, err = narinfo.ParseHash(fields[2]); err != nil {
		return err
	}
	if l.NarSize, err = strconv.ParseInt(fields[3], 10, 64); err != nil || l.NarSize <= 0 {
		return fmt.Errorf("%q is not a size", clipped(fields[3]))
	}
	if fields[4] != "" {
		for ref := range strings.SplitSeq(fields[4], ",") {
			p, err := narinfo.ParsePath(m.StoreDir, ref)
			if err != nil {
				return err
			}
			l.References = append(l.References, p)
		}
	}
	m.Lines = append(m.Lines, l)
	return nil
}

// rootedAt checks that the manifest is the closure of root, whole and alone.
func (m *Manifest) rootedAt(root narinfo.Path) error {
	seen := map[narinfo.Path]bool{root: true}
	todo := []narinfo.Path{root}
	for len(todo) > 0 {
		p := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		l, ok := m.Find(p)
		if !ok {
			return fmt.Errorf("manifest: %s is not listed", p)
		}
		for _, ref := range l.References {
			if !seen[ref] {
				seen[ref] = true
				todo = append(todo, ref)
			}
		}
	}
	if len(seen) != len(m.Lines) {
		return fmt.Errorf("manifest: %d paths are listed, %s needs %d", len(m.Lines), root, len(seen))
	}
	return nil
}
