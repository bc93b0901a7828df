package nixstore

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"

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
