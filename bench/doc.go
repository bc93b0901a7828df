//go:build linux

// Command bench measures Narwharf side by side with nginx: `go run ./bench`
// does everything in ten minutes, `go run ./bench -quick` tries it out in
// about one. It needs Linux, Go, dpkg and Debian's nginx, no Nix, and 10,200 open
// files.
//
// # What is measured
//
// A closure is made of the machine's installed Debian packages: each becomes a
// NAR, packed by zstd, that refers to the packages it depends on. It is
// uploaded to Narwharf by the requests that Nix makes. Then nginx gets the
// texts of the narinfos that Narwharf answers, and a link to the folder of
// Narwharf's NARs, so both serve the same bytes out of the same page cache.
// Everything is read once from both and compared with its hash before anything
// is measured, and every measured reply is checked for status and length
// (package load).
//
// Servers take turns, A B A B …, and ratios are formed within a round, because
// what else the machine does changes from second to second. -itself measures
// nginx against a second nginx and so shows which ratios are chance. Beside the
// wall stands the CPU time of the server's processes, which others disturb
// less.
//
// nginx has its default configuration with as many workers as cores, sendfile
// and tcp_nopush, no access log and connections without end; with
// open_file_cache (which may serve what has been replaced a while ago) in a row
// of its own. For uploads its dav module is the practical limit, though it does
// less: no unpacking, no hash, no fsync.
//
// Many hosts on one server have no nginx to be compared with, but targets. They
// arrive within 5 s and poll as agents do; then releases are promoted, and for
// each host it is noted when it had the whole answer, by the clock of the one
// thread that is all hosts (load.Fleet). Memory is what the kernel counts as
// resident, over that of the idle server.
//
// # What is left behind
//
// Nothing but, with -write, the measured part of bench/PERFORMANCE.md: the rest
// of that file is written by people and kept. All servers have their files in a
// temporary folder and listen on free ports of the loopback interface; the
// system's nginx is not touched. NARWHARF_BIN names a binary to measure instead
// of one built from this tree.
package main
