package main

import (
	"bufio"
	"encoding/binary"
	"io"
	"path"

	"narwharf/cache/nar"
)

// narWriter writes a NAR entry by entry. They must come in the order of the archive; nothing
// is checked, since all that is made here is read by Nix.
type narWriter struct {
	w    *bufio.Writer
	open []string // paths of the directories that go on, the root's is "."
}

func newNarWriter(w io.Writer) *narWriter { return &narWriter{w: bufio.NewWriterSize(w, 128<<10)} }

// add writes an entry; the body of a regular file has e.Size bytes.
func (n *narWriter) add(e *nar.Entry, body io.Reader) error {
	if e.Path == "" {
		n.put(nar.TagBegin)
	} else {
		for n.open[len(n.open)-1] != path.Dir(e.Path) {
			n.leave()
		}
		n.put(nar.TagEntry, str(path.Base(e.Path)), nar.TagNode)
	}
	switch e.Type {
	case nar.Directory:
		n.put(nar.TagDirectory)
		n.open = append(n.open, path.Clean(e.Path))
		return nil
	case nar.Symlink:
		n.put(nar.TagSymlink, nar.TagTarget, str(e.Target))
	case nar.Regular:
		n.put(nar.TagRegular)
		if e.Executable {
			n.put(nar.TagExecutable, nar.TagNoValue)
		}
		n.put(nar.TagContents, string(binary.LittleEndian.AppendUint64(nil, uint64(e.Size))))
		if _, err := io.CopyN(n.w, body, e.Size); err != nil {
			return err
		}
		n.put(string(make([]byte, nar.Padding(e.Size))))
	}
	n.end(e.Path == "")
	return nil
}

// close ends the archive.
func (n *narWriter) close() error {
	for len(n.open) > 0 {
		n.leave()
	}
	return n.w.Flush()
}

func (n *narWriter) leave() {
	n.open = n.open[:len(n.open)-1]
	n.end(len(n.open) == 0)
}

func (n *narWriter) end(root bool) {
	if root {
		n.put(nar.TagClose)
	} else {
		n.put(nar.TagCloseTwo)
	}
}

// put writes; what fails, Flush says again.
func (n *narWriter) put(parts ...string) {
	for _, p := range parts {
		_, _ = n.w.WriteString(p)
	}
}

func str(s string) string { return string(nar.AppendString(nil, s)) }
