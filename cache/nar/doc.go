// Package nar reads Nix archives (NARs): one file, directory or link with all that is
// beneath it, reduced to what a store path is made of. There are no owners, times or modes but the
// execute bit, so the same tree always gives the same bytes, and the hash of those bytes is what
// Nix signs.
//
// # The format
//
// A NAR is a sequence of strings; a string is its length as a little-endian 64-bit number, its
// bytes, and zero bytes up to the next multiple of 8.
//
//	"nix-archive-1" node
//	node:   "(" "type" "regular" ["executable" ""] "contents" BODY ")"
//	      | "(" "type" "symlink" "target" TARGET ")"
//	      | "(" "type" "directory" {"entry" "(" "name" NAME "node" node ")"} ")"
//
// # What is refused
//
// There is exactly one NAR for a tree, and Reader, Check and List take nothing else.
// Refused are
//
//   - input that ends early, even by a byte of padding, and input that goes on after the end;
//   - strings in any other order than above, also those orders which early versions of Nix let
//     pass, such as "executable" after "contents", or a field given twice;
//   - padding that is not zero;
//   - names that are empty, ".", "..", longer than MaxName, or contain a slash or a NUL byte;
//   - names that do not ascend byte by byte within a directory, and so duplicates;
//   - targets of links that are empty, longer than MaxTarget or contain a NUL byte;
//   - more than MaxDepth nodes on one path;
//   - bodies whose end would not fit an int64.
//
// The bounds are those of Nix's own reader (parse in src/libutil/archive.cc of 2.34.8), except
// that Nix does not look at what follows the archive and lets 64-bit sizes pass. Versions before
// 2.33.6 and 2.34.7 know no bounds, and can make NARs that later ones cannot read; they are
// refused here, since a cache that holds what its clients cannot fetch is of no use.
//
// Names and targets are bytes: neither UTF-8 nor a normal form is asked for, and the suffix
// ~nix~case~hack~ that Nix uses on macOS is a name like any other. Only listings, being JSON,
// cannot hold what is not UTF-8; see AppendJSON.
//
// # Errors
//
// What is wrong with the archive is a *FormatError: offset, entry and finding in one short line
// that may be shown to whoever sent it. Errors of the source below are wrapped, so that a caller
// can tell a bad upload from a broken connection. A source that fails with io.ErrUnexpectedEOF
// has failed; one that says io.EOF too early has given a cut-off archive, and that FormatError
// wraps io.ErrUnexpectedEOF.
//
// # Cost
//
// A Reader owns one buffer of 128 KiB and starts no goroutine. Memory does not grow with
// the archive, its files or its depth; List alone keeps about 100 bytes per entry. Sources are
// asked for a whole buffer at a time.
package nar
