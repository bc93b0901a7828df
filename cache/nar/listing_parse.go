package nar

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// ParseListing reads a .ls document of any Nix (see AppendJSON for how they differ). It holds it
// to all that a listing of a real NAR fulfils: version 1, known types, each with all of its keys
// and none of another's, names and targets that a NAR can hold, no key twice, UTF-8, nothing
// after the end. The order of keys is free and keys it does not know are skipped. What it cannot
// know is whether sizes and offsets are those of some NAR: to see that, compare with List.
func ParseListing(text []byte) (*Node, error) {
	p := listingParser{text: text}
	if !utf8.Valid(text) {
		for p.pos < len(text) { // where?
			r, size := utf8.DecodeRune(text[p.pos:])
			if r == utf8.RuneError && size == 1 {
				break
			}
			p.pos += size
		}
		return nil, p.fail("this is not UTF-8")
	}
	root, err := p.document()
	if err != nil {
		return nil, err
	}
	return &root, nil
}

// listingParser walks the text once. All parts of it return the first error.
type listingParser struct {
	text []byte
	pos  int
}

func (p *listingParser) document() (root Node, err error) {
	var hasRoot, hasVersion bool
	err = p.object(func(key []byte) error {
		switch {
		case string(key) == "root":
			if hasRoot {
				return p.fail("the key %q stands twice", key)
			}
			hasRoot = true
			root, err = p.node(0)
			return err
		case string(key) == "version":
			if hasVersion {
				return p.fail("the key %q stands twice", key)
			}
			hasVersion = true
			if v, err := p.integer(); err != nil {
				return err
			} else if v != 1 {
				return p.fail("version %d is not known, only 1 is", v)
			}
			return nil
		}
		return p.skip(0)
	})
	switch {
	case err != nil:
	case !hasVersion:
		err = p.fail(`the key "version" is missing`)
	case !hasRoot:
		err = p.fail(`the key "root" is missing`)
	default:
		if p.space(); p.pos < len(p.text) {
			err = p.fail("there is more after the end of the listing")
		}
	}
	return root, err
}

// The keys of a node, as bits of the set that was seen.
const (
	keyType = 1 << iota
	keyExecutable
	keySize
	keyOffset
	keyTarget
	keyEntries
)

// nodeKeys are their names, in the order of the bits.
var nodeKeys = [...]string{"type", "executable", "size", "narOffset", "target", "entries"}

// nodeKey is the bit of a key, or 0 if it is not known.
func nodeKey(key []byte) uint {
	for i, name := range nodeKeys {
		if string(key) == name {
			return 1 << i
		}
	}
	return 0
}

func (p *listingParser) node(depth int) (n Node, err error) {
	if depth == MaxDepth {
		return n, p.fail("it is %d directories deep: nix accepts at most %d", depth, MaxDepth-1)
	}
	var seen uint
	err = p.object(func(key []byte) (err error) {
		bit := nodeKey(key)
		if seen&bit != 0 {
			return p.fail("the key %q stands twice", key)
		}
		seen |= bit
		switch bit {
		case keyType:
			n.Type, err = p.typ()
		case keyExecutable:
			n.Executable, err = p.boolean()
		case keySize:
			n.Size, err = p.integer()
		case keyOffset:
			n.Offset, err = p.integer()
		case keyTarget:
			if n.Target, err = p.str(); err == nil {
				if problem := badTarget(n.Target); problem != "" {
					err = p.fail("%s", problem)
				}
			}
		case keyEntries:
			n.Entries, err = p.entries(depth + 1)
		default:
			err = p.skip(0)
		}
		return err
	})
	if err != nil {
		return n, err
	}
	var must, may uint
	switch n.Type {
	case Regular:
		must, may = keySize, keyOffset|keyExecutable
	case Directory:
		must = keyEntries
	case Symlink:
		must = keyTarget
	default:
		return n, p.fail(`a node without the key "type"`)
	}
	must |= keyType
	if seen&must == must && seen&^(must|may) == 0 {
		return n, nil
	}
	for i, key := range nodeKeys {
		switch bit := uint(1) << i; {
		case must&^seen&bit != 0:
			return n, p.fail("a node of type %s without the key %q", n.Type, key)
		case seen&^(must|may)&bit != 0:
			return n, p.fail("a node of type %s with the key %q", n.Type, key)
		}
	}
	return n, nil
}

func (p *listingParser) entries(depth int) ([]Node, error) {
	var list []Node
	err := p.object(func(key []byte) error {
		name := string(key)
		if problem := badName(name); problem != "" {
			return p.fail("%s", problem)
		}
		n, err := p.node(depth)
		n.Name = name
		list = append(list, n)
		return err
	})
	if err != nil {
		return nil, err
	}
	byName := func(a, b Node) int { return strings.Compare(a.Name, b.Name) }
	if !slices.IsSortedFunc(list, byName) {
		slices.SortFunc(list, byName)
	}
	for i := 1; i < len(list); i++ {
		if list[i-1].Name == list[i].Name {
			return nil, p.fail("the name %s stands twice in one directory", quote(list[i].Name, 240))
		}
	}
	return slices.Clip(list), nil
}

func (p *listingParser) typ() (Type, error) {
	word, err := p.raw()
	if err != nil {
		return 0, err
	}
	for t := Regular; t <= Symlink; t++ {
		if string(word) == t.String() {
			return t, nil
		}
	}
	return 0, p.fail("the type %s is not known", quote(string(word), 240))
}

// integer reads a number that fits an int64 and is not negative.
func (p *listingParser) integer() (int64, error) {
	p.space()
	start := p.pos
	var v int64
	for p.pos < len(p.text) && '0' <= p.text[p.pos] && p.text[p.pos] <= '9' {
		d := int64(p.text[p.pos] - '0')
		if v > (math.MaxInt64-d)/10 {
			return 0, p.fail("a number is too large")
		}
		v = v*10 + d
		p.pos++
	}
	if p.pos == start || p.text[start] == '0' && p.pos > start+1 {
		return 0, p.fail("a whole number that is not negative is expected")
	}
	if p.pos < len(p.text) && strings.IndexByte(".eE", p.text[p.pos]) >= 0 {
		return 0, p.fail("a whole number is expected")
	}
	return v, nil
}

func (p *listingParser) boolean() (bool, error) {
	p.space()
	switch {
	case p.word("true"):
		return true, nil
	case p.word("false"):
		return false, nil
	}
	return false, p.fail("true or false is expected")
}

func (p *listingParser) fail(format string, args ...any) error {
	return fmt.Errorf("malformed nar listing at byte %d: %s", p.pos, fmt.Sprintf(format, args...))
}
