package dump

import (
	"encoding/binary"
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"narwharf/cache/nar"
	"narwharf/narinfo/clip"
)

// The sizes were found by BenchmarkDump; see the package comment for what they bound.
const (
	// batchSize is the buffer of a batch, and so the size of most writes.
	batchSize = 128 << 10
	// batchSteps and batchFolders bound how much of a tree is in one batch, and with it how many
	// directories are open.
	batchSteps   = 64
	batchFolders = 8
	// batchBodies bounds how many files are open between a reader and the sender.
	batchBodies = 4
	// largeBody is where a body is worth a sendfile(2) of its own.
	largeBody = 64 << 10
	// largeAhead is how much of a body the kernel is told to read before it is its turn. Cold,
	// 300 files of 1 MB take 0.4 s with and 1.2 s without; cached, it costs nothing to speak of.
	largeAhead = 2 << 20
	// headRoom is more than everything that can stand between two bodies: the ends of MaxDepth
	// directories, a name and a target.
	headRoom = 8 << 10
)

// endOfDir stands for the end of a directory where other steps have the type of an entry.
const endOfDir nar.Type = 0xff

// step is one entry of the archive, or the end of a directory.
type step struct {
	in   *folder // nil if nothing is to be opened for it
	name string
	typ  nar.Type
	root bool
	want *nar.Node // what Measure saw, or nil
	skip int64     // bytes of the body that lie before the range
}

// batch is a run of steps and the bytes of the archive that they stand for. It is filled by a
// source, rendered by whoever has the time and sent by one.
type batch struct {
	steps   []step
	folders []*folder // held for the steps
	pos     int64     // where in the archive it starts; 0 from a walk, which does not know
	more    bool      // another batch follows
	ended   error     // why the source ended with this batch
	ready   chan struct{}

	done   int    // steps rendered
	buf    []byte // all of them but the bodies
	bodies []body
	err    error // why rendering ended at the step after the last one done
	stat   unix.Stat_t
}

// body is a file whose bytes belong into the archive before those of the buffer from at on.
type body struct {
	at   int
	file *os.File
	size int64
	in   *folder
	name string
}

// batches saves 128 KiB per batch and dump.
var batches = sync.Pool{New: func() any {
	return &batch{
		steps: make([]step, 0, batchSteps),
		buf:   make([]byte, 0, batchSize),
		ready: make(chan struct{}, 1),
	}
}}

func newBatch() *batch { return batches.Get().(*batch) }

// free gives back all that the batch holds.
func (b *batch) free() {
	b.sent()
	for _, f := range b.folders {
		f.release()
	}
	clear(b.steps)
	clear(b.folders)
	b.steps, b.folders, b.done = b.steps[:0], b.folders[:0], 0
	b.pos, b.more, b.ended, b.err = 0, false, nil, nil
	if cap(b.buf) <= 2*batchSize { // a batch of long links may have grown
		batches.Put(b)
	}
}

// sent drops what was rendered, so that the rest of the steps can be.
func (b *batch) sent() {
	for _, body := range b.bodies {
		_ = body.file.Close() // nothing was written to it
	}
	clear(b.bodies)
	b.bodies, b.buf = b.bodies[:0], b.buf[:0]
}

func (b *batch) full(steps int) bool {
	return len(b.steps) >= steps || len(b.folders) >= batchFolders
}

func (b *batch) add(s step) {
	b.steps = append(b.steps, s)
	if s.in != nil && (len(b.folders) == 0 || b.folders[len(b.folders)-1] != s.in) {
		s.in.hold()
		b.folders = append(b.folders, s.in)
	}
}

// render does steps until all are done, no more fits, or one fails.
func (b *batch) render() {
	for b.done < len(b.steps) && b.err == nil {
		s := &b.steps[b.done]
		if len(b.buf) > batchSize-headRoom || s.typ == nar.Regular && len(b.bodies) == batchBodies {
			return
		}
		if b.err = b.do(s); b.err == nil {
			b.done++
		}
	}
}

func (b *batch) do(s *step) error {
	if s.typ == nar.Regular {
		return b.file(s)
	}
	switch s.typ {
	case nar.Directory:
		b.buf = appendHead(b.buf, &nar.Node{Name: s.name, Type: s.typ}, s.root)
	case nar.Symlink:
		to, err := s.in.readlink(s.name)
		if err == nil && s.want != nil && s.want.Target != to {
			err = s.in.fail("readlink", s.name, changed("the link pointed at %s before", clip.Quote(s.want.Target, 160)))
		}
		if err != nil {
			return err
		}
		b.buf = appendHead(b.buf, &nar.Node{Name: s.name, Type: s.typ, Target: to}, s.root)
		b.buf = append(b.buf, tail(s.root)...)
	case endOfDir:
		b.buf = append(b.buf, tail(s.root)...)
	}
	return nil
}

// appendHead appends what stands before a node's body or entries, its name included.
func appendHead(dst []byte, n *nar.Node, root bool) []byte {
	if root {
		dst = append(dst, nar.TagBegin...)
	} else {
		dst = nar.AppendString(append(dst, nar.TagEntry...), n.Name)
		dst = append(dst, nar.TagNode...)
	}
	switch n.Type {
	case nar.Directory:
		dst = append(dst, nar.TagDirectory...)
	case nar.Symlink:
		dst = append(append(dst, nar.TagSymlink...), nar.TagTarget...)
		dst = nar.AppendString(dst, n.Target)
	case nar.Regular:
		dst = append(dst, nar.TagRegular...)
		if n.Executable {
			dst = append(append(dst, nar.TagExecutable...), nar.TagNoValue...)
		}
		dst = binary.LittleEndian.AppendUint64(append(dst, nar.TagContents...), uint64(n.Size))
	}
	return dst
}

// tail is what stands after them, but for a body's padding.
func tail(root bool) string {
	if root {
		return nar.TagClose
	}
	return nar.TagCloseTwo
}

// file renders a regular file: opened, looked at and, if it is small, read.
func (b *batch) file(s *step) error {
	if err := s.in.opening(s.name); err != nil {
		return s.in.fail("open", s.name, err)
	}
	// a pipe put there meanwhile must not hang the open
	fd, err := openat(s.in.fd, s.name, unix.O_NONBLOCK)
	if err != nil {
		return s.in.fail("open", s.name, err)
	}
	before, size := len(b.buf), int64(0)
	if size, err = b.head(s, fd); err == nil {
		if size > largeBody || int64(cap(b.buf)-len(b.buf)) < size+headRoom/8 {
			readAhead(fd, s.skip, min(size-s.skip, largeAhead))
			b.bodies = append(b.bodies, body{len(b.buf), os.NewFile(uintptr(fd), s.name), size, s.in, s.name})
			fd = -1
		} else if err = s.in.reading(s.name); err == nil {
			err = b.read(fd, int(size))
		}
	}
	if fd >= 0 {
		_ = unix.Close(fd)
	}
	if err != nil {
		b.buf = b.buf[:before]
		return s.in.fail("read", s.name, err)
	}
	b.buf = append(b.buf, "\x00\x00\x00\x00\x00\x00\x00"[:nar.Padding(size)]...)
	b.buf = append(b.buf, tail(s.root)...)
	return nil
}

// head renders what stands before the body.
func (b *batch) head(s *step, fd int) (size int64, err error) {
	st := &b.stat
	if err := unix.Fstat(fd, st); err != nil {
		return 0, os.NewSyscallError("fstat", err)
	}
	exec := st.Mode&unix.S_IXUSR != 0
	switch want := s.want; {
	case typeOf(uint32(st.Mode)) != nar.Regular:
		return 0, changed("it was a regular file and is one no more")
	case st.Size > nar.MaxSize:
		return 0, errors.New("a body of so many bytes is not possible")
	case want == nil:
	case want.Size != st.Size:
		return 0, changed("it had %d bytes and has %d now", want.Size, st.Size)
	case want.Executable != exec:
		return 0, changed("its execute bit")
	}
	b.buf = appendHead(b.buf, &nar.Node{Name: s.name, Type: nar.Regular, Executable: exec, Size: st.Size}, s.root)
	return st.Size, nil
}

// read reads a whole small file. It mostly costs one read: if that gave all that was asked for
// but the one byte too many, the file has ended.
func (b *batch) read(fd, size int) error {
	p := b.buf[len(b.buf) : len(b.buf)+size+1]
	for n := 0; ; {
		m, err := unix.Read(fd, p[n:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		n += m
		switch {
		case n == size:
			b.buf = b.buf[:len(b.buf)+size]
			return nil
		case n > size:
			return changed("it grew beyond its %d bytes", size)
		case m == 0:
			return changed("it lost %d of its %d bytes", size-n, size)
		}
	}
}
