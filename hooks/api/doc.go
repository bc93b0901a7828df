// Package api is what Narwharf's programs say to each other over HTTP: the
// JSON of /api/v1 and a client for it that the command line and the agent
// share. The server is package hooks.
//
// # Conditional requests
//
// A promote needs If-Match, so that of two promoters one wins (412 for the other): the
// channel's seq in quotes, "0" of one that is not there, or the ETag of a GET of it. That is
// the seq and a hash of the body, since signatures are merged without a new seq. The ETag of
// a host's desired state is a hash of its body.
//
// # Long polls
//
// A GET with If-None-Match and "Prefer: wait=N" (RFC 7240, section 4.3) parks
// for up to N seconds while the ETag is the one given, and answers 304 when
// they are over. Polls are level-triggered: nothing is lost with a reply that
// is, or with a server's restart; the next request carries the old ETag.
//
// # Status is declared
//
// A host sends its whole Status at every change and repeats it until it is
// acknowledged. The server stores what it was told and infers nothing.
package api
