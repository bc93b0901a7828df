// Package fastpath answers plain GETs for what is in memory, or whole in a file,
// on the connection itself, before net/http sees them. It is a leaf, knows
// nothing of caches, and whoever does not wrap his listener goes without it.
//
// It is there for narinfos and NARs: a Nix client asks for hundreds of them on 25
// connections, and net/http spends as much on watching for the client to leave as
// on answering (bench/PERFORMANCE.md, docs/design/015-nars-on-the-connection.md).
//
// # The contract
//
//   - It sits in the Read of an accepted connection. While net/http waits there
//     for the begin of a request, Read takes requests, answers those that Lookup
//     knows, and returns with the first one that it does not know.
//   - Such a request goes to net/http untouched, byte by byte, with the whole
//     connection. When net/http has answered it, the connection comes back
//     (ConnState), but only if what net/http was given was one request to its
//     end and no more. So nothing is ever parsed in two ways.
//   - It answers a buffer only if that is exactly one complete GET of HTTP/1.1
//     with fields out of a short list, to which those belong that proxies add,
//     and "Connection: close". A body, a range, a condition, a password, a
//     pipelined second request, half a head, any other field is net/http's.
//   - An answer is, byte for byte but for the order of the fields, the one that
//     net/http's handler gives. It is whole, or the connection is broken off.
//   - Slow clients have limits as in net/http: Idle between two requests, Pace
//     for each step of a file.
package fastpath
