package nar

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"narwharf/narinfo/clip"
)

// bufferSize is how much a Reader asks its source for at once. What lies below (a hash, a
// decoder, a socket) does best with large reads; beyond this size nothing is gained.
const bufferSize = 128 << 10

// Reader reads one NAR from a stream, entry by entry, in the order of the archive: a directory
// before what is in it. It holds one buffer, starts no goroutine, and its first error is its last:
// every later call returns it again. A Reader is not for concurrent use.
type Reader struct {
	src    io.Reader
	srcErr error // what src said at its end; acted upon when the buffer is used up
	err    error // sticky

	tap  Tap  // nil if there is none
	lent bool // buf was, and must not be written to

	buf      []byte // fixed size
	pos, end int    // unread bytes are buf[pos:end]
	base     int64  // place of buf[0] in the NAR

	// Open directories are dirs[:depth]. path[:pathLen] is the current node; beyond a directory's
	// own path lies the name of its latest entry, which is all that the check of the order needs.
	path    []byte
	pathLen int
	dirs    [MaxDepth]openDir
	depth   int

	node  node
	entry Entry
}

// A Tap gets every byte that a Reader reads from its source, in order and in the Reader's own buffers.
type Tap interface {
	// Take takes a piece, which lies in buf and may be read until buf is returned by Next.
	Take(piece, buf []byte)
	// Next is asked once after each Take, before the Reader reads on. It returns a buffer as
	// large that nobody uses, or nil if that of the last Take is free.
	Next() []byte
}

// openDir is a directory whose end was not seen yet.
type openDir struct {
	end  int // length of its path
	last int // length of the name of its latest entry; 0 before the first
}

// node is the node that was read last.
type node struct {
	typ    Type // 0 before the root
	exec   bool
	size   int64
	left   int64 // bytes of the body not read yet
	offset int64
	target []byte // in buf: good until the next read
}

// NewReader returns a Reader of the NAR that r holds.
func NewReader(r io.Reader) *Reader {
	return &Reader{src: r, buf: make([]byte, bufferSize)}
}

// Reset makes the Reader read another NAR, keeping its buffer.
func (r *Reader) Reset(src io.Reader) {
	*r = Reader{src: src, buf: r.buf, path: r.path[:0]}
}

// Offset is the number of bytes of the NAR consumed so far; after io.EOF from Next, its size.
func (r *Reader) Offset() int64 { return r.base + int64(r.pos) }

// Next goes to the next entry; what is left of the current body is skipped and checked. It
// returns io.EOF only after the whole NAR was seen to be well-formed and its source to end with
// it. Any other error is a *FormatError or wraps an error of the source. The Entry is overwritten
// by the next call; its strings are not.
func (r *Reader) Next() (*Entry, error) {
	if err := r.step(); err != nil {
		return nil, err
	}
	r.entry = Entry{
		Path:       string(r.path[:r.pathLen]),
		Type:       r.node.typ,
		Executable: r.node.exec,
		Size:       r.node.size,
		Target:     string(r.node.target),
		Offset:     r.node.offset,
	}
	return &r.entry, nil
}

// Read reads from the body of the current entry and returns io.EOF at its end; anything but a
// regular file has an empty body. A body that was read to its end is good only once Next has
// returned without an error: the padding and all that follows are checked there.
func (r *Reader) Read(p []byte) (int, error) {
	if r.err != nil && r.err != io.EOF {
		return 0, r.err
	}
	if r.node.left == 0 {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	if int64(len(p)) > r.node.left {
		p = p[:r.node.left]
	}
	if r.pos == r.end {
		if err := r.refillBody(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.buf[r.pos:r.end])
	r.pos += n
	r.node.left -= int64(n)
	return n, nil
}

// step goes to the next node and leaves it in r.node and r.path.
func (r *Reader) step() error {
	if r.err != nil {
		return r.err
	}
	if r.node.typ == 0 {
		if err := r.expectBegin(); err != nil {
			return err
		}
		return r.readNode()
	}
	if err := r.endNode(); err != nil {
		return err
	}
	for r.depth > 0 {
		if !r.match(TagClose) {
			if err := r.readEntry(); err != nil {
				return err
			}
			return r.readNode()
		}
		r.depth--
		r.pathLen = r.dirs[r.depth].end
		if r.depth > 0 {
			if err := r.expect(TagClose); err != nil {
				return err
			}
		}
	}
	return r.expectEnd()
}

// endNode reads what is left of a node that is no directory.
func (r *Reader) endNode() error {
	if r.node.typ == Directory {
		return nil
	}
	if r.node.typ == Regular {
		if err := r.endBody(); err != nil {
			return err
		}
	}
	if r.depth == 0 {
		return r.expect(TagClose)
	}
	return r.expect(TagCloseTwo)
}

// readEntry reads from "entry" up to the node's "type".
func (r *Reader) readEntry() error {
	dir := &r.dirs[r.depth-1]
	r.pathLen = dir.end
	if err := r.expect(TagEntry); err != nil {
		return err
	}
	at := r.Offset()
	name, err := r.str(MaxName, "the name")
	if err != nil {
		return err
	}
	if err := CheckName(name); err != nil {
		return r.fail(at, "%v", err)
	}
	start := dir.end
	if r.depth > 1 {
		start++
	}
	if dir.last > 0 {
		if last := r.path[start : start+dir.last]; bytes.Compare(last, name) >= 0 {
			if bytes.Equal(last, name) {
				return r.fail(at, "the name %s stands twice in one directory", clip.Quote(string(name), 160))
			}
			return r.fail(at, "the name %s comes after %s: names must ascend byte by byte",
				clip.Quote(string(name), 160), clip.Quote(string(last), 160))
		}
	}
	if r.depth > 1 {
		r.path = append(r.path[:dir.end], '/')
	}
	r.path = append(r.path[:start], name...)
	r.pathLen = len(r.path)
	dir.last = len(name)
	if r.depth == MaxDepth {
		return r.fail(at, "it lies %d directories deep: nix accepts at most %d", r.depth, MaxDepth-1)
	}
	return r.expect(TagNode)
}

// readNode reads a node from its type up to the start of its body or of its first entry, or to
// the end of its target.
func (r *Reader) readNode() error {
	r.node = node{}
	switch {
	case r.have(TagRegular):
		return r.readRegular()
	case r.have(TagDirectory):
		r.node.typ = Directory
		r.dirs[r.depth] = openDir{end: r.pathLen}
		r.depth++
		return nil
	case r.have(TagSymlink):
		return r.readSymlink()
	}
	return r.wrongTag("regular", "directory", "symlink")
}

func (r *Reader) readRegular() error {
	r.node.typ = Regular
	if !r.have(TagContents) {
		if !r.have(TagExecutable) {
			return r.wrongTag("contents", "executable")
		}
		at := r.Offset()
		if value, err := r.str(maxTag, "the value of the executable marker"); err != nil {
			return err
		} else if len(value) > 0 {
			return r.fail(at, "the executable marker has the value %s: it must be empty", clip.Quote(string(value), 160))
		}
		r.node.exec = true
		if err := r.expect(TagContents); err != nil {
			return err
		}
	}
	at := r.Offset()
	if !r.need(8) {
		return r.cutOff("the size of the body")
	}
	size := binary.LittleEndian.Uint64(r.buf[r.pos:])
	r.pos += 8
	if size > uint64(max(0, MaxSize-at)) {
		return r.fail(at, "a body of %d bytes is not possible", size)
	}
	r.node.size, r.node.left, r.node.offset = int64(size), int64(size), at+8
	return nil
}

func (r *Reader) readSymlink() error {
	r.node.typ = Symlink
	if err := r.expect(TagTarget); err != nil {
		return err
	}
	at := r.Offset()
	to, err := r.str(MaxTarget, "the target of the link")
	if err != nil {
		return err
	}
	if err := CheckTarget(to); err != nil {
		return r.fail(at, "%v", err)
	}
	r.node.target = to
	return nil
}

// endBody skips what is left of the body, and its padding.
func (r *Reader) endBody() error {
	for r.node.left > int64(r.end-r.pos) {
		r.node.left -= int64(r.end - r.pos)
		r.pos = r.end
		if err := r.refillBody(); err != nil {
			return err
		}
	}
	r.pos += int(r.node.left)
	r.node.left = 0
	pad := Padding(r.node.size)
	if pad == 0 {
		return nil
	}
	if !r.need(pad) {
		return r.cutOff("the padding of the body")
	}
	for _, b := range r.buf[r.pos : r.pos+pad] {
		if b != 0 {
			return r.fail(r.Offset(), "the padding of the body is not zero")
		}
	}
	r.pos += pad
	return nil
}

// str reads a string of at most limit bytes. It lies in the buffer: good until the next read.
func (r *Reader) str(limit int, what string) ([]byte, error) {
	at := r.Offset()
	if !r.need(8) {
		return nil, r.cutOff(what)
	}
	length := binary.LittleEndian.Uint64(r.buf[r.pos:])
	if length > uint64(limit) {
		return nil, r.fail(at, "%s is %d bytes long, the longest allowed is %d", what, length, limit)
	}
	n := int(length)
	whole := 8 + n + Padding(int64(n))
	if !r.need(whole) {
		return nil, r.cutOff(what)
	}
	b := r.buf[r.pos+8 : r.pos+whole]
	for _, c := range b[n:] {
		if c != 0 {
			return nil, r.fail(at, "the padding of %s is not zero", what)
		}
	}
	r.pos += whole
	return b[:n:n], nil
}

// expectEnd checks that the source ends where the archive does.
func (r *Reader) expectEnd() error {
	if r.need(1) {
		return r.fail(r.Offset(), "the archive ends here, but the input goes on")
	}
	if r.srcErr != io.EOF {
		return r.cutOff("")
	}
	r.err = io.EOF
	return r.err
}

// fail makes a FormatError the Reader's last word.
func (r *Reader) fail(at int64, format string, args ...any) *FormatError {
	err := &FormatError{Offset: at, Path: string(r.path[:r.pathLen]), Problem: fmt.Sprintf(format, args...)}
	r.err = err
	return err
}
