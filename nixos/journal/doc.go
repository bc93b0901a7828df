// Package journal is what an agent knows across its own restarts and the
// host's, and the text of it on disk.
//
// # Format
//
// journal.json in the state directory is one JSON object with a version. It is
// replaced whole. What stands in it may be under way: it is saved before an
// effect is begun and after it has ended.
//
// Hosts in the field keep their journals. So a field keeps its JSON name and its
// place for ever, and agents of all ages read what another one wrote: an older
// one either finds a phase from which it goes on rightly, or a version that it
// does not touch (compat.go). testdata has journals as the delivery of
// 2026-11-21 wrote them.
package journal
