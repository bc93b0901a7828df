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
	"narwharf/narinfo"
)

// keptFile is a whole packed NAR on disk. All but key and facts is guarded by
// Store.mu.
type keptFile struct {
	key      narinfo.Hash
	digest   Digest
	used     time.Time     // last time; no two are the same
	stamped  time.Time     // what the mtime of the file says
	doubt    bool          // hash it before it is served
	checking chan struct{} // closed when whoever does so is done
	place    *list.Element
}

// stampEvery is how far the mtime of a file may lag behind its last use. Close
// stamps exactly; only after a crash is the order that coarse.
const stampEvery = time.Minute

func (s *Store) path(key narinfo.Hash) string { return filepath.Join(s.dir, fileName(key)) }

// keep takes a file in as the one last used. mu is held.
func (s *Store) keep(k *keptFile) {
	if old := s.kept[k.key]; old != nil {
		s.forget(old) // two flights, one of which had been given up, came through
	}
	k.place = s.order.PushFront(k)
	s.kept[k.key] = k
	s.bytes += k.digest.Size
	if k.doubt {
		s.doubts++
	}
}

// forget is the opposite of keep. It reports whether k was still kept. mu is held.
func (s *Store) forget(k *keptFile) bool {
	if s.kept[k.key] != k {
		return false
	}
	s.order.Remove(k.place)
	delete(s.kept, k.key)
	s.bytes -= k.digest.Size
	if k.doubt {
		s.doubts--
	}
	return true
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
	k, _ := last.Value.(*keptFile)
	s.forget(k)
	s.remove(s.path(k.key))
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
	for before := s.bytes; freed < n && s.evictOne(); {
		freed = before - s.bytes
	}
	return freed
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
func (s *Store) Open(name string) (*os.File, Digest, error) {
	key, err := parseName(name)
	if err != nil {
		return nil, Digest{}, err
	}
	f, digest, err := s.open(key)
	if err != nil {
		return nil, Digest{}, fmt.Errorf("packed nar %s: %w", name, err)
	}
	return f, digest, nil
}

func (s *Store) open(key narinfo.Hash) (*os.File, Digest, error) {
	k, stamp, check, err := s.use(key)
	if err != nil {
		return nil, Digest{}, err
	}
	examined := false
	if check {
		defer func() { s.checked(k, examined) }()
	}
	f, err := s.openFile(s.path(key))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.mu.Lock()
		s.forget(k) // it was evicted just now, or someone removed it
		s.mu.Unlock()
		return nil, Digest{}, fs.ErrNotExist
	case err != nil:
		return nil, Digest{}, err
	}
	damage := examine(f, k.digest, check)
	examined = true
	if damage != nil {
		f.Close()
		s.drop(k, damage)
		return nil, Digest{}, fs.ErrNotExist
	}
	if !stamp.IsZero() {
		s.stamp(key, stamp)
	}
	return f, k.digest, nil
}

func (s *Store) openFile(name string) (*os.File, error) {
	if err := s.hit("open"); err != nil {
		return nil, err
	}
	return blob.OpenFile(name)
}

// use finds a file and puts it first. stamp is what its mtime should become, or
// zero. If check is true the caller has to examine the file and call checked;
// if somebody else does so, use waits for the outcome.
func (s *Store) use(key narinfo.Hash) (k *keptFile, stamp time.Time, check bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.closed {
			return nil, stamp, false, ErrClosed
		}
		k = s.kept[key]
		if k == nil {
			return nil, stamp, false, fs.ErrNotExist
		}
		if !k.doubt || k.checking == nil {
			break
		}
		wait := k.checking
		s.mu.Unlock()
		<-wait
		s.mu.Lock()
	}
	if k.doubt {
		k.checking = make(chan struct{})
	}
	s.order.MoveToFront(k.place)
	k.used = s.now()
	if k.used.Sub(k.stamped) > stampEvery {
		k.stamped = k.used
		stamp = k.used
	}
	return k, stamp, k.doubt, nil
}

// checked lets those go on who wait for the outcome of an examination. The doubt
// is over if there was one; a file that was damaged is dropped by now.
func (s *Store) checked(k *keptFile, examined bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if examined && s.kept[k.key] == k {
		s.doubts--
		k.doubt = false
	}
	close(k.checking)
	k.checking = nil
}

// examine says what is wrong with a file, from its size and, if whole is set,
// from its bytes.
func examine(f *os.File, digest Digest, whole bool) error {
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
func (s *Store) Drop(name string, damage error) error {
	key, err := parseName(name)
	if err != nil {
		return err
	}
	s.dropKey(key, damage)
	return nil
}

func (s *Store) dropKey(key narinfo.Hash, damage error) {
	s.mu.Lock()
	k := s.kept[key]
	s.mu.Unlock()
	if k != nil {
		s.drop(k, damage)
	}
}

// drop removes a damaged file.
func (s *Store) drop(k *keptFile, damage error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.forget(k) {
		return
	}
	s.remove(s.path(k.key))
	s.m.dropped.Inc()
	s.log.Error("a packed nar is damaged and is removed", "nar", k.key.Base32(), "damage", damage)
}

// isFull recognises a file system without room, for this user or for all.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// keepReserve evicts files until the file system has its reserve free.
func (s *Store) keepReserve() error {
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
