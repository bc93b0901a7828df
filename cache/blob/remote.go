package blob

import (
	"context"
	"errors"
	"io"
	"os"
)

// ErrAway is in the error of a store that keeps its files elsewhere, and cannot reach them
// now. Trying again helps once it can.
var ErrAway = errors.New("the bucket with the files does not answer")

// Remote is a Store that keeps its files elsewhere and copies of some here.
type Remote interface {
	Store
	// Wait returns once the files can be reached, or ErrAway after a minute or so.
	Wait(ctx context.Context) error
	// Copy opens the copy that lies here whole, if one may be sent from here.
	Copy(name string) (*File, error)
	// Uncached is the store without its copies: what really lies there.
	Uncached() Store
	// Link is a URL from which anybody can read a file for some minutes, "" if clients
	// are to read from here. It does not ask whether there is such a file.
	Link(name string) (string, error)
	// String says where the files are, without secrets.
	String() string
}

// Wait returns once the files of a store can be reached, or ErrAway after a minute or so.
func Wait(ctx context.Context, s Store) error {
	if r, ok := s.(Remote); ok {
		return r.Wait(ctx)
	}
	return nil
}

// Uncached is a store without copies of what lies elsewhere. Who checks files reads
// there, and does not drive out of the copies what clients ask for.
func Uncached(s Store) Store {
	if r, ok := s.(Remote); ok {
		return r.Uncached()
	}
	return s
}

// Link is a URL from which a client shall read a file that is there, "" if from us. A store
// that is away has none: there may be a copy.
func Link(s Store, name string) (string, error) {
	r, ok := s.(Remote)
	if !ok {
		return "", nil
	}
	url, err := r.Link(name)
	if err == nil && url != "" {
		_, err = r.Stat(name)
	}
	if errors.Is(err, ErrAway) {
		return "", nil
	}
	return url, err
}

// Head opens a file to be told of, with its size and without its bytes: nothing is fetched.
func Head(s Store, name string) (*File, error) {
	r, ok := s.(Remote)
	if !ok {
		return s.Open(name)
	}
	st, err := r.Stat(name)
	if errors.Is(err, ErrAway) {
		return r.Copy(name)
	}
	if err != nil {
		return nil, err
	}
	return &File{Info: st, Content: unread{io.NewSectionReader(nil, 0, st.Size)}}, nil
}

// unread has a size, and no bytes.
type unread struct{ *io.SectionReader }

func (unread) Read([]byte) (int, error) { return 0, errors.New("only its size is known") }
func (unread) Close() error             { return nil }

// OpenHere opens a file that is on this machine and may be sent from it. It does not wait
// for a network.
func OpenHere(s Store, name string) (*os.File, int64, error) {
	open := s.Open
	if r, ok := s.(Remote); ok {
		open = r.Copy
	}
	f, err := open(name)
	if err != nil {
		return nil, 0, err
	}
	file, ok := f.Content.(*os.File)
	if !ok {
		return nil, 0, errors.Join(errors.New(name+" is not on this machine"), f.Close())
	}
	return file, f.Size, nil
}

// Free is how many bytes uploads find free. It is not known where files are elsewhere.
func Free(s Store) (free int64, known bool, err error) {
	disk, ok := s.(*FS)
	if !ok {
		return 0, false, nil
	}
	free, err = disk.Free()
	return free, true, err
}

// Keep stats a file that is about to be removed, and keeps a disk from freeing it before
// done is closed: with a large file that takes time, for which nobody should wait.
func Keep(s Store, name string) (Info, io.Closer, error) {
	if _, ok := s.(*FS); !ok {
		st, err := s.Stat(name)
		return st, io.NopCloser(nil), err
	}
	f, err := s.Open(name)
	if err != nil {
		return Info{}, nil, err
	}
	return f.Info, f, nil
}
