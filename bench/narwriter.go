package main

import (
	"bufio"
	"encoding/binary"
	"io"
	"path"

	"narwharf/cache/nar"
	"narwharf/cache/nar/grammar"
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
		n.put(grammar.Begin.Raw)
	} else {
		for n.open[len(n.open)-1] != path.Dir(e.Path) {
			n.leave()
		}
		n.put(grammar.EntryOpen.Raw, str(path.Base(e.Path)), grammar.EntryNode.Raw)
	}
	switch e.Type {
	case nar.Directory:
		n.put(grammar.Directory.Raw)
		n.open = append(n.open, path.Clean(e.Path))
		return nil
	case nar.Symlink:
		n.put(grammar.Symlink.Raw, grammar.Target.Raw, str(e.Target))
	case nar.Regular:
		n.put(grammar.Regular.Raw)
		if e.Executable {
			n.put(grammar.Executable.Raw, grammar.NoValue.Raw)
		}
		n.put(grammar.Contents.Raw, string(binary.LittleEndian.AppendUint64(nil, uint64(e.Size))))
		if _, err := io.CopyN(n.w, body, e.Size); err != nil {
			return err
		}
		n.put(string(make([]byte, grammar.Padding(e.Size))))
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
		n.put(grammar.CloseOne.Raw)
	} else {
		n.put(grammar.CloseTwo.Raw)
	}
}

// put writes; what fails, Flush says again.
func (n *narWriter) put(parts ...string) {
	for _, p := range parts {
		_, _ = n.w.WriteString(p)
	}
}

func str(s string) string { return string(grammar.AppendString(nil, s)) }
