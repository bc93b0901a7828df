// Package cache is a Nix binary cache over HTTP: it takes what a stock
// `nix copy --to http://…` uploads, checks all of it, and serves it signed.
//
// Server is an http.Handler over the table Routes, with a file for each kind of
// URL. What lies beneath knows no HTTP: uploads (package upload), the machine's own
// store (package local), and the index and the files that both stand on. What they
// refuse becomes a status in one table (package failure).
//
// What is not uploaded is looked up in the local store, if there is one, and a client cannot
// tell which it was. Nothing is written for it but compressed copies, until a path is adopted:
// then it is an upload like any other. See docs/design/009-local-store.md.
//
// # What it promises
//
//   - What was answered with 201 is durable, and is served byte for byte.
//   - The bytes of a NAR's URL never change: its name is their SHA-256, or for a
//     local path that of the NAR, which one encoder makes.
//   - What Nix has changed in the local store is so in the next answer.
//   - A reply that could not be sent whole is broken off, never ended.
//
// # What it refuses
//
// Every refusal of an upload is a final 4xx, or 501 where the fault is ours,
// and one line in words, since Nix before 2.33 cannot send a body twice and
// hangs on anything that asks it to. What the headers decide is decided before
// a byte of the body is read. See package failure.
package cache
