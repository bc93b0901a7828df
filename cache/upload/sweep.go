package upload

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"time"

	"narwharf/cache/blob"
	"narwharf/cache/index"
)

// alternateGrace is how long an alternate stays after its last PUT or GET: the Nix that
// uploaded it remembers its URL for 30 days.
const alternateGrace = 31 * 24 * time.Hour

// Sweep removes NARs that have had no narinfo for longer than the grace time, alternates
// that have been of use to nobody among them, and returns how many files and bytes went.
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
		err := s.endAlternate(name, now)
		n := int64(-1)
		if err == nil {
			n, err = s.RemoveOrphan(name, now)
		}
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

// endAlternate takes a NAR off the records that have it as an alternate alone, if it is old
// and the file that they use is there.
func (s *Store) endAlternate(name string, now time.Time) error {
	st, err := s.Files.Stat(name)
	if err != nil || now.Sub(st.ModTime) <= alternateGrace {
		return nil // RemoveOrphan meets the error again
	}
	users, err := s.Index.Users(name)
	if err != nil {
		return err
	}
	locks := []string{index.NarLock(name)}
	for _, hash := range users {
		if r, err := s.Index.Get(hash); err != nil || r.Info.URL == name {
			return nil // most are: no change need be tried; what is damaged is for fsck
		}
		locks = append(locks, index.PathLock(hash))
	}
	return s.Index.Change(locks, func(tx *index.Tx) error {
		is, err := tx.Users(name)
		st, missing := s.Files.Stat(name)
		if err != nil || missing != nil || now.Sub(st.ModTime) <= alternateGrace {
			return err
		}
		var next []*index.Record
		for _, hash := range is {
			r, err := tx.Record(hash)
			if err != nil {
				return err
			}
			if _, err := s.Files.Stat(r.Info.URL); err != nil || r.Info.URL == name || !slices.Contains(locks, index.PathLock(hash)) {
				return nil
			}
			r.Alternates = slices.DeleteFunc(slices.Clone(r.Alternates), func(a string) bool { return a == name })
			next = append(next, r)
		}
		for _, r := range next {
			if err := tx.Put(r); err != nil {
				return err
			}
		}
		return nil
	})
}

// Asked notes that somebody read a NAR file, of which st is known, once a day. What no
// narinfo names is kept by its uploader alone.
func (s *Store) Asked(st blob.Info) {
	if s.AskedLately(st) {
		return
	}
	if users, err := s.Index.Users(st.Name); err == nil && len(users) > 0 {
		if err := s.Files.Touch(st.Name); err != nil {
			s.log.Warn("that a NAR was asked for cannot be noted: its time cannot be set", "file", st.Name, "error", err)
		}
	}
}

// AskedLately tells whether Asked has nothing to note.
func (s *Store) AskedLately(st blob.Info) bool { return time.Since(st.ModTime) < 24*time.Hour }

// RemoveOrphan removes one NAR if, in the index's transaction, it is still old and
// unnamed. It returns its size, -1 if it stays.
func (s *Store) RemoveOrphan(name string, now time.Time) (int64, error) {
	defer s.locks.Lock(name)()
	size := int64(-1)
	err := s.Index.Change([]string{index.NarLock(name)}, func(tx *index.Tx) error {
		users, err := tx.Users(name)
		if err != nil || len(users) > 0 {
			return err
		}
		st, err := s.Files.Stat(name)
		if errors.Is(err, fs.ErrNotExist) || err == nil && now.Sub(st.ModTime) <= s.NarGrace {
			return nil
		}
		if err == nil {
			if err = s.removeNar(st); err == nil {
				size = st.Size
			}
		}
		return err
	})
	return size, err
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

// QuarantineDir is where damaged files go; a NAR keeps its own name there.
const QuarantineDir = "quarantine"

// Quarantine moves a NAR file out of the way, unless another has taken its place
// since st was seen.
func (s *Store) Quarantine(st blob.Info) error {
	defer s.locks.Lock(st.Name)()
	return s.quarantine(st)
}

func (s *Store) quarantine(st blob.Info) error {
	if is, err := CopyToQuarantine(s.Files, st.Name); err != nil || is != st {
		return err
	}
	return s.Index.Change([]string{index.NarLock(st.Name)}, func(*index.Tx) error {
		if now, err := s.Files.Stat(st.Name); err != nil || now != st {
			return nil
		}
		return s.removeNar(st)
	})
}

// CopyToQuarantine copies a file to where a person can look at it, and tells what it
// copied. There being none is no error.
func CopyToQuarantine(files blob.Store, name string) (blob.Info, error) {
	in, err := files.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return blob.Info{}, nil
	}
	if err != nil {
		return blob.Info{}, err
	}
	defer in.Close()
	out, err := files.Create(QuarantineDir+"/"+name, in.Size)
	if err != nil {
		return blob.Info{}, err
	}
	defer out.Abort()
	if _, err := io.Copy(out, in.Content); err != nil {
		return blob.Info{}, err
	}
	return in.Info, out.Commit()
}
