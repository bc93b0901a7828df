package upload

import (
	"narwharf/cache/blob"
	"narwharf/cache/index"
)

// Quarantine moves a NAR file out of the way, unless another has taken its place
// since st was seen.
func (s *Store) Quarantine(st blob.Info) error {
	defer s.locks.Lock(st.Name)()
	return s.quarantine(st)
}

func (s *Store) quarantine(st blob.Info) error {
	if is, err := blob.Quarantine(s.Files, st.Name); err != nil || is != st {
		return err
	}
	err := s.Index.Change([]string{index.NarLock(st.Name)}, func(tx *index.Tx) error {
		if now, err := s.Files.Stat(st.Name); err != nil || now != st {
			return nil
		}
		if err := s.Files.Remove(st.Name); err != nil {
			return err
		}
		return tx.DropFile(st.Name)
	})
	s.recount(st)
	return err
}
