// Package nixstore reads a Nix store of this machine: which paths are valid,
// their hashes, references, derivers and signatures. It never adds a path, and
// writes nothing but GC roots (Hold).
//
// # Two ways to the same answer
//
// Nix keeps what it knows in a SQLite database, <state>/db/db.sqlite. Reading it
// costs some 25 microseconds a path and one statement a closure, so it is
// tried first. It is in WAL mode: a reader needs the files db.sqlite-wal and
// db.sqlite-shm as well. Nix before 2.22 removes both when its last process ends
// (later ones leave them, src/libstore/local-store.cc, SQLITE_FCNTL_PERSIST_WAL),
// and SQLite would then have to make them. A user other than the store's owner
// cannot (NixOS/nix#10300), and this package will not, not even as root.
//
// What cannot be read from the database is asked of nix-daemon. Its process opens the
// database in order to answer, so the next question goes to the database again.
//
// SQLite's "immutable" is never used: it ignores the WAL and so tells what was
// true some time ago.
//
// # How fresh an answer is
//
// Every call sees what Nix had committed when the call started; nothing is
// cached here. One Info or Closure comes from one SQL statement and so from one
// state of the store, whatever Nix does meanwhile. Over the daemon a closure is
// put together from many answers, each of them fresh: the daemon turns off the
// memory for paths that other programs of Nix have (openUncachedStore in
// src/nix/unix/daemon.cc).
//
// Callers that cache take Version before they ask, and ask Still before they use
// what they have.
//
// # What it holds on to
//
// An open database has SQLite's shared lock on db.sqlite. Nix reads and writes
// beside it; only what needs the database alone waits, which is switching
// use-sqlite-wal and, before Nix 2.22, removing the -wal and -shm files at exit.
// The lock is gone when anything else in this process opens and closes
// db.sqlite (fcntl's rule), so nothing should.
//
// Refused are a schema other than 10, a database that is not in WAL mode (use-sqlite-wal =
// false locks in a way that a reader cannot join without creating a file), one that has the
// paths of another store directory and none of this one, and rows that do not make sense.
package nixstore
