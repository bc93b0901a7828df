// Package upload is what has been uploaded to a cache: it takes in NARs and
// narinfos, checks all of them, and puts right what a crash or a disk has spoilt.
// It knows no HTTP; what it refuses, it refuses with words (package refusal).
//
// # What it promises
//
//   - What PutNar, PutInfo and PutCopy return nil for is durable.
//   - Nothing is ever seen by half. A NAR is visible only after all of it was
//     read, unpacked, found to be exactly one well-formed NAR, and synced; a
//     narinfo only after its NAR and its references are there.
//   - The first fingerprint of a path (NarHash, NarSize, References) wins. Later
//     uploads of the same fingerprint add signatures and further encodings of the
//     NAR; of another they are refused, with when and by whom.
//
// # On disk
//
// The plain layout of a Nix cache, which any Nix can read without this program:
//
//	nix-cache-info              StoreDir
//	<hash>.narinfo              normalised, with the signatures that came with the path
//	nar/<sha256>.nar[.suffix]   as uploaded
//	<hash>.ls                   made from the NAR when first asked for (package cache)
//	quarantine/                 what Fsck with Repair took out
//
// A write goes to the file first and then to the index, so after a crash the files
// are right and the index is behind at most: Recover brings it up. Rebuild makes it
// anew. Fsck checks every byte of it while it is in use.
//
// # Locks
//
// In this order: Store.gate (Rebuild against everything that changes a path), the
// path's hash part, the name of its NAR. The local store is asked under any of
// them, and asks for none.
package upload
