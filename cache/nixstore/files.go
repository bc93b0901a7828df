package nixstore

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// schemaVersion is nixSchemaVersion of Nix, the same since Nix 1.12
// (src/libstore/include/nix/store/local-store.hh). Later changes of the tables
// leave the number and are of no concern to what is read here.
const schemaVersion = "10"

// fileID tells a file from one that took its place. The zero value is no file.
type fileID struct {
	dev, ino uint64
	errno    unix.Errno // why it could not be looked at, such as ENOENT
}

// files are those that an open database stands on. They are compared before
// every question. SQLite removes -wal and -shm only when nobody has the database
// open, so while we have, each of these stays or somebody put another in place.
type files struct {
	db, wal, shm fileID
	schema       fileID
	schemaTime   unix.Timespec // Nix rewrites the file in place
}

func databaseIn(state string) string { return state + "/db/db.sqlite" }

func filesIn(state string) files {
	db := databaseIn(state)
	var f files
	f.db, _ = lookAt(db)
	f.wal, _ = lookAt(db + "-wal")
	f.shm, _ = lookAt(db + "-shm")
	f.schema, f.schemaTime = lookAt(state + "/db/schema")
	return f
}

func lookAt(path string) (fileID, unix.Timespec) {
	var st unix.Stat_t
	for {
		err := unix.Stat(path, &st)
		if err == nil {
			return fileID{dev: uint64(st.Dev), ino: st.Ino}, st.Mtim
		}
		if err == unix.EINTR {
			continue
		}
		var errno unix.Errno
		if !errors.As(err, &errno) {
			errno = unix.EIO
		}
		return fileID{errno: errno}, unix.Timespec{}
	}
}

// identify is lookAt for an open file.
func identify(f *os.File) fileID {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fileID{errno: unix.EIO}
	}
	return fileID{dev: uint64(st.Dev), ino: st.Ino}
}

// inPlace is less than comparing with filesIn, and enough for telling whether the
// open -shm file is the one that Nix writes to.
func (f *files) inPlace(db string) bool {
	now, _ := lookAt(db)
	if now != f.db {
		return false
	}
	now, _ = lookAt(db + "-shm")
	return now == f.shm
}

// check says why the database cannot be opened, as far as looking from outside
// tells. It must not open the database file itself: closing it again would drop
// every lock that SQLite has on it in this process (fcntl's rule).
func (f files) check(state string) error {
	db := databaseIn(state)
	if f.db.errno != 0 {
		hint := ""
		if f.db.errno == unix.ENOENT || f.db.errno == unix.ENOTDIR {
			hint = "give the right store and state directory"
		}
		return &databaseError{words: "the database " + db + " " + fileWords(f.db.errno), hint: hint}
	}
	schema, err := os.ReadFile(state + "/db/schema")
	if err != nil {
		return &databaseError{words: "the file " + state + "/db/schema, which says how to read the database, " + fileWords(err)}
	}
	if v := bytes.TrimSpace(schema); string(v) != schemaVersion {
		return &databaseError{
			words: fmt.Sprintf("the database %s has schema %.20q; only %s is known here", db, v, schemaVersion),
			hint:  "use a Nix and a Narwharf of about the same age",
		}
	}
	for _, side := range []struct {
		name string
		fileID
	}{{"-wal", f.wal}, {"-shm", f.shm}} {
		if side.errno == 0 {
			continue
		}
		if errors.Is(side.errno, fs.ErrNotExist) {
			return &databaseError{
				words: "the database " + db + " has no " + side.name + " file beside it, which only Nix may create",
				hint:  "use Nix 2.22 or later, which leaves that file in place",
			}
		}
		return &databaseError{words: "the file " + db + side.name + " " + fileWords(side.errno)}
	}
	return nil
}

// The head of the -shm file, SQLite's WAL-index: 48 bytes, twice, of which every
// commit, checkpoint and recovery changes some (https://sqlite.org/walformat.html,
// section 2.1). A connection compares it with the one that it saw last in order
// to know whether what it has in memory is still true, and that is all that
// PRAGMA data_version tells. So two heads that are equal mean what two equal
// data_versions mean, and reading one takes no connection, no lock and no
// statement.
//
// That is what lets the local store's narinfos keep up with nginx ("local store:
// narinfo" in bench/PERFORMANCE.md, 10 µs a request): the PRAGMA alone takes as
// long as such a request.
//
// It is read and not mapped: a mapping of a file that somebody cuts short would
// kill the process.

const (
	headSize = 48
	headInit = 12 // the byte that says whether the head is filled in
)

type head [headSize]byte

// indexFile is a -shm file open for reading its head. There is one for each such
// file in this process, however many databases and Stores use it: closing any
// descriptor of a file takes off all locks that this process has on it (fcntl's
// rule), SQLite's as well. So it is opened before the first connection to the
// database and closed after the last one is gone.
type indexFile struct {
	*os.File
	id    fileID
	users int        // guarded by indexFiles
	spare []*os.File // further descriptors, which may not be closed earlier
}

var indexFiles struct {
	sync.Mutex
	open map[fileID]*indexFile
}

// openIndex opens the -shm file at path if it is the one with this id; else it
// returns nil and no error.
func openIndex(path string, id fileID) (*indexFile, error) {
	indexFiles.Lock()
	defer indexFiles.Unlock()
	if x := indexFiles.open[id]; x != nil {
		x.users++
		return x, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if now := identify(f); now != id { // another was put in place
		if x := indexFiles.open[now]; x != nil {
			x.spare = append(x.spare, f)
			return nil, nil
		}
		return nil, f.Close()
	}
	x := &indexFile{File: f, id: id, users: 1}
	if indexFiles.open == nil {
		indexFiles.open = make(map[fileID]*indexFile)
	}
	indexFiles.open[id] = x
	return x, nil
}

// release is called when no connection to the database is left.
func (x *indexFile) release() {
	indexFiles.Lock()
	defer indexFiles.Unlock()
	if x.users--; x.users == 0 {
		delete(indexFiles.open, x.id)
		for _, f := range append(x.spare, x.File) {
			f.Close()
		}
	}
}

// head reads the head. ok is false if it is not filled in, or a writer is at
// work on it or died there.
func (x *indexFile) head() (h head, ok bool) {
	var both [2 * headSize]byte
	if n, err := x.ReadAt(both[:], 0); n < len(both) || err != nil {
		return h, false
	}
	h = head(both[:headSize])
	return h, h == head(both[headSize:]) && h[headInit] != 0
}
