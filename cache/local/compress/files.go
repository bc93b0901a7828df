package compress

import (
	"container/list"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"narwharf/cache/blob"
	"narwharf/cache/local/encoder"
	"narwharf/narinfo"
)

// storedFile is a whole packed NAR on disk. All but key and digest is guarded by
// Store.mu.
type storedFile struct {
	key     narinfo.Hash
	digest  encoder.Digest
	used    time.Time // last time; no two are the same
	stamped time.Time // what the mtime of the file says
	doubt   bool      // hash it before it is served
	place   *list.Element
}

// stampEvery is how far the mtime of a file may lag behind its last use. Close
// stamps exactly; only after a crash is the order that coarse.
const stampEvery = time.Minute

func (s *Store) path(key narinfo.Hash) string {
	return filepath.Join(s.dir, key.Base32()+encoder.Suffix)
}

// add takes a file in as the one last used. mu is held.
func (s *Store) add(f *storedFile) {
	if old := s.stored[f.key]; old != nil {
		s.forget(old) // an encode that had been given up came through, and the next, too
	}
	f.place = s.order.PushFront(f)
	s.stored[f.key] = f
	s.bytes += f.digest.Size
}

// forget is the opposite of add. It reports whether f was still stored. mu is held.
func (s *Store) forget(f *storedFile) bool {
	if s.stored[f.key] != f {
		return false
	}
	s.order.Remove(f.place)
	delete(s.stored, f.key)
	s.bytes -= f.digest.Size
	return true
}

// doubts is how many files have to be hashed before they are served. mu is held,
// or nobody else has s.
func (s *Store) doubts() (n int) {
	for _, f := range s.stored {
		if f.doubt {
			n++
		}
	}
	return n
}

// now is a time after all that it returned before. mu is held.
func (s *Store) now() time.Time {
	t := time.Now().Round(0)
	if !t.After(s.clock) {
		t = s.clock.Add(1)
	}
	s.clock = t
	return t
}

// stamp sets the mtime of a file. One that cannot be set makes an order after a
// restart that is a little wrong.
func (s *Store) stamp(key narinfo.Hash, used time.Time) {
	if err := os.Chtimes(s.path(key), time.Time{}, used); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Debug("the last use of a packed nar is not written down", "nar", key.Base32(), "error", err)
	}
}

// evict removes files, the least recently used first, until at most limit
// bytes are left or none is. mu is held.
func (s *Store) evict(limit int64) {
	for s.bytes > limit && s.evictOne() {
	}
}

// evictOne removes the least recently used file and reports whether there was
// one. Those who have it open read on. mu is held, so that a file that was made
// anew meanwhile is never the one removed.
func (s *Store) evictOne() bool {
	last := s.order.Back()
	if last == nil {
		return false
	}
	f, _ := last.Value.(*storedFile)
	s.forget(f)
	s.remove(s.path(f.key))
	s.m.evicted.Inc()
	return true
}

// MakeRoom removes the least recently used files until n bytes are free that
// were not, or none is left, and returns how many they had. It is for those who
// need the disk for what cannot be made again. The bytes of a file that is being
// sent are free only when that is done.
func (s *Store) MakeRoom(n int64) (freed int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.bytes
	s.evict(before - max(n, 0))
	return before - s.bytes
}

func (s *Store) remove(name string) {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Error("remove a packed nar", "error", err)
	}
}

// Open opens the whole packed NAR, as a file of the caller's own, and marks it as
// used. The error is fs.ErrNotExist if it was never encoded, is being encoded, or
// had to make room: then Join it. The file stays readable whatever becomes of
// its name.
//
// After the machine went down, the first Open of each file reads it to the end
// to see whether it is whole.
func (s *Store) Open(key narinfo.Hash) (f *os.File, digest encoder.Digest, err error) {
	defer func() {
		if err != nil {
			f, err = nil, about(key, err)
		}
	}()
	stored, stamp, err := s.use(key)
	if err != nil {
		return nil, digest, err
	}
	if err = s.hit("open"); err == nil {
		f, err = blob.OpenFile(s.path(key))
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.mu.Lock()
		s.forget(stored) // it was evicted just now, or someone removed it
		s.mu.Unlock()
		return nil, digest, fs.ErrNotExist
	case err != nil:
		return nil, digest, err
	}
	if damage := s.damage(stored, f); damage != nil {
		f.Close()
		s.drop(stored, damage)
		return nil, digest, fs.ErrNotExist
	}
	if !stamp.IsZero() {
		s.stamp(key, stamp)
	}
	return f, stored.digest, nil
}

// Has tells whether a NAR is kept, as far as that is known without looking at the disk.
func (s *Store) Has(key narinfo.Hash) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stored[key] != nil
}

// about says which NAR an error is about.
func about(key narinfo.Hash, err error) error {
	return fmt.Errorf("packed nar %s: %w", key.Base32(), err)
}

// use finds a file and puts it first. stamp is what its mtime should become, or
// zero.
func (s *Store) use(key narinfo.Hash) (f *storedFile, stamp time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, stamp, ErrClosed
	}
	if f = s.stored[key]; f == nil {
		return nil, stamp, fs.ErrNotExist
	}
	s.order.MoveToFront(f.place)
	f.used = s.now()
	if f.used.Sub(f.stamped) > stampEvery {
		f.stamped = f.used
		stamp = f.used
	}
	return f, stamp, nil
}

// damage says what is wrong with a file. One in doubt is hashed, by the first who asks.
func (s *Store) damage(stored *storedFile, f *os.File) error {
	doubt := func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return stored.doubt
	}
	if !doubt() {
		return examine(f, stored.digest, false)
	}
	s.checking.Lock()
	defer s.checking.Unlock()
	err := examine(f, stored.digest, doubt())
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		stored.doubt = false
	}
	return err
}

// examine says what is wrong with a file, from its size and, if whole is set,
// from its bytes.
func examine(f *os.File, digest encoder.Digest, whole bool) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.Size() != digest.Size {
		return fmt.Errorf("it has %d bytes of %d", st.Size(), digest.Size)
	}
	if !whole {
		return nil
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(f, 0, digest.Size)); err != nil {
		return err
	}
	if got := narinfo.Hash(sum.Sum(nil)); got != digest.Hash {
		return fmt.Errorf("its hash is %s instead of %s", got, digest.Hash)
	}
	return nil
}

// Drop removes a NAR that Open gave out and that turned out not to be readable,
// because of damage, so that the next one who asks has it encoded anew.
func (s *Store) Drop(key narinfo.Hash, damage error) {
	s.mu.Lock()
	f := s.stored[key]
	s.mu.Unlock()
	if f != nil {
		s.drop(f, damage)
	}
}

// drop removes a damaged file.
func (s *Store) drop(f *storedFile, damage error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.forget(f) {
		return
	}
	s.remove(s.path(f.key))
	s.m.dropped.Inc()
	s.log.Error("a packed nar is damaged and is removed", "nar", f.key.Base32(), "damage", damage)
}

// isFull recognises a file system without room, for this user or for all.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// evictIfFull reports whether what failed with err, for want of room, may be
// tried again since a file has gone.
func (s *Store) evictIfFull(err error) bool {
	if !isFull(err) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.evictOne()
}

// create makes the file of an encode, and room for it.
func (s *Store) create(name string) (*os.File, error) {
	if err := s.freeReserve(); err != nil {
		return nil, err
	}
	for {
		err := s.hit("create")
		if err == nil {
			var f *os.File
			if f, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644); err == nil {
				return f, nil
			}
		}
		if !s.evictIfFull(err) {
			return nil, err
		}
	}
}

// freeReserve evicts files until the file system has its reserve free.
func (s *Store) freeReserve() error {
	for {
		if err := s.hit("room"); err != nil {
			return err
		}
		var st syscall.Statfs_t
		if err := syscall.Statfs(s.dir, &st); err != nil {
			return fmt.Errorf("free space of %s: %w", s.dir, err)
		}
		if int64(st.Bavail)*int64(st.Bsize) >= s.reserve {
			return nil
		}
		s.mu.Lock()
		more := s.evictOne()
		s.mu.Unlock()
		if !more {
			return fmt.Errorf("%s is full but for its reserve of %d bytes: %w", s.dir, s.reserve, syscall.ENOSPC)
		}
	}
}
