// Package access says who a request comes from and what it may do: tokens, credentials, denials.
// Package scope beneath it has the grammar of rights.
//
// # Tokens
//
// A token is 74 characters, shown once and stored as its SHA-256 (no dictionary has 260 random bits):
//
//	nwt_<id: 10>_<secret: 52><checksum: 7>
//
// All three parts use the 32 symbols 0-9 a-z without i, l, o and u: nothing in them needs quoting in
// netrc, a URL or a shell, and a double click selects the whole. The id is public (it is the key of
// the store and may be logged), the checksum is the CRC-32 (IEEE) of all that stands before it. The id
// of a join token begins with j01n, so that no other is put where everybody reads it; that of a short-lived token with sh0rt. So a scanner for
// leaked secrets finds tokens by `nwt_[0-9a-hjkmnp-tv-z]{10}_[0-9a-hjkmnp-tv-z]{59}`, and a token that
// was mistyped or cut short is told apart from one that was revoked.
//
// Revoked and expired tokens stay, so that their holders are told what happened.
//
// # Tokens of hosts
//
// A token may be bound to a host: as any other it is refused ([Principal.DenyAs]). Hosts get such
// tokens for a join token, which expires soon, can do nothing else but read, and lets as many hosts
// join as it has uses, or one host of a given name. A use that is repeated by the same machine within
// ten minutes, because it did not get the answer, is one use: the token made at first is revoked then.
//
// # Credentials
//
// Stock Nix knows Basic alone, from netrc or from the URL, and sends it with every request:
//
//   - the token is the password, under any user name or none; if the password is empty the user
//     name is taken for it (https://TOKEN@host). `Authorization: Bearer TOKEN` means the same;
//   - what anonymous requests may do is added to what any credential gives, and a stale or malformed
//     credential counts as none: an old line in a netrc does not break reads that need none at all.
//
// Beside tokens of ours there are JWTs in the same place, certificates, and sessions in a cookie. They
// come as a [Grant], from whoever [Options] name.
//
// No text, error or field of this package contains a secret or a part of one.
package access
