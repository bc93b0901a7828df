package upload

import (
	"errors"
	"io/fs"
	"maps"
	"slices"
	"time"

	"narwharf/cache/blob"
	"narwharf/cache/index"
	"narwharf/cache/narfile"
	"narwharf/cache/state"
	"narwharf/cache/upload/received"
)

// maxUsers is how many paths with one NAR are kept for who asks for it: one is enough to
// keep the file.
const maxUsers = 500

// noted is what the index knows of a NAR file: the paths that name it, and its row.
func (s *Store) noted(name string) (users []string, row *index.File, err error) {
	if users, err = s.Index.Users(name); err == nil {
		row, err = s.Index.File(name)
	}
	return users, row, err
}

// ask notes that somebody counts on a NAR file. then is called in the transaction, by
// which a deletion comes before it or after.
func (s *Store) ask(name string, f narfile.Facts, users []string, then func() error) error {
	users = users[:min(len(users), maxUsers)]
	locks := []string{index.NarLock(name)}
	for _, hash := range users {
		locks = append(locks, state.Shared(index.PathLock(hash)))
	}
	return s.Index.Change(locks, func(tx *index.Tx) error {
		if err := tx.Ask(name, index.Facts(f), users); err != nil {
			return err
		}
		return then()
	})
}

// Claim stats a NAR file for somebody who may upload: he will name it in a narinfo, or
// has the path. It stays for NarGrace at least; if paths have it, they stay for a lease.
func (s *Store) Claim(file string) (blob.Info, error) { return s.claim("nar/"+file, narfile.Facts{}) }

// claim is Claim for who may know what the file is.
func (s *Store) claim(name string, f narfile.Facts) (st blob.Info, err error) {
	if st, err = s.Files.Stat(name); err != nil {
		return st, err
	}
	lately, users, err := s.claimedLately(name)
	if lately || err != nil {
		return st, err
	}
	err = s.ask(name, f, users, func() (err error) { st, err = s.Files.Stat(name); return err })
	return st, err
}

// claimedLately tells whether Claim has nothing to note.
func (s *Store) claimedLately(name string) (lately bool, users []string, err error) {
	users, row, err := s.noted(name)
	if err != nil {
		return false, nil, err
	}
	if len(users) == 0 && row == nil {
		return s.verified.Lately(name), nil, nil
	}
	if row != nil && (row.Doomed || row.Age > time.Hour) {
		return false, users, nil
	}
	for _, hash := range users[:min(len(users), maxUsers)] {
		if lately, err := s.Index.UsedLately(hash); err != nil || !lately {
			return false, users, err
		}
	}
	return true, users, nil
}

// Asked notes that anybody read a NAR file, once a day, if it is an alternate. What no
// narinfo names is kept by its uploader alone, and a path's own file by the path.
func (s *Store) Asked(name string) {
	if s.AskedLately(name) {
		return
	}
	if users, err := s.Index.Users(name); err == nil && len(users) > 0 {
		if err := s.ask(name, narfile.Facts{}, nil, func() error { return nil }); err != nil {
			s.Log.Warn("that a NAR was asked for cannot be noted", "file", name, "error", err)
		}
	}
}

// AskedLately tells whether Asked has nothing to note.
func (s *Store) AskedLately(name string) bool {
	lately, _ := s.Index.AskedLately(name) // what cannot be read is asked again
	return lately
}

// keepVerified writes rows for the NAR files that were sent before then and that no
// record names, so that they are known after the process, too.
func (s *Store) keepVerified(then time.Time) error {
	old := s.verified.Before(then)
	for names := range slices.Chunk(slices.Sorted(maps.Keys(old)), maxUsers) {
		var locks []string
		for _, name := range names {
			locks = append(locks, index.NarLock(name))
		}
		err := s.Index.Change(locks, func(tx *index.Tx) error {
			for _, name := range names {
				if err := s.keepOne(tx, name, old[name]); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		s.verified.Forget(names...)
	}
	return nil
}

func (s *Store) keepOne(tx *index.Tx, name string, f received.NAR) error {
	if _, err := s.Files.Stat(name); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	users, err := tx.Users(name)
	if err != nil || len(users) > 0 {
		return err
	}
	row, err := tx.File(name)
	if err != nil {
		return err
	}
	if row == nil {
		now, err := tx.Now()
		if err != nil {
			return err
		}
		row = &index.File{Asked: now.Add(-time.Since(f.Asked))}
	}
	row.Facts = index.Facts(f.Facts)
	return tx.PutFile(name, row)
}
