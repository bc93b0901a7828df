// Package keyring is which keys may sign a channel's releases, over time.
//
// Where it begins stands in a host's own configuration (Base). From there it is changed by
// statements, each signed by as many of the keys before as had to sign a release, and by as
// many of the keys after. A statement has a version, one above that of the statement before,
// and the digest of that: so there is one way from the first to the last, and a host that was
// off for long walks it. Walk is that, for hosts, servers and promoters alike.
//
// A key that was stolen is revoked by a recovery key, which lies offline and signs nothing
// else. A revocation names keys, which never count again, and the last statement that is
// known to be right. What a revoked key signed of statements counts up to that one, and
// nothing after it: a thief who has changed the keys in between is undone with it. A
// revocation brings no key in and no release.
//
// Both are payloads in a signing.Envelope with first lines of their own; docs/formats.md
// specifies them. A bound on each list keeps a hostile server cheap.
package keyring
