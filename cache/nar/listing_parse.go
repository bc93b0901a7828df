package nar

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"narwharf/narinfo/clip"
)

// ParseListing reads a .ls document of any Nix (see AppendJSON for how they differ). It holds it
// to all that a listing of a real NAR fulfils: version 1, known types, each with all of its keys
// and none of another's, names and targets that a NAR can hold, no key twice, UTF-8, nothing
// after the end. The order of keys is free and keys it does not know are skipped. What it cannot
// know is whether sizes and offsets are those of some NAR: to see that, compare with List.
func ParseListing(text []byte) (*Node, error) { return parseListing(text, nil) }

// ParsePart is ParseListing for whoever wants one path of a large listing, written as in
// Entry.Path. What is neither on the way there nor directly in it is only skipped, which takes
// a seventh of the time; the directories are without it.
func ParsePart(text []byte, path string) (*Node, error) {
	way := []string{}
	if path != "" {
		way = strings.Split(path, "/")
	}
	return parseListing(text, way)
}

func parseListing(text []byte, way []string) (*Node, error) {
	p := listingParser{json.NewDecoder(bytes.NewReader(text))}
	p.UseNumber()
	root, err := p.document(way)
	if !utf8.Valid(text) { // the decoder would mend it
		err = errors.New("this is not UTF-8")
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("malformed nar listing at byte %d: %w", p.InputOffset(), err)
	}
	return &root, nil
}

// listingParser takes the text token by token: no key is lost, and a node is refused before the
// next one is read.
type listingParser struct{ *json.Decoder }

// document reads it all. way has the names that lead to what is wanted, nil if everything is.
func (p listingParser) document(way []string) (root Node, err error) {
	seen, err := p.object(func(key string) error {
		switch key {
		case "root":
			return p.node(&root, 0, way)
		case "version":
			if v, err := p.integer(); err != nil || v == 1 {
				return err
			}
			return errors.New("this version is not known, only 1 is")
		}
		return p.skip()
	})
	if err == nil {
		err = complete("listing", seen, []string{"root", "version"}, nil)
	}
	if err == nil {
		if _, end := p.Token(); end != io.EOF {
			err = errors.New("there is more after the end of the listing")
		}
	}
	return root, err
}

func (p listingParser) node(n *Node, depth int, way []string) error {
	if depth == MaxDepth {
		return fmt.Errorf("it is %d directories deep: nix accepts at most %d", depth, MaxDepth-1)
	}
	seen, err := p.object(func(key string) (err error) {
		switch key {
		case "type":
			n.Type, err = p.typ()
		case "executable":
			n.Executable, err = token[bool](p, "true or false")
		case "size":
			n.Size, err = p.integer()
		case "narOffset":
			n.Offset, err = p.integer()
		case "target":
			if n.Target, err = token[string](p, "a string"); err == nil {
				err = CheckTarget(n.Target)
			}
		case "entries":
			n.Entries, err = p.entries(depth+1, way)
		default:
			err = p.skip()
		}
		return err
	})
	if err != nil {
		return err
	}
	switch n.Type {
	case Regular:
		return complete("regular file", seen, []string{"size"}, []string{"target", "entries"})
	case Directory:
		return complete("directory", seen, []string{"entries"}, []string{"executable", "size", "narOffset", "target"})
	case Symlink:
		return complete("symlink", seen, []string{"target"}, []string{"executable", "size", "narOffset", "entries"})
	}
	return complete("node", seen, []string{"type"}, nil)
}

// nothing leads to nothing, since no name has a slash.
var nothing = []string{"/"}

func (p listingParser) entries(depth int, way []string) ([]Node, error) {
	var list []Node
	_, err := p.object(func(name string) error {
		below := way
		switch {
		case way == nil:
		case len(way) == 0:
			below = nothing
		case way[0] == name:
			below = way[1:]
		default:
			return p.skip()
		}
		if err := CheckName(name); err != nil {
			return err
		}
		list = append(list, Node{Name: name})
		return p.node(&list[len(list)-1], depth, below)
	})
	slices.SortFunc(list, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	return slices.Clip(list), err
}

func (p listingParser) typ() (Type, error) {
	word, err := token[string](p, "a string")
	for t := Regular; t <= Symlink; t++ {
		if word == t.String() {
			return t, nil
		}
	}
	if err == nil {
		err = fmt.Errorf("the type %s is not known", clip.Quote(word, 240))
	}
	return 0, err
}

// integer reads a number that fits an int64 and is not negative.
func (p listingParser) integer() (int64, error) {
	number, err := token[json.Number](p, "a number")
	if err != nil {
		return 0, err
	}
	v, err := strconv.ParseUint(number.String(), 10, 63)
	if err != nil {
		return 0, fmt.Errorf("%s is not a whole number from 0 to 2^63-1", clip.Quote(number.String(), 80))
	}
	return int64(v), nil
}

// skip reads any value and forgets it.
func (p listingParser) skip() error { return p.Decode(new(json.RawMessage)) }

// object reads an object and has value read the value of each key. It returns the keys.
func (p listingParser) object(value func(key string) error) (seen map[string]bool, err error) {
	open, err := token[json.Delim](p, "an object")
	if err == nil && open != '{' {
		err = errors.New("an object is expected")
	}
	for seen = map[string]bool{}; err == nil; {
		t, next := p.Token()
		key, isKey := t.(string)
		switch {
		case next != nil:
			err = next
		case !isKey: // the end
			return seen, nil
		case seen[key]:
			err = fmt.Errorf("the key %s stands twice", clip.Quote(key, 240))
		default:
			seen[key] = true
			err = value(key)
		}
	}
	return nil, err
}

// token reads a value that is no object or array, of which T is the type.
func token[T json.Token](p listingParser, what string) (T, error) {
	t, err := p.Token()
	v, ok := t.(T)
	if err == nil && !ok {
		err = fmt.Errorf("%s is expected", what)
	}
	return v, err
}

// complete looks for keys that must or must not be there.
func complete(what string, seen map[string]bool, must, never []string) error {
	for _, key := range must {
		if !seen[key] {
			return fmt.Errorf("a %s without the key %q", what, key)
		}
	}
	for _, key := range never {
		if seen[key] {
			return fmt.Errorf("a %s with the key %q", what, key)
		}
	}
	return nil
}
