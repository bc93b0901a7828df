// Package channel is channels: names with an ordered history of signed releases.
//
// # What it promises
//
//   - A release is promoted whole or not at all: the change of the channel and
//     its line in the audit log are one transaction, and the release's file
//     (channels/<name>/<seq>) is durable before that is committed.
//   - Seq only grows, for as long as the name exists and beyond its deletion.
//   - Of two promoters who read the same state one wins.
//   - A promoted closure was complete in the cache, byte for byte what the
//     promoter signed.
//
// Whoever changes a channel holds the lock "channel:<name>" of the state. A
// release's file is written while it is held, or one who lost the race would
// overwrite the file of one who won. The write may be repeated, as the
// transaction may.
//
// # Format
//
// In the state, as JSON:
//
//	hooks/channel  <name>            State
//	hooks/release  <name> NUL <seq>  Meta
//
// seq is 8 bytes, big endian. Files, from which Restore makes these tables anew:
//
//	channels/<name>/<seq>     a release with the rules of its channel
//	channels/<name>/deleted   State, of a channel that was deleted
//	closures/<sha256>         closure manifests (package closure)
package channel
