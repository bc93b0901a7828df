package nar

import (
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
)

// Check reads r to its end and reports whether it holds exactly one well-formed NAR, whose size
// it returns. File bodies are skipped, at the speed of r. Errors are those of Reader.Next; size is
// then how far the NAR was good.
func Check(r io.Reader) (size int64, err error) { return CheckTapped(r, nil) }

// CheckTapped is Check of a NAR whose bytes go to tap, too.
func CheckTapped(r io.Reader, tap Tap) (size int64, err error) {
	rd := borrowReader(r)
	defer returnReader(rd)
	rd.tap = tap
	defer rd.compact() // before somebody else borrows it: what is lent stays the tap's
	for {
		if err := rd.step(); err != nil {
			if err == io.EOF {
				err = nil
			}
			return rd.Offset(), err
		}
	}
}

// readers saves the buffer of a Reader: the check of a small NAR takes 0.1 µs with and 5.6 µs
// without (BenchmarkCheck/ours/tiny).
var readers = sync.Pool{New: func() any { return NewReader(nil) }}

func borrowReader(src io.Reader) *Reader {
	rd := readers.Get().(*Reader)
	rd.Reset(src)
	return rd
}

func returnReader(rd *Reader) {
	rd.Reset(nil) // keep nothing of the caller's alive
	readers.Put(rd)
}

// Node is one file, directory or link of a listing, with all that is beneath it.
type Node struct {
	// Name is the name in the directory above; "" for the root.
	Name string
	Type Type
	// Executable, Size, Target and Offset are as in Entry. Offset is 0 in a parsed listing that
	// does not give it.
	Executable bool
	Size       int64
	Target     string
	Offset     int64
	// Entries are a directory's, ascending by name byte by byte.
	Entries []Node
}

// ErrTooMany is returned for a NAR with more entries than List may return.
var ErrTooMany = errors.New("the nar has too many entries to be listed")

// List reads r as Check does and returns what the NAR holds, without the bodies: at most
// so many entries.
func List(r io.Reader, most int) (*Node, error) {
	rd := borrowReader(r)
	defer returnReader(rd)
	// Nodes whose directory is still open wait on one stack; when a directory ends, its entries
	// leave the top of it for a slice of just their size.
	var (
		stack []Node
		first [MaxDepth]int // where the entries of each open directory start
		depth int
	)
	shut := func() {
		depth--
		entries := stack[first[depth]:]
		dir := &stack[first[depth]-1]
		if len(entries) > 0 {
			dir.Entries = append(make([]Node, 0, len(entries)), entries...)
		}
		clear(entries)
		stack = stack[:first[depth]]
	}
	for n := 0; ; n++ {
		if n > most {
			return nil, ErrTooMany
		}
		err := rd.step()
		if err != nil && err != io.EOF {
			return nil, err
		}
		now := rd.depth
		if rd.node.typ == Directory && err == nil {
			now--
		}
		for depth > now {
			shut()
		}
		if err == io.EOF {
			root := stack[0]
			return &root, nil
		}
		n := Node{
			Type:       rd.node.typ,
			Executable: rd.node.exec,
			Size:       rd.node.size,
			Target:     string(rd.node.target),
			Offset:     rd.node.offset,
		}
		if now > 0 {
			n.Name = string(rd.path[rd.pathLen-rd.dirs[now-1].last : rd.pathLen])
		}
		stack = append(stack, n)
		if n.Type == Directory {
			first[depth] = len(stack)
			depth++
		}
	}
}

// Lookup returns the node at path, written as in Entry.Path, or nil if there is none.
func (n *Node) Lookup(path string) *Node {
	for path != "" {
		name, rest, more := strings.Cut(path, "/")
		if more && rest == "" {
			return nil
		}
		i, ok := slices.BinarySearchFunc(n.Entries, name, func(e Node, name string) int { return strings.Compare(e.Name, name) })
		if !ok {
			return nil
		}
		n, path = &n.Entries[i], rest
	}
	return n
}
