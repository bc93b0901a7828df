package nixstore

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"narwharf/cache/nixstore/daemon"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

var (
	// ErrNotValid is for paths that Nix does not know. The error that wraps it
	// starts with the path.
	ErrNotValid = daemon.ErrNotValid
	// ErrUnavailable is for a store that can be read neither through its
	// database nor through nix-daemon. It may pass: the next call tries both
	// again.
	ErrUnavailable = errors.New("the local Nix store cannot be read")
	// ErrLocked is for a database that another process has had for itself for
	// longer than Options.Timeout.
	ErrLocked = errors.New("another process holds the Nix database for itself (a schema upgrade, or a repair); try again when it is done")

	errClosed = errors.New("the store has been closed")
)

// databaseError says why the database cannot be read. What it stands for may
// be read through the daemon.
type databaseError struct {
	words string
	hint  string // what a person can do, besides starting nix-daemon
	err   error  // may be nil
}

func (e *databaseError) Error() string {
	if e.err != nil {
		return e.words + ": " + e.err.Error()
	}
	return e.words
}

func (e *databaseError) Unwrap() error { return e.err }

// unavailable joins why neither way works, and what to do.
func unavailable(database, daemon error) error {
	hint := "start nix-daemon"
	var d *databaseError
	if errors.As(database, &d) && d.hint != "" {
		hint += ", or " + d.hint
	}
	return fmt.Errorf("%w: %w; %w: %s", ErrUnavailable, database, daemon, hint)
}

// otherStoreError is for a database whose paths are of another store directory.
// No daemon is asked instead: it is the configuration that is wrong.
type otherStoreError struct{ file, has, wanted string }

func (e *otherStoreError) Error() string {
	return fmt.Sprintf("the database %s has the paths of %s and none of %s: give %s as the store directory, and a root if its files lie below one",
		e.file, e.has, e.wanted, e.has)
}

func (e *otherStoreError) Unwrap() error { return ErrUnavailable }

// explain turns what the driver says into a databaseError; errors that are not
// SQLite's are left alone.
func explain(file string, err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return &databaseError{words: "the database " + file + " is damaged", hint: "look at it with sqlite3's .recover", err: err}
	case sqlite3.SQLITE_ERROR: // no such table or column
		return &databaseError{words: "the database " + file + " is not one that Nix made", err: err}
	case sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH:
		return cannotOpen(file, err)
	case sqlite3.SQLITE_READONLY:
		return &databaseError{words: "the database " + file + " waits for a process that may write to it", hint: "run any Nix command as the store's owner", err: err}
	}
	return &databaseError{words: "the database " + file + " cannot be read", err: err}
}

func cannotOpen(file string, err error) error {
	return &databaseError{words: "the database " + file + " cannot be opened", hint: "let this user read it and the -wal and -shm files beside it", err: err}
}

// locked reports whether err is that of a lock, which goes away.
func locked(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && (e.Code()&0xff == sqlite3.SQLITE_BUSY || e.Code()&0xff == sqlite3.SQLITE_LOCKED)
}

// fileWords says in words why a file cannot be used.
func fileWords(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return "is not there"
	case errors.Is(err, fs.ErrPermission):
		return "may not be read by this user"
	}
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return "cannot be read (" + err.Error() + ")"
}
