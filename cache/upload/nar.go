package upload

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"narwharf/cache/blob"
	"narwharf/cache/index"
	"narwharf/cache/narfile"
	"narwharf/cache/refusal"
	"narwharf/narinfo"
)

// PutNar takes in the NAR file "nar/<file>" of size bytes (-1: unknown). The
// name starts with the SHA-256 of the file. Putting a file again is no error,
// and mends one that was damaged on the disk. A file that is new becomes durable, and gets its name, while
// the client goes on: its narinfo waits for that, and fails if that does.
func (s *Store) PutNar(file string, body io.Reader, size int64) (err error) {
	name := "nar/" + file
	want, err := narinfo.ParseBase32(file[:52])
	if err != nil {
		return refusal.New(refusal.Name, "%s is not named by a SHA-256: %v", name, err)
	}
	if size > s.MaxNarSize {
		return refusal.New(refusal.TooLarge, "the NAR file is %s, larger than the %s that this cache takes", refusal.Size(size), refusal.Size(s.MaxNarSize))
	}
	w, err := s.room.Create(name, size)
	if err != nil {
		return err
	}
	commits := false
	defer func() {
		if !commits {
			w.Abort()
		}
	}()
	f, err := narfile.Read(file, io.TeeReader(body, w), s.MaxNarSize)
	if err != nil {
		return err
	}
	if f.FileHash != want {
		return refusal.New(refusal.FileHash, "the body's SHA-256 is %s, but it was sent as %s", f.FileHash.Base32(), name)
	}
	if s.isNew(name) {
		commits = s.settling.Begin(name, f, func() error {
			defer w.Abort()
			err := s.commit(w, name, f)
			if err != nil {
				s.Log.Error("a NAR that was received cannot be stored", "file", name, "error", err)
			}
			return err
		})
	}
	if commits {
		return nil
	}
	return s.commit(w, name, f)
}

// isNew tells whether a NAR file that was received may settle while its client goes on: nobody counts on one that is
// there, and its narinfo will be sent to this server.
func (s *Store) isNew(name string) bool {
	if _, here := s.Files.(*blob.FS); !here || s.Shared {
		return false
	}
	users, row, err := s.noted(name)
	if err != nil || row != nil || len(users) > 0 {
		return false
	}
	_, err = s.Files.Stat(name)
	return errors.Is(err, fs.ErrNotExist)
}

// ErrDamagedCopy says that a file is not what PutCopy was told.
var ErrDamagedCopy = errors.New("the compressed NAR was damaged on the disk")

// PutCopy takes in a NAR file that was verified when it was made: in has to be
// what f says, else ErrDamagedCopy.
func (s *Store) PutCopy(file string, in io.Reader, f narfile.Facts) error {
	if st, err := s.claim("nar/"+file, f); err == nil && st.Size == f.FileSize {
		return nil // by an earlier attempt, or of another path with the same content
	}
	w, err := s.room.Create("nar/"+file, f.FileSize)
	if err != nil {
		return err
	}
	defer w.Abort()
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, sum), in)
	if err != nil {
		return err
	}
	if n != f.FileSize || narinfo.Hash(sum.Sum(nil)) != f.FileHash {
		return ErrDamagedCopy
	}
	return s.commit(w, "nar/"+file, f)
}

// commit ends the writing of a NAR file. It does so also if the file is there: we
// know of these bytes that they are right, and of those only that somebody wrote
// them once. Who may be about to delete it waits for its lock then, and reads again.
func (s *Store) commit(w blob.Writer, name string, f narfile.Facts) error {
	defer s.locks.Lock(name)()
	if err := w.Prepare(); err != nil {
		return err
	}
	users, row, err := s.noted(name)
	if err != nil {
		return err
	}
	added := int64(0)
	old, err := s.Files.Stat(name)
	if err != nil {
		added = 1
	}
	noted := s.Shared || row != nil || len(users) > 0 || err == nil
	if noted {
		if err := s.ask(name, f, users, w.Publish); err != nil {
			return err
		}
	}
	if err := w.Commit(); err != nil {
		return err
	}
	s.narFiles.Add(added, f.FileSize-old.Size)
	if !noted {
		s.verified.Set(name, f)
	}
	return nil
}

// factsOf tells what a stored NAR file is: from memory, from its row, from a narinfo
// that was checked against it, else by reading it.
func (s *Store) factsOf(file string) (narfile.Facts, error) {
	name := "nar/" + file
	if f, ok := s.settling.Facts(name); ok {
		return f, nil // write waits for it
	}
	if err := s.Settled(name); err != nil {
		return narfile.Facts{}, err
	}
	defer s.locks.Lock(name)()
	st, err := s.Files.Stat(name)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return narfile.Facts{}, missingNar(name)
		}
		return narfile.Facts{}, err
	}
	f, ok := s.verified.Get(name)
	if ok && f.FileSize == st.Size {
		return f, nil
	}
	users, row, err := s.noted(name)
	if err != nil {
		return narfile.Facts{}, err
	}
	if row != nil && !row.Facts.FileHash.IsZero() && row.Facts.FileSize == st.Size {
		return narfile.Facts(row.Facts), nil
	}
	for _, hash := range users {
		r, err := s.Index.Get(hash)
		if errors.Is(err, index.ErrNotFound) {
			continue // collected meanwhile
		}
		if err != nil {
			return narfile.Facts{}, err
		}
		if i := r.Info; i.URL == name && i.FileSize == st.Size {
			return narfile.Facts(index.FactsOf(i)), nil
		}
	}
	f, err = Inspect(s.Files, file)
	if refusal.In(err) != nil {
		// The client saw that the file is here and did not send it. It must
		// go, or the path could never be uploaded.
		s.Log.Error("a damaged NAR was in the way of an upload", "file", name, "error", err)
		if err := s.quarantine(st); err != nil {
			return narfile.Facts{}, err
		}
		return narfile.Facts{}, missingNar(name)
	}
	if err != nil {
		return narfile.Facts{}, err
	}
	s.verified.Set(name, f)
	return f, nil
}

func missingNar(name string) error {
	return refusal.New(refusal.MissingNar, "%s is not in this cache, upload it before its narinfo; run again with --refresh", name)
}

// Inspect reads a stored NAR file whole and checks its name. What is wrong with
// its bytes is a refusal; any other error says that they could not be read.
func Inspect(files blob.Store, file string) (narfile.Facts, error) {
	in, err := blob.Uncached(files).Open("nar/" + file)
	if err != nil {
		return narfile.Facts{}, err
	}
	defer in.Close()
	f, err := narfile.Read(file, in.Content, narfile.NoLimit)
	if err != nil {
		return narfile.Facts{}, fmt.Errorf("nar/%s: %w", file, err)
	}
	if f.FileHash.Base32() != file[:52] {
		return narfile.Facts{}, refusal.New(refusal.FileHash, "nar/%s: the file's SHA-256 is %s", file, f.FileHash.Base32())
	}
	return f, nil
}
