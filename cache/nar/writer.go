package nar

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"narwharf/narinfo/clip"
)

// headRoom is more than everything that can stand between two bodies: the ends of MaxDepth
// directories, a name and a target.
const headRoom = 8 << 10

// Writer writes one NAR in the only form there is: what it has written is byte for byte what
// nix-store --dump prints for the same tree. Entries must come in the order of the archive, each
// directory before its entries, names ascending byte by byte. What no reader would accept is
// refused, and the first error is the last: every later call returns it again. A Writer is not
// for concurrent use.
type Writer struct {
	w   io.Writer
	err error // sticky

	buf     []byte // fixed capacity
	flushed int64

	// as in Reader
	path  []byte
	dirs  [MaxDepth]openDir
	depth int

	typ    Type // of the current node; 0 before the root
	size   int64
	left   int64 // bytes of the body still to come
	closed bool
}

// NewWriter returns a Writer to w. Nothing is written before the buffer is full or Close is
// called.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: w, buf: make([]byte, 0, bufferSize)}
}

// Offset is the number of bytes of the NAR so far, those still in the buffer included: after
// WriteEntry of a regular file the offset of its body, after Close the size of the NAR.
func (w *Writer) Offset() int64 { return w.flushed + int64(len(w.buf)) }

// WriteEntry starts an entry. A regular file's body, of exactly e.Size bytes, must follow by
// Write or ReadFrom before the next entry. e.Offset is ignored; fields that do not belong to
// e.Type must be zero.
func (w *Writer) WriteEntry(e *Entry) error {
	if err := w.ready(); err != nil {
		return err
	}
	problem := e.problem()
	if problem == "" {
		problem = w.place(e.Path)
	}
	if problem != "" {
		w.err = fmt.Errorf("write nar entry %s: %s", clip.Quote(e.Path, 240), problem)
		return w.err
	}
	w.typ, w.size, w.left = e.Type, e.Size, e.Size
	switch e.Type {
	case Regular:
		w.buf = append(w.buf, regular.raw...)
		if e.Executable {
			w.buf = append(w.buf, executable.raw...)
			w.buf = append(w.buf, noValue.raw...)
		}
		w.buf = append(w.buf, contents.raw...)
		w.buf = binary.LittleEndian.AppendUint64(w.buf, uint64(e.Size))
	case Directory:
		w.buf = append(w.buf, directory.raw...)
		w.dirs[w.depth] = openDir{end: len(w.path)}
		w.depth++
	case Symlink:
		w.buf = append(w.buf, symlink.raw...)
		w.buf = append(w.buf, target.raw...)
		w.buf = appendString(w.buf, e.Target)
	}
	return nil
}

// problem says what is wrong with the entry taken alone, or "".
func (e *Entry) problem() string {
	switch e.Type {
	case Regular:
		if e.Size < 0 || e.Size > maxSize {
			return fmt.Sprintf("a body of %d bytes is not possible", e.Size)
		}
		if e.Target != "" {
			return "a regular file has no target"
		}
		return ""
	case Symlink:
		if problem := badTarget(e.Target); problem != "" {
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

// place ends what must end before the entry at path and writes all of it that comes before its
// type, or says why it cannot stand here.
func (w *Writer) place(path string) string {
	if w.typ == 0 {
		if path != "" {
			return "the first entry must be the root, whose path is empty"
		}
		w.buf = append(w.buf, begin.raw...)
		return ""
	}
	if path == "" {
		return "there is a root already"
	}
	slash := strings.LastIndexByte(path, '/')
	parent, name := path[:max(slash, 0)], path[slash+1:]
	if problem := badName(name); problem != "" {
		return problem
	}
	if slash == 0 {
		return "a path has no slash at its start"
	}
	depth := w.depth
	for depth > 0 && string(w.path[:w.dirs[depth-1].end]) != parent {
		depth--
	}
	if depth == 0 {
		return "the directory it lies in was not written, or is ended"
	}
	if depth == MaxDepth {
		return fmt.Sprintf("it lies %d directories deep: nix accepts at most %d", depth, MaxDepth-1)
	}
	dir := &w.dirs[depth-1]
	start := slash + 1
	if dir.last > 0 {
		switch last := string(w.path[start : start+dir.last]); {
		case last == name:
			return "it was written already"
		case last > name:
			return fmt.Sprintf("it must come before %s: names ascend byte by byte", clip.Quote(last, 160))
		}
	}
	w.endNodes(depth)
	dir.last = len(name)
	w.path = append(w.path[:0], path...)
	w.buf = append(w.buf, entryOpen.raw...)
	w.buf = appendString(w.buf, name)
	w.buf = append(w.buf, entryNode.raw...)
	return ""
}

// endNodes ends the current node and the directories beyond the given depth.
func (w *Writer) endNodes(depth int) {
	if w.typ != Directory {
		w.buf = append(w.buf, "\x00\x00\x00\x00\x00\x00\x00"[:padding(w.size)]...)
		if w.depth == 0 {
			w.buf = append(w.buf, closeOne.raw...)
		} else {
			w.buf = append(w.buf, closeTwo.raw...)
		}
	}
	for w.depth > depth {
		w.depth--
		if w.depth == 0 {
			w.buf = append(w.buf, closeOne.raw...)
		} else {
			w.buf = append(w.buf, closeTwo.raw...)
		}
	}
}

// ready makes sure that an entry, or the end, may follow and that there is room for it.
func (w *Writer) ready() error {
	if w.err != nil {
		return w.err
	}
	if w.closed {
		return errors.New("write nar: it is closed")
	}
	if w.left > 0 {
		w.err = fmt.Errorf("write nar: %d of the %d bytes of %s are missing", w.left, w.size, clip.Quote(string(w.path), 240))
		return w.err
	}
	if cap(w.buf)-len(w.buf) < headRoom {
		return w.flush()
	}
	return nil
}

func (w *Writer) flush() error {
	n, err := w.w.Write(w.buf)
	if err == nil && n < len(w.buf) {
		err = io.ErrShortWrite
	}
	w.flushed += int64(len(w.buf))
	w.buf = w.buf[:0]
	if err != nil {
		w.err = err
	}
	return err
}

// Write writes to the body of the current entry. More than the entry's Size is refused whole.
func (w *Writer) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if int64(len(p)) > w.left {
		return 0, w.tooLong()
	}
	if len(p) > cap(w.buf)-len(w.buf) {
		if err := w.flush(); err != nil {
			return 0, err
		}
		if len(p) >= cap(w.buf) { // no use in a copy
			n, err := w.w.Write(p)
			if err == nil && n < len(p) {
				err = io.ErrShortWrite
			}
			w.flushed += int64(n)
			w.left -= int64(n)
			w.err = err
			return n, err
		}
	}
	w.buf = append(w.buf, p...)
	w.left -= int64(len(p))
	return len(p), nil
}

// ReadFrom writes all that r gives to the body of the current entry, read straight into the
// Writer's buffer; io.Copy uses it. r giving more than the entry's Size is an error.
func (w *Writer) ReadFrom(r io.Reader) (int64, error) {
	var n int64
	for empty := 0; ; {
		if w.err != nil {
			return n, w.err
		}
		// one byte more than may come shows that r goes on
		if room := int64(cap(w.buf) - len(w.buf)); room < headRoom && room <= w.left {
			if err := w.flush(); err != nil {
				return n, err
			}
		}
		p := w.buf[len(w.buf):cap(w.buf)]
		if int64(len(p)) > w.left+1 {
			p = p[:w.left+1]
		}
		m, err := r.Read(p)
		if int64(m) > w.left {
			return n, w.tooLong()
		}
		w.buf = w.buf[:len(w.buf)+m]
		w.left -= int64(m)
		n += int64(m)
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err // r's trouble: it may be tried again
		}
		if m > 0 {
			empty = 0
		} else if empty++; empty == 100 {
			return n, io.ErrNoProgress
		}
	}
}

func (w *Writer) tooLong() error {
	if w.typ != Regular || w.closed {
		w.err = errors.New("write nar: a body without a regular file")
	} else {
		w.err = fmt.Errorf("write nar: the body of %s is longer than its %d bytes", clip.Quote(string(w.path), 240), w.size)
	}
	return w.err
}

// Close ends the archive and writes what is in the buffer; it does not close the io.Writer below.
// A NAR without a root, or with a body that is too short, is an error.
func (w *Writer) Close() error {
	if w.closed {
		return w.err
	}
	if err := w.ready(); err != nil {
		return err
	}
	if w.typ == 0 {
		w.err = errors.New("write nar: it has no root")
		return w.err
	}
	w.endNodes(0)
	w.closed = true
	return w.flush()
}
