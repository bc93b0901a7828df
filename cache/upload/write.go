package upload

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"narwharf/cache/blob"
	"narwharf/cache/index"
)

// Write writes a record to its file and then to the index. old is the record
// it replaces, nil for a new path. The caller holds the path's lock.
func (s *Store) Write(r, old *index.Record) error {
	hash := r.Info.Path.Hash()
	text := r.Info.Append(nil)
	if old == nil || !bytes.Equal(old.Info.Append(nil), text) {
		// A listing of a path that was here before tells of another NAR.
		if old == nil {
			if err := s.Files.Remove(hash + ".ls"); err != nil {
				return err
			}
		}
		if err := s.room.writeFile(hash+".narinfo", text); err != nil {
			s.undo(hash, old)
			return err
		}
	} else if slices.Equal(r.Alternates, old.Alternates) {
		s.verified.forget(r.Files()...)
		return nil
	}
	if err := s.Index.Put(r); err != nil {
		// The index may have it all the same: a commit can fail half-way.
		s.needsRecovery.Store(true)
		if old == nil {
			_ = s.Index.Delete(hash)
		} else {
			_ = s.Index.Put(old)
		}
		s.undo(hash, old)
		s.Changed(hash)
		return fmt.Errorf("index %s: %w", r.Info.Path, asFull(err))
	}
	s.verified.forget(r.Files()...)
	s.Changed(hash)
	return nil
}

// undo puts a narinfo file back to old, if it is not what it was.
func (s *Store) undo(hash string, old *index.Record) {
	name := hash + ".narinfo"
	now, err := blob.ReadFile(s.Files, name, MaxNarinfo)
	switch missing := errors.Is(err, fs.ErrNotExist); {
	case old == nil && missing, err == nil && old != nil && bytes.Equal(now, old.Info.Append(nil)):
		return
	case old == nil:
		err = s.Files.Remove(name)
	default:
		err = blob.WriteFile(s.Files, name, old.Info.Append(nil))
	}
	if err != nil {
		s.needsRecovery.Store(true)
		s.log.Error("a narinfo and the index may differ until the next start", "file", name, "error", err)
	}
}
