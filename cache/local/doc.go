// Package local serves the Nix store of this machine as a second source of the
// cache: its store paths have narinfos, NARs, files and build logs without
// having been uploaded. It knows no HTTP. See docs/design/009-local-store.md.
//
// # What it promises
//
//   - Every answer is true at the moment at which it is given. Path.Current
//     tells cheaply whether an earlier one still is.
//   - A NAR that is not what Nix's database says never comes out whole: a
//     compressed one has no end of frame, a plain one lacks its last bytes.
//   - A compressed NAR goes by the name "<hash part>-<nar hash>.nar.zst" and
//     has the same bytes for ever; package compress makes and keeps them.
//
// # Errors
//
// fs.ErrNotExist: the store has no such path or file. A refusal.LocalStore: this
// cannot be said now, so a client must not be told that there is none.
// dump.ErrChanged: the files of a path are not what the database says.
// blob.ErrFull: there is no room for the compressed NAR.
package local
