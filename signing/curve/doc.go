// Package curve is what keys and signatures are on the two curves that statements are
// signed with, as bytes: a leaf that knows no names and no text forms.
//
// Ed25519 is the standard library's; here stands which of its points are no keys.
//
// P-256 is ECDSA with SHA-256. A public key is the point in its compressed form (33
// bytes), a secret key the scalar (32 bytes), a signature r and s as 32 bytes each, big
// endian: as long as one of Ed25519, so that every reader of an envelope can pass it over.
// Of the two values of s that fit a signature the lower one alone is good. So nobody but
// who has the key can make a second signature of a first.
package curve
