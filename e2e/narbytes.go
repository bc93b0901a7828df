package e2e

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
)

// A Node is a file system object to write as NAR. Nothing is checked: a wrong order or name is
// written as it stands.
type Node interface{ tokens() []string }

// A File is a regular file.
type File struct {
	Body       string
	Executable bool
}

// A Link is a symbolic link.
type Link struct{ Target string }

// A Dir holds entries in the order in which they are written.
type Dir []Entry

// An Entry is a name in a Dir.
type Entry struct {
	Name string
	Node Node
}

func (f File) tokens() []string {
	t := []string{"(", "type", "regular"}
	if f.Executable {
		t = append(t, "executable", "")
	}
	return append(t, "contents", f.Body, ")")
}

func (l Link) tokens() []string {
	return []string{"(", "type", "symlink", "target", l.Target, ")"}
}

func (d Dir) tokens() []string {
	t := []string{"(", "type", "directory"}
	for _, e := range d {
		t = append(t, "entry", "(", "name", e.Name, "node")
		t = append(t, e.Node.tokens()...)
		t = append(t, ")")
	}
	return append(t, ")")
}

// NAR is the archive of a node.
func NAR(n Node) []byte { return narStrings(append([]string{"nix-archive-1"}, n.tokens()...)...) }

// narStrings writes strings as a NAR does: length as 64-bit little endian, bytes, zeros up to a
// multiple of eight. A wrong sequence of them makes a malformed archive.
func narStrings(strings ...string) []byte {
	var b []byte
	for _, s := range strings {
		b = binary.LittleEndian.AppendUint64(b, uint64(len(s)))
		b = append(b, s...)
		b = append(b, make([]byte, (8-len(s)%8)%8)...)
	}
	return b
}

// RandomNAR is a NAR of about size bytes that does not compress; the same seed gives the same.
func RandomNAR(seed uint64, size int) []byte {
	return NAR(Dir{{"blob", File{Body: string(noise(seed, size))}}})
}

// RepetitiveNAR is a NAR of about size bytes that compresses very well.
func RepetitiveNAR(size int) []byte {
	return NAR(File{Body: string(bytes.Repeat([]byte{'a'}, size))})
}

// noise is size bytes that do not compress.
func noise(seed uint64, size int) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	b := make([]byte, size)
	_, _ = rand.NewChaCha8(key).Read(b)
	return b
}
