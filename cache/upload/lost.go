package upload

import (
	"errors"
	"io/fs"
	"maps"
	"slices"
	"sync"

	"narwharf/narinfo"
)

// lostNars are NARs that a narinfo names and that are gone.
type lostNars struct {
	mu    sync.Mutex
	names map[string]bool
}

// maxLost bounds how many are remembered.
const maxLost = 10_000

// NoteLost logs once that a NAR is not there, if a narinfo names it: clients see the
// path and cannot have it.
func (s *Store) NoteLost(name string) {
	users, err := s.Index.Users(name)
	if err != nil || len(users) == 0 {
		return
	}
	s.lost.mu.Lock()
	known := s.lost.names[name] || len(s.lost.names) >= maxLost
	if !known {
		s.lost.names[name] = true
	}
	s.lost.mu.Unlock()
	if known {
		return
	}
	paths := users
	for i, hash := range users {
		if r, err := s.Index.Get(hash); err == nil {
			paths[i] = string(r.Info.Path)
		}
	}
	s.Log.Error("a NAR is lost, or was cut, that a narinfo names: upload it again with nix copy --refresh, or run narwharf fsck --repair", "file", name, "paths", paths)
}

// IsLost tells whether the NAR that a narinfo names is gone, or was cut.
func (s *Store) IsLost(i *narinfo.Info) bool { return s.isLost(i.URL, i.FileSize) }

// isLost is of a file that should have size bytes, 0 if that is not known.
func (s *Store) isLost(name string, size int64) bool {
	st, err := s.Files.Stat(name)
	return errors.Is(err, fs.ErrNotExist) || err == nil && size != 0 && st.Size != size
}

// Lost is how many NARs are known to be lost, and still are.
func (s *Store) Lost() int {
	s.lost.mu.Lock()
	names := slices.Collect(maps.Keys(s.lost.names))
	s.lost.mu.Unlock()
	n := 0
	for _, name := range names {
		users, err := s.Index.Users(name)
		lost := err != nil
		for _, hash := range users {
			size := int64(0)
			if r, err := s.Index.Get(hash); err == nil && r.Info.URL == name {
				size = r.Info.FileSize
			}
			lost = lost || s.isLost(name, size)
		}
		if lost {
			n++
			continue
		}
		s.lost.mu.Lock()
		delete(s.lost.names, name)
		s.lost.mu.Unlock()
	}
	return n
}
