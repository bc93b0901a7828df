package nixstore

import (
	"os"
	"sync"
)

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
