// Package blob keeps the content files of a cache: NARs, narinfos, listings,
// logs, each under a slash-separated name such as "nar/0xwn….nar.zst".
//
// Store is the contract; FS keeps the files in a folder in the plain layout of
// a Nix binary cache, so that the folder is itself a file:// cache that any
// Nix can read when this program is not running.
//
// # What a store promises
//
//   - A name either holds one whole file or nothing. Whoever opens it never
//     sees a part, whatever was killed or cut while it was written.
//   - When Commit has returned nil, the file survives a power cut.
//   - When anything failed, nothing of the write is left behind but, after a
//     crash, a temporary file outside the names, which Clean removes.
//   - Replacing a name is atomic; readers that had the old file open keep it.
//
// A store does not retry and does not interpret what it holds.
package blob
