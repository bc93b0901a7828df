package upload

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"narwharf/cache/blob"
)

// Sweep removes NARs that have had no narinfo for longer than the grace time,
// and returns how many files and bytes went.
func (s *Store) Sweep(now time.Time) (files int, size int64, err error) {
	var old []string
	err = s.Files.List("nar", func(st blob.Info) error {
		if now.Sub(st.ModTime) > s.NarGrace {
			old = append(old, st.Name)
		}
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	var errs []error
	for _, name := range old {
		n, err := s.RemoveOrphan(name, now)
		if err != nil {
			errs = append(errs, err) // one that cannot go must not keep the others
			continue
		}
		if n >= 0 {
			files++
			size += n
		}
	}
	return files, size, errors.Join(errs...)
}

// RemoveOrphan removes one NAR if, under its lock, it is still old and unnamed.
// It returns its size, -1 if it stays.
func (s *Store) RemoveOrphan(name string, now time.Time) (int64, error) {
	s.gate.RLock() // Rebuild may be about to name it
	defer s.gate.RUnlock()
	defer s.locks.Lock(name)()
	users, err := s.Index.Users(name)
	if err != nil || len(users) > 0 {
		return -1, err
	}
	st, err := s.Files.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return -1, nil
	}
	if err != nil {
		return -1, err
	}
	if now.Sub(st.ModTime) <= s.NarGrace {
		return -1, nil
	}
	if err := s.removeNar(st); err != nil {
		return -1, err
	}
	return st.Size, nil
}

// removeNar deletes a NAR file, of which st is known. The caller holds its
// lock.
func (s *Store) removeNar(st blob.Info) error {
	err := s.Files.Remove(st.Name)
	// A failed removal may be one whose folder could not be synced.
	if _, now := s.Files.Stat(st.Name); errors.Is(now, fs.ErrNotExist) {
		s.verified.forget(st.Name)
		s.narFiles.add(-1, -st.Size)
	}
	return err
}

// SweepUntil sweeps now and then until ctx ends.
func (s *Store) SweepUntil(ctx context.Context) {
	tick := time.NewTicker(min(max(s.NarGrace/24, time.Minute), time.Hour))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			files, bytes, err := s.Sweep(now)
			s.swept.Add(int64(files))
			if err != nil {
				s.log.Error("sweep", "error", err)
			} else if files > 0 {
				s.log.Info("removed NARs that never got a narinfo", "files", files, "bytes", bytes)
			}
		}
	}
}
