package dump

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"narwharf/cache/nar"
)

// Tree is what the walk of Measure has found: every entry with its place in the NAR, but none of
// the bodies. It takes about 100 bytes per entry, holds nothing open, and may be used by many at
// once.
type Tree struct {
	above *folder
	path  string // in the file system
	root  *nar.Node
	size  int64
}

// Measure walks the tree at root without opening its files and computes the NAR that Write
// would write. What it refuses and how it fails is the same.
func Measure(ctx context.Context, root string) (*Tree, error) {
	return measureWith(ctx, root, nil)
}

func measureWith(ctx context.Context, root string, f *faults) (*Tree, error) {
	t := &Tree{above: outside(true, f), path: root, root: &nar.Node{}}
	m := measurer{ctx: ctx}
	var err error
	if t.size, err = m.node(outside(false, f), root, 0, t.root, 0, 0); err != nil {
		return nil, err
	}
	return t, nil
}

// Size is how many bytes the NAR has.
func (t *Tree) Size() int64 { return t.size }

// Listing is the NAR's listing, with the offsets of the bodies. It is the Tree's own and must not
// be changed.
func (t *Tree) Listing() *nar.Node { return t.root }

type measurer struct {
	ctx context.Context
	st  unix.Stat_t
	buf [16 << 10]byte
}

// node fills in what stands as name in f, whose part of the NAR starts at pos, and says where that
// ends.
func (m *measurer) node(f *folder, name string, typ nar.Type, n *nar.Node, pos int64, depth int) (int64, error) {
	if typ == 0 || typ == nar.Regular {
		if err := f.look(name, &m.st); err != nil {
			return 0, f.fail("lstat", name, err)
		}
		if typ = typeOf(uint32(m.st.Mode)); typ == 0 {
			return 0, f.refuse(name)
		}
	}
	n.Type = typ
	var err error
	switch typ {
	case nar.Regular:
		n.Size, n.Executable = m.st.Size, m.st.Mode&unix.S_IXUSR != 0
		n.Offset = pos + headSize(n, f.up == nil)
		if n.Size > nar.MaxSize-n.Offset {
			return 0, f.fail("dump", name, errors.New("so many bytes are not possible"))
		}
	case nar.Symlink:
		if n.Target, err = f.readlink(name); err != nil {
			return 0, err
		}
	case nar.Directory:
		if pos, err = m.dir(f, name, n, pos, depth); err != nil {
			return 0, err
		}
		return pos + tailSize(n, f.up == nil), nil
	}
	return pos + headSize(n, f.up == nil) + n.Size + tailSize(n, f.up == nil), nil
}

func (m *measurer) dir(f *folder, name string, n *nar.Node, pos int64, depth int) (int64, error) {
	if err := m.ctx.Err(); err != nil {
		return 0, err
	}
	sub, err := f.open(name)
	if err != nil {
		return 0, err
	}
	defer sub.release()
	list, err := sub.list(m.buf[:])
	if err != nil {
		return 0, err
	}
	if len(list) > 0 {
		if depth == nar.MaxDepth-1 {
			return 0, sub.tooDeep(list[0].name)
		}
		n.Entries = make([]nar.Node, len(list))
	}
	pos += headSize(n, f.up == nil)
	for i, e := range list {
		n.Entries[i].Name = e.name
		if pos, err = m.node(sub, e.name, e.typ, &n.Entries[i], pos, depth+1); err != nil {
			return 0, err
		}
	}
	return pos, nil
}

// headSize is how many bytes of the NAR stand before a node's body or entries, its name included.
// It is reckoned, since a range goes through all nodes before it.
func headSize(n *nar.Node, root bool) int64 {
	size := len(nar.TagBegin)
	if !root {
		size = len(nar.TagEntry) + stringSize(n.Name) + len(nar.TagNode)
	}
	switch n.Type {
	case nar.Directory:
		size += len(nar.TagDirectory)
	case nar.Symlink:
		size += len(nar.TagSymlink) + len(nar.TagTarget) + stringSize(n.Target)
	case nar.Regular:
		size += len(nar.TagRegular) + len(nar.TagContents) + 8
		if n.Executable {
			size += len(nar.TagExecutable) + len(nar.TagNoValue)
		}
	}
	return int64(size)
}

func stringSize(s string) int { return 8 + len(s) + nar.Padding(int64(len(s))) }

// tailSize is how many stand after them.
func tailSize(n *nar.Node, root bool) int64 { return int64(len(tail(root)) + nar.Padding(n.Size)) }

// WriteRange writes the bytes [from, to) of the NAR to w and returns how many w took. Nothing that
// lies before them is opened or read, and nothing after, save for the rest of a small file and what
// the kernel reads ahead. Writing is done as in Write, and so are the errors; a root that is
// gone has changed.
func (t *Tree) WriteRange(ctx context.Context, w io.Writer, from, to int64) (int64, error) {
	if from < 0 || from > to || to > t.size {
		return 0, fmt.Errorf("bytes [%d, %d) of a nar of %d bytes do not exist", from, to, t.size)
	}
	if from == to {
		return 0, nil
	}
	s := newSender(ctx, w, from, to)
	err := s.run(&rerun{tree: t, from: from, to: to})
	if err == nil && s.sent < to-from {
		err = io.ErrShortWrite // cannot happen while both agree on all sizes
	}
	return s.sent, err
}
