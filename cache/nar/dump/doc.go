// Package dump makes NARs of trees in a file system: all of one, its sizes, or any part.
//
// Write makes the NAR of a tree in a file system, Measure the sizes of one, and
// Tree.WriteRange any part of it. A tree that stands still gives the bytes that nix-store --dump
// gives. One that does not ends in an error, and what was written so far is to be thrown away: the
// size of every file is compared when it is opened and when it ends, and a Tree also knows types,
// targets and execute bits. What cannot be seen is a body changed in place without another size,
// and an entry deleted before its directory was read; a NAR of the wrong size or hash shows them.
//
// A large body goes to an io.ReaderFrom as a file, all that lies before it having been written. Hide
// the method, as in struct{ io.Writer }{w}, where it is more than a faster way to copy: that of a
// zstd encoder ends the block that it is at, so that the compressed bytes would depend on the
// bounds used here.
//
// A dump of more than a few entries has four goroutines that read ahead, unless 32 of other dumps
// are at work: then it reads and writes in turn. It owns at most seven buffers of 128 KiB (two
// without the goroutines), and the names of the directories that it is in.
package dump
