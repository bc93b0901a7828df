// Package retention decides what a cache keeps, and has the rest deleted: mark, plan,
// collect. It also answers why a path is here and how much a channel takes.
//
// A root is a store path that has to stay with all it refers to; package root keeps
// them. Whatever no root reaches stays for its grace, counted from its last use: its
// upload, or the last time that one who may upload was told that it is here. A path is
// as young as the youngest path that refers to it, so what goes first are the oldest
// paths that nothing refers to.
//
// # Why it is safe
//
// The mark reads in pages and may be stale by the time a path goes. It proposes, and
// upload.Store.Collect decides: it reads in its own transaction that nothing that stays
// refers to the path, that no root names it, and when it was last of use. So nothing
// here needs a lock, and a collection that is stopped or killed anywhere has deleted
// some of what might go.
package retention
