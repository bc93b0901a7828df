package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"testing"
)

// scratch is a folder that lives as long as the test. Unlike t.TempDir it can hold Nix stores, whose
// folders are read-only, and its name is short enough for a unix socket below it.
func scratch(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "nw-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeStore(dir) })
	return dir
}

// removeStore removes a tree in which folders may be read-only.
func removeStore(dir string) {
	if os.RemoveAll(dir) == nil {
		return
	}
	_ = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(name, 0o700)
		}
		return nil
	})
	_ = os.RemoveAll(dir)
}

// A snapshot is what a folder holds: a line for each file by its name.
type snapshot map[string]string

// takeSnapshot reads every file below dir; files and folders with a base name of skip are left out.
func takeSnapshot(t testing.TB, dir string, skip ...string) snapshot {
	t.Helper()
	snap := snapshot{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		for _, s := range skip {
			if d.Name() == s && d.IsDir() {
				return fs.SkipDir
			}
			if d.Name() == s {
				return nil
			}
		}
		if !d.Type().IsRegular() {
			return nil
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		sum, err := fileSum(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it went since the folder was read
		}
		if err != nil {
			return err
		}
		snap[rel] = sum
		return nil
	})
	if err != nil {
		t.Fatalf("look at %s: %v", dir, err)
	}
	return snap
}

// diff lists what was added (+), removed (-) and changed (~) from s to after, sorted.
func (s snapshot) diff(after snapshot) []string {
	var lines []string
	for name, sum := range after {
		switch was, ok := s[name]; {
		case !ok:
			lines = append(lines, "+ "+name)
		case was != sum:
			lines = append(lines, "~ "+name)
		}
	}
	for name := range s {
		if _, ok := after[name]; !ok {
			lines = append(lines, "- "+name)
		}
	}
	sort.Strings(lines)
	return lines
}

func fileSum(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
