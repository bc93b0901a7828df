// Package blob keeps the content files of a cache: NARs, narinfos, listings,
// logs, each under a slash-separated name such as "nar/0xwn….nar.zst".
//
// Store is the contract; FS keeps the files in a folder in the plain layout of
// a Nix binary cache, so that the folder is itself a file:// cache that any
// Nix can read when this program is not running.
//
// # What a store promises
//
//   - A name either holds one whole file or nothing. Whoever opens it never
//     sees a part, whatever was killed or cut while it was written.
//   - When Commit has returned nil, the file survives a power cut.
//   - When anything failed, nothing of the write is left behind but, after a
//     crash, a temporary file outside the names, which Clean removes.
//   - Replacing a name is atomic; readers that had the old file open keep it.
//
// A store does not retry and does not interpret what it holds.
package blob

import (
	"errors"
	"io"
	"time"
)

// ErrFull is returned, wrapped with numbers, when the file system has no room
// for what was announced or written (ENOSPC, EDQUOT, or below the reserve).
var ErrFull = errors.New("no space left for uploads")

// Info describes one stored file.
type Info struct {
	Name    string // slash-separated, as given to Create
	Size    int64  // bytes
	ModTime time.Time
}

// File is a stored file opened for reading.
//
// Content is a bare *os.File where the store keeps files, not a wrapper of
// one: only then does net/http hand it to sendfile(2).
type File struct {
	Info
	Content io.ReadSeekCloser
}

// Close ends the reading.
func (f *File) Close() error { return f.Content.Close() }

// Writer takes the bytes of one file. It ends with Commit or Abort; Abort after
// either is harmless, so it can be deferred.
type Writer interface {
	io.Writer
	// Prepare makes the bytes durable, which have no name yet. It is what takes
	// time in Publish and Commit, for who calls those where others wait.
	Prepare() error
	// Publish makes the file visible under its name, replacing what was there.
	// It is durable only after Commit, and Abort does not take it back. Another
	// call does nothing.
	Publish() error
	// Commit makes the file durable and visible under its name, replacing
	// what was there. On error the name holds what it held before, nothing
	// or the old file, and nothing is left elsewhere.
	Commit() error
	// Abort drops what was written.
	Abort()
}

// Store is a set of named files. All methods may be called at once from many
// goroutines. A missing name is an error that Is fs.ErrNotExist; a name that
// could leave the store (empty, "..", a leading dot, NUL) or is longer than a
// file system takes is an error that Is fs.ErrInvalid.
type Store interface {
	// Create starts a file. size is the number of bytes that will come, -1
	// if unknown; ErrFull is returned at once if they cannot fit. More may
	// come than was announced, as long as there is room.
	Create(name string, size int64) (Writer, error)
	// Open opens a file for reading.
	Open(name string) (*File, error)
	// Stat tells size and time without opening.
	Stat(name string) (Info, error)
	// Remove deletes files durably. Removing a missing name is no error. One that
	// cannot be removed keeps none of the others. After an error files may be
	// gone, and may come back in a crash.
	Remove(names ...string) error
	// List calls fn for each file directly in dir ("" is the top), in no
	// particular order, and stops at fn's first error. A missing dir is
	// empty. Files that vanish meanwhile are left out.
	List(dir string, fn func(Info) error) error
	// Folders returns the last segments of the folders directly in dir (""
	// is the top), in no particular order. Names with a leading dot are left out.
	Folders(dir string) ([]string, error)
}

// WriteFile stores data under name in one go.
func WriteFile(s Store, name string, data []byte) error {
	w, err := Prepare(s, name, data)
	if err != nil {
		return err
	}
	return w.Commit()
}

// Prepare writes data for name, to be published.
func Prepare(s Store, name string, data []byte) (Writer, error) {
	w, err := s.Create(name, int64(len(data)))
	if err != nil {
		return nil, err
	}
	if _, err = w.Write(data); err == nil {
		err = w.Prepare()
	}
	if err != nil {
		w.Abort()
		return nil, err
	}
	return w, nil
}

// ReadFile returns what is stored under name, refusing more than limit bytes.
func ReadFile(s Store, name string, limit int64) ([]byte, error) {
	f, err := s.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if f.Size > limit {
		return nil, errors.New(name + ": larger than this program ever writes")
	}
	data := make([]byte, f.Size)
	if _, err := io.ReadFull(f.Content, data); err != nil {
		return nil, err
	}
	return data, nil
}
