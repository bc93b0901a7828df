package upload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"narwharf/cache/blob"
	"narwharf/cache/index"
	"narwharf/cache/state"
	"narwharf/cache/upload/room"
)

// takeBackAgain is when a write is taken back anew that could not be.
const takeBackAgain = 2 * time.Second

// errChanged is for a record that another has changed since it was read.
var errChanged = errors.New("the path has changed meanwhile, try again")

// Write makes next the record of a path, whose record old is.
func (s *Store) Write(next, old *index.Record) error {
	return s.write(next, old, nil, func(*index.Tx) error { return nil })
}

// write makes next the record of a path and writes its file, if in the index's
// transaction old is its record (nil: it has none) and check finds nothing.
func (s *Store) write(next, old *index.Record, locks []string, check func(tx *index.Tx) error) error {
	hash := next.Info.Path.Hash()
	text := next.Info.Append(nil)
	var file blob.Writer
	switch {
	case old == nil || !bytes.Equal(old.Info.Append(nil), text):
		if old == nil { // a listing of a path that was here before tells of another NAR
			if err := s.Files.Remove(hash + ".ls"); err != nil {
				return err
			}
		}
		var err error
		if file, err = s.room.Prepare(hash+".narinfo", text); err != nil {
			return err
		}
		defer file.Abort()
	case slices.Equal(next.Alternates, old.Alternates):
		s.verified.Forget(next.Files()...)
		if gone, err := s.Index.Use(context.Background(), []string{hash}); err != nil || len(gone) == 0 {
			return err
		}
		return errChanged
	}
	for _, name := range next.Files() {
		if err := s.Settled(name); err != nil {
			return err
		}
	}
	reached := false // what may have to be taken back
	err := s.Index.Change(append(locks, index.PathLock(hash)), func(tx *index.Tx) error {
		now, err := record(tx, hash)
		switch {
		case err != nil:
			return err
		case !index.Same(now, old):
			return errChanged
		}
		if err := check(tx); err != nil {
			return err
		}
		return replace(tx, next, old, func() (err error) {
			if reached = true; file != nil {
				err = file.Publish()
			}
			return err
		})
	})
	if err == nil && file != nil {
		err = file.Commit()
	}
	if err != nil {
		if !reached {
			return err
		}
		s.takeBack(next, old)
		return fmt.Errorf("write %s: %w", next.Info.Path, room.AsFull(err))
	}
	s.verified.Forget(next.Files()...)
	s.Changed(hash)
	return nil
}

// replace makes next the record of a path, published before.
func replace(tx *index.Tx, next, old *index.Record, publish func() error) (err error) {
	if old == nil {
		if next.Uploaded, err = tx.Now(); err != nil {
			return err
		}
	}
	if err := publish(); err != nil {
		return err
	}
	if err := tx.Put(next); err != nil || old == nil {
		return err
	}
	_, err = tx.Use(next.Info.Path.Hash()) // who sends it counts on it
	return err
}

// record returns nil where there is none.
func record(tx *index.Tx, hash string) (*index.Record, error) {
	r, err := tx.Record(hash)
	if errors.Is(err, index.ErrNotFound) {
		return nil, nil
	}
	return r, err
}

// takeBack undoes a write that failed half-way: a commit can fail and be there all
// the same. The file is then what the index says. A record that others can see stays: they
// may have told somebody of it. While the state is away this is tried again.
func (s *Store) takeBack(next, old *index.Record) {
	s.needsRecovery.Store(true)
	hash := next.Info.Path.Hash()
	err := s.Index.Change([]string{index.PathLock(hash)}, func(tx *index.Tx) error {
		now, err := record(tx, hash)
		if err != nil {
			return err
		}
		if index.Same(now, next) && !s.Shared {
			if now = old; old == nil {
				err = tx.Delete(hash)
			} else {
				err = tx.Put(old)
			}
			if err != nil {
				return err
			}
		}
		return s.refile(hash, now)
	})
	switch {
	case s.Shared && (errors.Is(err, state.ErrUnavailable) || errors.Is(err, state.ErrUncertain) || errors.Is(err, blob.ErrAway)):
		time.AfterFunc(takeBackAgain, func() { s.takeBack(next, old) })
	case err != nil:
		s.Log.Error("a narinfo and the index may differ until the next start", "file", hash+".narinfo", "error", err)
	}
	s.Changed(hash)
}

// refile makes a narinfo file what the index says, if it is not.
func (s *Store) refile(hash string, r *index.Record) error {
	name := hash + ".narinfo"
	is, err := blob.ReadFile(s.Files, name, MaxNarinfo)
	switch missing := errors.Is(err, fs.ErrNotExist); {
	case r == nil && missing, err == nil && r != nil && bytes.Equal(is, r.Info.Append(nil)):
		return nil
	case r == nil:
		return s.Files.Remove(name)
	}
	return blob.WriteFile(s.Files, name, r.Info.Append(nil))
}
