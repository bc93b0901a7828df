//go:build linux

// Package load asks one HTTP/1.1 server for many things at once and measures
// how fast and how well it answers.
//
// It is made for machines where the server under test and its load share two
// cores, so it must cost far less than any server: one thread, one epoll set,
// requests that are byte strings made beforehand, a reply reader that looks at
// four header fields, and bodies that the kernel throws away (recv with
// MSG_TRUNC, see tcp(7)) instead of copying them out, unless Pool.Copies asks for clients that copy. Nothing is ever
// decompressed. What the thread costs is the same for every server.
//
// Every reply is checked: its status, its Content-Length, and that exactly so
// many bytes follow. The first wrong reply ends the run with an error, so a
// number that comes out of this package never counts a failure as speed. The
// bytes themselves are not looked at here; compare them once before measuring.
//
// A Pool asks again and again over a few connections; a Fleet is many connections
// that mostly wait.
//
// A connection has one request in flight (no pipelining: Nix does none) and is
// never reopened. A server that closes a connection fails the run. Chunked
// replies are refused, because everything a binary cache stores has a length.
package load
