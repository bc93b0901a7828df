package upload

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"narwharf/cache/blob"
	"narwharf/cache/index"
)

// Sweep removes NARs that have had no narinfo for longer than the grace time, alternates
// that have been of use to nobody, and what a collection left, and returns how many NAR
// files and bytes went.
func (s *Store) Sweep(now time.Time) (files int, size int64, err error) {
	err = errors.Join(s.Finish(context.Background()), s.keepVerified(now))
	if err != nil {
		return 0, 0, err
	}
	var old, alternates []string
	err = s.Index.EachFile(func(name string, f *index.File) error {
		if !s.swept(f, now) {
			return nil
		}
		users, err := s.Index.Users(name)
		switch {
		case err != nil:
			return err
		case len(users) == 0:
			old = append(old, name)
		case now.Sub(f.Asked) > s.Grace:
			alternates = append(alternates, name)
		}
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	var errs []error
	for _, name := range alternates {
		if err := s.endAlternate(name, now); err != nil {
			errs = append(errs, err) // one that cannot go must not keep the others
		} else {
			old = append(old, name)
		}
	}
	files, size, err = s.removeFiles(old, func(f *index.File) bool { return s.swept(f, now) })
	return files, size, errors.Join(append(errs, err)...)
}

// swept tells whether a NAR file that no record names may go.
func (s *Store) swept(f *index.File, now time.Time) bool {
	return f.Doomed || now.Sub(f.Asked) > s.NarGrace
}

// endAlternate takes a NAR off the records that have it as an alternate alone, if nobody
// has asked for it and the file that they use is there.
func (s *Store) endAlternate(name string, now time.Time) error {
	users, err := s.Index.Users(name)
	if err != nil {
		return err
	}
	locks := []string{index.NarLock(name)}
	for _, hash := range users {
		if r, err := s.Index.Get(hash); err != nil || r.Info.URL == name {
			return nil // it needs no row; what is damaged is for fsck
		}
		locks = append(locks, index.PathLock(hash))
	}
	return s.Index.Change(locks, func(tx *index.Tx) error {
		is, err := tx.Users(name)
		if err != nil {
			return err
		}
		row, err := tx.File(name)
		if err != nil || row == nil || now.Sub(row.Asked) <= s.Grace {
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
		return tx.PutFile(name, row) // which the last Put has made one that was asked for now
	})
}

// RemoveUnnamed removes one NAR if no record names it and its time is over. It returns
// its size, -1 if it stays.
func (s *Store) RemoveUnnamed(name string, now time.Time) (int64, error) {
	n, size, err := s.removeSome([]string{name}, func(f *index.File) bool { return s.swept(f, now) })
	if n == 0 {
		size = -1
	}
	return size, err
}

// removeAtOnce is how many NAR files go in one transaction.
const removeAtOnce = 64

// removeFiles removes those of NAR files that no record names and whose row may go.
func (s *Store) removeFiles(names []string, may func(f *index.File) bool) (files int, size int64, err error) {
	var errs []error
	remove := func(part []string) error {
		n, freed, err := s.removeSome(part, may)
		files, size = files+n, size+freed
		return err
	}
	for part := range slices.Chunk(names, removeAtOnce) {
		if remove(part) == nil {
			continue
		}
		for _, name := range part { // one that cannot go must not keep the others
			if err := remove([]string{name}); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return files, size, errors.Join(errs...)
}

// removeSome removes NAR files in one transaction. Who wants one meanwhile waits for its
// lock, and then finds it gone or has made its time begin anew before.
func (s *Store) removeSome(names []string, may func(f *index.File) bool) (files int, size int64, err error) {
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	var locks []string
	var were []blob.Info
	for _, name := range names {
		defer s.locks.Lock(name)()
		locks = append(locks, index.NarLock(name))
		if st, kept, err := blob.Keep(s.Files, name); err == nil {
			defer kept.Close() // the file system frees a large file when nobody has it open: not while others wait for the transaction
			were = append(were, st)
		}
	}
	err = s.Index.Change(locks, func(tx *index.Tx) error {
		going, err := unnamed(tx, names, may)
		if err == nil {
			err = s.Files.Remove(going...)
		}
		for _, name := range going {
			err = cmp.Or(err, tx.DropFile(name))
		}
		return err
	})
	for _, st := range were {
		if s.recount(st) {
			files++
			size += st.Size
		}
	}
	return files, size, err
}

// unnamed are those of NAR files that no record names and whose row may go.
func unnamed(tx *index.Tx, names []string, may func(f *index.File) bool) (going []string, err error) {
	for _, name := range names {
		users, err := tx.Users(name)
		row, err2 := tx.File(name)
		if err := cmp.Or(err, err2); err != nil {
			return nil, err
		}
		if len(users) == 0 && row != nil && may(row) {
			going = append(going, name)
		}
	}
	return going, nil
}

// recount counts a NAR file as gone, if it is: also after an error, since one that could
// not be removed for certain may be. The caller holds its lock.
func (s *Store) recount(st blob.Info) (gone bool) {
	if _, err := s.Files.Stat(st.Name); !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	s.verified.Forget(st.Name)
	s.narFiles.Add(-1, -st.Size)
	return true
}

// keepEvery is how long the facts of a NAR that was sent are in memory alone.
const keepEvery = 30 * time.Second

// SweepUntil sweeps now and then until ctx ends.
func (s *Store) SweepUntil(ctx context.Context) {
	sweep := time.NewTicker(min(max(s.NarGrace/24, time.Minute), time.Hour))
	defer sweep.Stop()
	keep := time.NewTicker(keepEvery)
	defer keep.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case now := <-keep.C:
			err = s.keepVerified(now.Add(-keepEvery))
		case now := <-sweep.C:
			err = s.sweepAt(now)
		}
		if err != nil && ctx.Err() == nil {
			s.Log.Error("sweep", "error", err)
		}
	}
}

func (s *Store) sweepAt(now time.Time) error {
	files, bytes, err := s.Sweep(now)
	s.sweptFiles.Add(int64(files))
	if files > 0 {
		s.Log.Info("removed NARs that have no narinfo", "files", files, "bytes", bytes)
	}
	return err
}

// Keep makes durable what is known in memory alone, for a stop in order.
func (s *Store) Keep() error {
	s.Rest()
	return s.keepVerified(time.Now())
}

// Rest waits for all NARs that were received; none comes meanwhile.
func (s *Store) Rest() { s.settling.Rest() }

// Settled waits for a NAR file "nar/…" that was received and gets its name now. An error is that of
// storing it.
func (s *Store) Settled(name string) error { return s.settling.Wait(name) }
