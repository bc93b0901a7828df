// Package shortlived keeps tokens that end soon: what a credential of another kind is exchanged
// for, what a host gets for a proof of who it is, what a browser's session is. To their bearers they
// are tokens like others, and end like no other: each has an end, and is gone an hour after it.
//
// A secret has the form of a token's (package access), and access.IsShort is true of its id. The state has
// its SHA-256, in the bucket "short-tokens", key the id, value JSON:
//
//	{"v":1,"hash":"<64 hex digits>","kind":"oidc","issuer":"github","rule":"main","subject":"…",
//	 "scopes":["push"],"created":…,"ends":…,"note":"…"}
//
// with host, owner, ttl and forget (in seconds) where they are. A row of a version that this narwharf
// does not know, or with a scope that it does not know, gives no right, and keeps no server from
// starting. "short-index" finds rows, "short-count" counts them by rule. There is no copy in a file:
// who has lost the database shows his first credential again.
//
// To revoke is to delete: the bearer hears that the token is not known. [Topic] tells of it.
//
// What strangers can make grow has a bound: somebody with a good credential who exchanges it in a
// loop has 1,000 tokens, of which the one that ends first makes room for the next, and those of one
// rule together 25,000; then [ErrFull].
package shortlived
