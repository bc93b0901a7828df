// Package cache is a Nix binary cache over HTTP: it takes what a stock
// `nix copy --to http://…` uploads, checks all of it, and serves it signed.
//
// Server is the HTTP side, an http.Handler over the table Routes, with a file
// for each kind of URL. Uploads is what lies beneath: the files (package blob),
// the index derived from them (package index), and the rules by which both
// change. It knows nothing of HTTP but the status of a Refusal.
//
// Local is a second source, the Nix store of this machine: what is not uploaded
// is looked up there, and a client cannot tell which it was. Nothing is written
// for it here but packed copies (package pack), until a path is adopted: then it
// is an upload like any other. See docs/design/009-local-store.md.
//
// # What it promises
//
//   - What was answered with 201 is durable, and is served byte for byte.
//   - Nothing is ever seen by half. A NAR is visible only after all of it was
//     read, unpacked, found to be exactly one well-formed NAR, and synced; a
//     narinfo only after its NAR and its references are there.
//   - The bytes of a NAR's URL never change: its name is their SHA-256, or for a
//     local path that of the NAR, which one encoder packs.
//   - What Nix has changed in the local store is so in the next answer.
//   - The first fingerprint of a path (NarHash, NarSize, References) wins.
//     Later uploads of the same fingerprint add signatures and further
//     encodings of the NAR; of another they are refused, with when and by whom.
//   - A reply that could not be sent whole is broken off, never ended.
//
// # On disk
//
// The plain layout of a Nix cache, which any Nix can read without this program:
//
//	nix-cache-info              StoreDir
//	<hash>.narinfo              normalised, with the signatures that came with the path
//	nar/<sha256>.nar[.suffix]   as uploaded
//	<hash>.ls                   made from the NAR when first asked for
//	log/ debuginfo/ realisations/ build-trace-v2/
//	quarantine/                 what fsck --repair took out
//
// A write goes to the file first and then to the index, so after a crash the
// files are right and the index is behind at most: Recover brings it up.
// Rebuild makes it anew. Fsck checks every byte of it while it is in use.
//
// # Locks
//
// In this order: Uploads.gate (Rebuild against everything that changes a
// path), the path's hash part, the name of its NAR. A listing has a lock of its
// own name and takes no other. The local store is asked under any of them, and
// asks for none.
//
// # What it refuses
//
// Every refusal of an upload is a final 4xx, or 501 where the fault is ours,
// and one line in words, since Nix before 2.33 cannot send a body twice and
// hangs on anything that asks it to. What the headers decide is decided before
// a byte of the body is read. See errorAnswer.
package cache
