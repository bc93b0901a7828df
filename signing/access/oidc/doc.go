// Package oidc verifies JWTs of OpenID issuers and says, by the rules of package rule, what they give.
//
// A JWT is good if its issuer is one of the configuration; if it is for us, by its aud; if a key of
// the issuer has signed it with RS256, ES256, ES384 or EdDSA; if it has an end and that is not over,
// give or take a minute; and if its header makes no demands (crit). What is wrong with one is a
// [Refused], in words for its bearer. Nothing in a JWT says where its keys are.
//
// aud holds the audience of the section. Where the section has a client_id, a JWT for that client is
// good, too: a person's, of a login by code or device. Of those alone azp is judged, which then is the
// client. Machines and CI have others there, Google's service accounts for one.
//
// # Keys
//
// An issuer is asked for its keys when the first JWT comes, so that a server starts while it is away;
// then when a JWT has a key that is not known, and in the background after an hour. Between two
// questions lie 30 seconds, whatever strangers send. Keys count for a day after they were fetched; if
// the issuer is away for longer, its JWTs are access.ErrUnchecked, as before the first answer. A document
// has at most a mebibyte. It comes by https, without redirects, and from no private address unless
// the section allows that: looked at when the connection is made.
//
// Who is verified stays in memory by the JWT's hash, until its end or for an hour. What is refused does
// not: a stranger's JWT costs its decoding, and one signature if it names a key of the issuer.
package oidc
