// Package promoter points a channel at new systems: what `narwharf promote` and
// `narwharf rollback` do, for them and for other Go programs.
//
// A [Promoter] works in steps. One of its builders (Build, BuildPath, Change,
// Rollback) makes a [Release]: which store paths, byte for byte, for which
// targets. The bytes are those of this machine's Nix store, or of the cache where
// a content key signed them. Send signs the release and puts it to the channel;
// Wait follows the channel's hosts until each has said how its attempt ended.
//
// Seq and entries that a release builds upon come from what a promoter signed, and
// never from what a server says. Entries that stay keep their bytes: hosts know an
// entry by them.
//
// Save and SendFile are Send in two parts, for a release that more than one person
// signs; (*File).Sign is what they do between.
//
// Progress goes to the first of two writers, and to the second what a person should
// see even if the output is piped. Errors name the flags of narwharf promote, which
// the fields of Options are named for. An *api.Error of kind RaceLost means that
// the channel moved since it was read.
package promoter
