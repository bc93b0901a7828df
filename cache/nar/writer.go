package nar

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"narwharf/cache/nar/grammar"
	"narwharf/narinfo/clip"
)

// Writer writes one NAR in the only form there is: what it has written is byte for byte what
// nix-store --dump prints for the same tree. Entries must come in the order of the archive, each
// directory before its entries, names ascending byte by byte. What no reader would accept is
// refused, and the first error is the last: every later call returns it again. A Writer is not
// for concurrent use.
type Writer struct {
	w    *bufio.Writer
	err  error // sticky
	root Type  // 0 before the root
	open []writerDir
}

type writerDir struct{ path, last string } // last is the name of its latest entry

var errClosed = errors.New("write nar: it is closed")

// NewWriter returns a Writer to w. Nothing is written before the buffer is full or Close is
// called.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: bufio.NewWriterSize(w, bufferSize)}
}

// Add writes an entry. The body of a regular file must have exactly e.Size bytes; no other type
// has one, and an empty one may be nil. e.Offset is ignored; fields that do not belong to e.Type must be zero.
func (w *Writer) Add(e *Entry, body io.Reader) error {
	if w.err != nil {
		return w.err
	}
	problem := e.problem()
	if problem == "" {
		problem = w.place(e.Path)
	}
	if problem == "" {
		w.root = max(w.root, e.Type)
		problem, w.err = w.node(e, body)
	}
	if problem != "" {
		w.err = fmt.Errorf("write nar entry %s: %s", clip.Quote(e.Path, 240), problem)
	}
	return w.err
}

// problem says what is wrong with the entry taken alone, or "".
func (e *Entry) problem() string {
	switch e.Type {
	case Regular:
		if e.Size < 0 || e.Size > grammar.MaxSize {
			return fmt.Sprintf("a body of %d bytes is not possible", e.Size)
		}
		if e.Target != "" {
			return "a regular file has no target"
		}
		return ""
	case Symlink:
		if problem := grammar.BadTarget(e.Target); problem != "" {
			return problem
		}
	case Directory:
		if e.Target != "" {
			return "a directory has no target"
		}
	default:
		return e.Type.String() + " is not a type of file"
	}
	if e.Size != 0 || e.Executable {
		return "only a regular file has a size and can be executable"
	}
	return ""
}

// place ends the directories that must end before the entry at path and writes all of it that
// comes before its type, or says why it cannot stand here.
func (w *Writer) place(path string) string {
	if w.root == 0 {
		if path != "" {
			return "the first entry must be the root, whose path is empty"
		}
		w.put(grammar.Begin)
		return ""
	}
	if path == "" {
		return "there is a root already"
	}
	slash := strings.LastIndexByte(path, '/')
	parent, name := path[:max(slash, 0)], path[slash+1:]
	if problem := grammar.BadName(name); problem != "" {
		return problem
	}
	if slash == 0 {
		return "a path has no slash at its start"
	}
	depth := len(w.open)
	for depth > 0 && w.open[depth-1].path != parent {
		depth--
	}
	if depth == 0 {
		return "the directory it lies in was not written, or is ended"
	}
	if depth == MaxDepth {
		return fmt.Sprintf("it lies %d directories deep: nix accepts at most %d", depth, MaxDepth-1)
	}
	switch last := w.open[depth-1].last; {
	case last == name:
		return "it was written already"
	case last > name:
		return fmt.Sprintf("it must come before %s: names ascend byte by byte", clip.Quote(last, 160))
	}
	w.leave(depth)
	w.open[depth-1].last = name
	w.put(grammar.EntryOpen)
	w.putString(name)
	w.put(grammar.EntryNode)
	return ""
}

// node writes the entry from its type on; a directory stays open.
func (w *Writer) node(e *Entry, body io.Reader) (problem string, err error) {
	switch e.Type {
	case Directory:
		w.put(grammar.Directory)
		w.open = append(w.open, writerDir{path: e.Path})
		return "", nil
	case Symlink:
		w.put(grammar.Symlink)
		w.put(grammar.Target)
		w.putString(e.Target)
	case Regular:
		w.put(grammar.Regular)
		if e.Executable {
			w.put(grammar.Executable)
			w.put(grammar.NoValue)
		}
		w.put(grammar.Contents)
		_, _ = w.w.Write(binary.LittleEndian.AppendUint64(nil, uint64(e.Size))) // its errors are sticky
		if problem, err = w.copy(body, e.Size); err != nil || problem != "" {
			return problem, err
		}
	}
	w.end(e.Path == "")
	return "", nil
}

// copy writes a body with its padding.
func (w *Writer) copy(body io.Reader, size int64) (problem string, err error) {
	n, err := io.CopyN(w.w, body, size)
	if err == io.EOF {
		return fmt.Sprintf("%d of its %d bytes are missing", size-n, size), nil
	}
	if err != nil {
		return "", err
	}
	if body == nil {
		return "", nil
	}
	if n, _ := io.CopyN(io.Discard, body, 1); n > 0 {
		return fmt.Sprintf("its body is longer than its %d bytes", size), nil
	}
	_, err = w.w.WriteString("\x00\x00\x00\x00\x00\x00\x00"[:grammar.Padding(size)])
	return "", err
}

// leave ends the directories beyond the given depth.
func (w *Writer) leave(depth int) {
	for len(w.open) > depth {
		w.open = w.open[:len(w.open)-1]
		w.end(len(w.open) == 0)
	}
}

// end writes the end of a node.
func (w *Writer) end(root bool) {
	if root {
		w.put(grammar.CloseOne)
	} else {
		w.put(grammar.CloseTwo)
	}
}

func (w *Writer) put(p grammar.Phrase) { _, _ = w.w.WriteString(p.Raw) } // its errors are sticky

func (w *Writer) putString(s string) {
	_, _ = w.w.Write(grammar.AppendString(w.w.AvailableBuffer(), s))
}

// Close ends the archive and writes what is in the buffer; it does not close the io.Writer below.
// A NAR without a root is an error.
func (w *Writer) Close() error {
	if w.err == errClosed {
		return nil
	}
	if w.err != nil {
		return w.err
	}
	if w.root == 0 {
		w.err = errors.New("write nar: it has no root")
		return w.err
	}
	w.leave(0)
	if w.err = w.w.Flush(); w.err != nil {
		return w.err
	}
	w.err = errClosed
	return nil
}
