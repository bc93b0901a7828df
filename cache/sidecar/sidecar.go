// Package sidecar takes in the small files that lie beside NARs and narinfos: build
// logs, debug information, and both forms in which Nix keeps the outputs of
// content-addressed derivations. All are one file each; what differs is the check.
package sidecar

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"path"
	"strings"

	"narwharf/cache/blob"
	"narwharf/cache/narfile"
	"narwharf/cache/refusal"
	"narwharf/cache/state/namelock"
	"narwharf/narinfo/clip"
)

// What one file may have, in bytes, its Content-Encoding undone.
const (
	MaxJSON = 1 << 20
	MaxLog  = 512 << 20
)

// Store is where they lie. It is safe for concurrent use.
type Store struct {
	files blob.Store
	locks namelock.Set
}

// New makes a Store of the files of a cache.
func New(files blob.Store) *Store { return &Store{files: files} }

// putJSON stores a JSON file. merge gets what is stored already, nil if nothing,
// and what came, and returns what shall be stored.
func (s *Store) putJSON(name string, sent []byte, merge func(old, sent []byte) ([]byte, error)) error {
	defer s.locks.Lock(name)()
	old, err := blob.ReadFile(s.files, name, MaxJSON)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	text, err := merge(old, sent)
	if err != nil || bytes.Equal(old, text) {
		return err
	}
	return blob.WriteFile(s.files, name, text)
}

// LogName is the file of a derivation's build log.
func LogName(drv string) string { return "log/" + drv }

// PutLog stores a build log of size bytes (-1: unknown); that of the latest build
// stays. Logs can be large, so this one is not held in memory.
func (s *Store) PutLog(drv string, text io.Reader, size int64) error {
	out, err := s.files.Create(LogName(drv), size)
	if err != nil {
		return err
	}
	defer out.Abort()
	if _, err := io.Copy(out, text); err != nil {
		return err
	}
	defer s.locks.Lock(LogName(drv))()
	return out.Commit()
}

// DebuginfoName is the one file for both forms of the URL; Nix writes
// <build id>.debug and readers ask for either.
func DebuginfoName(id string) string {
	return "debuginfo/" + strings.TrimSuffix(id, ".debug") + ".debug"
}

// PutDebuginfo stores where the debug information of a build id lies: a member of
// a NAR of this cache. The latest stays: any NAR with it will do.
func (s *Store) PutDebuginfo(id string, text []byte) error {
	return s.putJSON(DebuginfoName(id), text, func(_, sent []byte) ([]byte, error) {
		var d struct{ Archive, Member string }
		if err := json.Unmarshal(sent, &d); err != nil {
			return nil, refusal.New(refusal.Content, "debuginfo is not JSON: %v", err)
		}
		file, ok := strings.CutPrefix(d.Archive, "../nar/")
		if !ok || !narfile.Grammar.MatchString(file) || d.Member == "" || path.IsAbs(d.Member) || path.Clean(d.Member) != d.Member || strings.HasPrefix(d.Member, "..") {
			return nil, refusal.New(refusal.Content, `debuginfo is not of the form {"archive":"../nar/<file>","member":"<path in it>"}`)
		}
		return sent, nil
	})
}

// RealisationName is the file of an output, as Nix up to 2.34 calls it.
func RealisationName(id string) string { return "realisations/" + id + ".doi" }

// PutRealisation stores where an output of a content-addressed derivation is.
func (s *Store) PutRealisation(id string, text []byte) error {
	return s.putJSON(RealisationName(id), text, func(old, sent []byte) ([]byte, error) {
		fields, err := parseTrace(sent)
		if err != nil {
			return nil, err
		}
		var claimed string
		if err := json.Unmarshal(fields["id"], &claimed); err != nil || claimed != id {
			return nil, refusal.New(refusal.Content, "the realisation is for %s but was sent as %s", clip.Text(claimed, 100), id)
		}
		return mergeTrace(old, fields)
	})
}

// BuildTraceName is the same for Nix 2.35 and later.
func BuildTraceName(key string) string { return "build-trace-v2/" + key + ".doi" }

// PutBuildTrace stores where an output of a content-addressed derivation is.
func (s *Store) PutBuildTrace(key string, text []byte) error {
	return s.putJSON(BuildTraceName(key), text, func(old, sent []byte) ([]byte, error) {
		fields, err := parseTrace(sent)
		if err != nil {
			return nil, err
		}
		return mergeTrace(old, fields)
	})
}
