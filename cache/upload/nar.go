package upload

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"narwharf/cache/blob"
	"narwharf/cache/index"
	"narwharf/cache/narfile"
	"narwharf/cache/refusal"
	"narwharf/cache/state"
	"narwharf/narinfo"
)

// PutNar takes in the NAR file "nar/<file>" of size bytes (-1: unknown). The
// name starts with the SHA-256 of the file. Putting a file again is no error,
// and mends one that was damaged on the disk.
func (s *Store) PutNar(file string, body io.Reader, size int64) (err error) {
	name := "nar/" + file
	want, err := narinfo.ParseBase32(file[:52])
	if err != nil {
		return refusal.New(refusal.Name, "%s is not named by a SHA-256: %v", name, err)
	}
	if size > s.MaxNarSize {
		return refusal.New(refusal.TooLarge, "the NAR file is %s, larger than the %s that this cache takes", refusal.Size(size), refusal.Size(s.MaxNarSize))
	}
	w, err := s.room.create(name, size)
	if err != nil {
		return err
	}
	defer w.Abort()
	f, err := narfile.Read(file, io.TeeReader(body, w), s.MaxNarSize)
	if err != nil {
		return err
	}
	if f.FileHash != want {
		return refusal.New(refusal.FileHash, "the body's SHA-256 is %s, but it was sent as %s", f.FileHash.Base32(), name)
	}
	return s.commit(w, name, f)
}

// ErrDamagedCopy says that a file is not what PutCopy was told.
var ErrDamagedCopy = errors.New("the compressed NAR was damaged on the disk")

// PutCopy takes in a NAR file that was verified when it was made: in has to be
// what f says, else ErrDamagedCopy.
func (s *Store) PutCopy(file string, in io.Reader, f narfile.Facts) error {
	if st, err := s.Claim(file); err == nil && st.Size == f.FileSize {
		// By an earlier attempt, or of another path with the same content.
		s.remember("nar/"+file, f)
		return nil
	}
	w, err := s.room.create("nar/"+file, f.FileSize)
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
// them once.
func (s *Store) commit(w blob.Writer, name string, f narfile.Facts) error {
	defer s.locks.Lock(name)()
	if err := w.Prepare(); err != nil {
		return err
	}
	added := int64(0)
	old, err := s.Files.Stat(name)
	switch {
	case err != nil:
		added = 1
	case s.aged(old):
		err := s.Index.Change([]string{state.Shared(index.NarLock(name))}, func(*index.Tx) error { return w.Publish() })
		if err != nil {
			return err
		}
	}
	if err := w.Commit(); err != nil {
		return err
	}
	s.narFiles.add(added, f.FileSize-old.Size)
	s.remember(name, f)
	return nil
}

// aged tells whether somebody may be about to sweep a NAR file. Whoever wants to
// keep it then shares its lock in the index.
func (s *Store) aged(st blob.Info) bool { return time.Since(st.ModTime) > s.NarGrace/24 }

// remember keeps what a NAR file is until a narinfo names it, so that it need not
// be read again.
func (s *Store) remember(name string, f narfile.Facts) {
	if users, err := s.Index.Users(name); err != nil || len(users) == 0 {
		s.verified.set(name, f)
	}
}

// Claim stats a NAR file that the caller is about to name in a narinfo: its time
// without one starts anew.
func (s *Store) Claim(file string) (blob.Info, error) {
	name := "nar/" + file
	st, err := s.Files.Stat(name)
	if err == nil && s.aged(st) {
		err = s.Index.Change([]string{state.Shared(index.NarLock(name))}, func(*index.Tx) error { return s.Files.Touch(name) })
	}
	return st, err
}

// factsOf tells what a stored NAR file is: from memory, from a narinfo that
// was checked against it, else by reading it.
func (s *Store) factsOf(file string) (narfile.Facts, error) {
	name := "nar/" + file
	defer s.locks.Lock(name)()
	st, err := s.Files.Stat(name)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return narfile.Facts{}, missingNar(name)
		}
		return narfile.Facts{}, err
	}
	f, ok := s.verified.get(name)
	if ok && f.FileSize == st.Size {
		return f, nil
	}
	users, err := s.Index.Users(name)
	if err != nil {
		return narfile.Facts{}, err
	}
	for _, hash := range users {
		r, err := s.Index.Get(hash)
		if err != nil {
			return narfile.Facts{}, err
		}
		if i := r.Info; i.URL == name && i.FileSize == st.Size {
			return narfile.Facts{Compression: i.Compression, FileHash: i.FileHash, NarHash: i.NarHash, FileSize: i.FileSize, NarSize: i.NarSize}, nil
		}
	}
	f, err = Inspect(s.Files, file)
	if refusal.In(err) != nil {
		// The client saw that the file is here and did not send it. It must
		// go, or the path could never be uploaded.
		s.log.Error("a damaged NAR was in the way of an upload", "file", name, "error", err)
		if err := s.quarantine(st); err != nil {
			return narfile.Facts{}, err
		}
		return narfile.Facts{}, missingNar(name)
	}
	if err != nil {
		return narfile.Facts{}, err
	}
	s.verified.set(name, f)
	return f, nil
}

func missingNar(name string) error {
	return refusal.New(refusal.MissingNar, "%s is not in this cache, upload it before its narinfo; run again with --refresh", name)
}

// Inspect reads a stored NAR file whole and checks its name. What is wrong with
// its bytes is a refusal; any other error says that they could not be read.
func Inspect(files blob.Store, file string) (narfile.Facts, error) {
	in, err := files.Open("nar/" + file)
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
