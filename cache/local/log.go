package local

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Log opens the log that Nix kept of a build: drvs/<2 characters>/<the rest>,
// packed with bzip2 unless compress-build-log is false (getBuildLogExact in
// src/libstore/local-fs-store.cc).
func (s *Store) Log(drv string) (f *os.File, bzip2 bool, err error) {
	name := filepath.Join(s.logs, "drvs", drv[:2], drv[2:])
	f, err = os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = os.Open(name + ".bz2")
		return f, true, err
	}
	return f, false, err
}
