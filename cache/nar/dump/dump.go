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

import (
	"context"
	"errors"
	"io"
	"math"
)

// ErrChanged is wrapped by the errors of a dump that found the tree other than it was a moment
// before: a file that grew, shrank, vanished or became something else while it was sent.
var ErrChanged = errors.New("the tree changes while it is read")

// Write writes the file, directory or link at root to w as a NAR and returns how many bytes
// w took. As in Nix no link is followed, not even root itself; sockets, devices and pipes are errors.
// The tree is walked while it is sent.
//
// After an error what w has got is not a NAR. Errors of the tree are an *fs.PathError and wrap
// ErrChanged if that is what they are about; all others are those of w, as w gave them, and of ctx.
// If there is nothing at root, nothing is written and errors.Is(err, fs.ErrNotExist).
func Write(ctx context.Context, w io.Writer, root string) (int64, error) {
	return writeWith(ctx, w, root, nil)
}

func writeWith(ctx context.Context, w io.Writer, root string, f *faults) (int64, error) {
	s := newSender(ctx, w, 0, math.MaxInt64)
	err := s.run(&walk{above: outside(false, f), root: root})
	return s.sent, err
}
