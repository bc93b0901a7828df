// Package ijson reads the JSON of what is signed.
//
// JSON leaves open what a name that stands twice means, how large a number may be,
// and what becomes of half a surrogate pair; encoding/json moreover takes "Seq" for
// "seq". A host and whoever reviews a release must read the same in the same bytes,
// so all of it is read here: the I-JSON of RFC 7493, with whole numbers only.
//
// Parse refuses what two other parsers might see differently, Read a field whose name
// is nearly that of a known one. Fields that are not known are let through, unless the
// object names them in "crit".
package ijson
