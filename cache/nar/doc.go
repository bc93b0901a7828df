// Package nar reads Nix archives (NARs): one file, directory or link with all that is
// beneath it, without owners, times or modes but the execute bit.
//
// A NAR is a sequence of strings; a string is its length as a little-endian 64-bit number, its
// bytes, and zero bytes up to the next multiple of 8.
//
//	"nix-archive-1" node
//	node:   "(" "type" "regular" ["executable" ""] "contents" BODY ")"
//	      | "(" "type" "symlink" "target" TARGET ")"
//	      | "(" "type" "directory" {"entry" "(" "name" NAME "node" node ")"} ")"
//
// There is exactly one NAR for a tree, and Reader, Check and List take nothing else: nothing
// cut off or after the end, no other order of strings (early versions of Nix let some pass),
// no padding but zeros, no names that cannot be or do not ascend byte by byte. The bounds are
// those of Nix's own reader (parse in src/libutil/archive.cc of 2.34.8), except that Nix does not
// look at what follows the archive and lets 64-bit sizes pass. Versions before 2.33.6 and 2.34.7
// know no bounds, and can make NARs that later ones cannot read.
//
// Names and targets are bytes: neither UTF-8 nor a normal form is asked for. Only listings,
// being JSON, cannot hold what is not UTF-8.
//
// What is wrong with the archive is a *FormatError, which may be shown to whoever sent it. Errors
// of the source are wrapped, so that a bad upload can be told from a broken connection.
//
// A Reader owns one buffer of 128 KiB and starts no goroutine. Memory does not grow with
// the archive, its files or its depth; List alone keeps about 100 bytes per entry.
package nar
