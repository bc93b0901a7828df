// Package move copies the content files of a cache to another place: from a folder to a bucket, and back.
//
// Sync makes the second what the first is, and writes what differs alone. The name of a NAR says what it holds, so
// there the size decides; it is hashed while it is copied, and one whose bytes are others is left out and named. All
// else is small and may change: it is compared byte by byte, or by its size where nobody has written it since a time.
package move

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"narwharf/cache/blob"
	"narwharf/cache/narfile"
	"narwharf/cache/state/progress"
	"narwharf/narinfo"
)

// Options of Sync.
type Options struct {
	// Skip names files that each of the two has for itself. nil: none.
	Skip func(name string) bool
	// Since is when the second was known to be equal: what is older has changed if its size has. The zero time
	// compares everything.
	Since time.Time
	// Check writes nothing.
	Check bool
	// Jobs are under way at once; 0: 16.
	Jobs int
	// Step is what progress calls it.
	Step string
}

// Failure is a file that was not copied.
type Failure struct {
	Name  string `json:"name"`
	Error string `json:"error"`
}

// Result is what a Sync did, or would do.
type Result struct {
	Files   int64     `json:"files"`   // of the first
	Bytes   int64     `json:"bytes"`   // of those
	Changed int64     `json:"changed"` // files of the second that were written or removed
	Copied  int64     `json:"copied"`  // bytes that were written
	Failed  []Failure `json:"failed"`  // damaged in the first
	// First is the first that was changed, for people.
	First string `json:"first,omitempty"`
}

// Sync makes to what from is. An error is that it could not go on.
func Sync(ctx context.Context, from, to blob.Store, o Options) (Result, error) {
	s := &copier{Options: o, from: blob.Uncached(from), to: blob.Uncached(to)}
	s.Failed = []Failure{}
	if s.Jobs == 0 {
		s.Jobs = 16
	}
	if o.Skip == nil {
		s.Skip = func(string) bool { return false }
	}
	dirs, err := s.folders("")
	if err != nil {
		return s.Result, err
	}
	files := make(map[string]map[string]blob.Info, len(dirs))
	for _, dir := range dirs {
		if files[dir], err = s.list(s.from, dir); err != nil {
			return s.Result, err
		}
		for _, f := range files[dir] {
			s.Files++
			s.Bytes += f.Size
		}
	}
	for _, dir := range dirs {
		if err := s.folder(ctx, dir, files[dir]); err != nil {
			return s.Result, err
		}
	}
	slices.SortFunc(s.Failed, func(a, b Failure) int { return strings.Compare(a.Name, b.Name) })
	return s.Result, nil
}

type copier struct {
	Options
	from, to blob.Store

	mu   sync.Mutex // guards what follows
	done int64      // bytes that are there
	Result
}

// folders are the folders of both, those with NARs first: who reads the second meanwhile finds no narinfo
// without its NAR.
func (s *copier) folders(dir string) (dirs []string, err error) {
	found := make(map[string]bool)
	for _, st := range []blob.Store{s.from, s.to} {
		names, err := st.Folders(dir)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if dir != "" {
				name = dir + "/" + name
			}
			if blob.CheckName(name) == nil && name != blob.QuarantineDir {
				found[name] = true
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		below, err := s.folders(name)
		if err != nil {
			return nil, err
		}
		dirs = append(dirs, below...)
	}
	if dir == "" {
		slices.SortStableFunc(dirs, func(a, b string) int { return boolOrder(isNAR(b+"/"), isNAR(a+"/")) })
	}
	return append(dirs, dir), nil
}

func boolOrder(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func isNAR(name string) bool { return strings.HasPrefix(name, "nar/") }

func (s *copier) list(st blob.Store, dir string) (map[string]blob.Info, error) {
	files := make(map[string]blob.Info)
	err := st.List(dir, func(i blob.Info) error {
		if !s.Skip(i.Name) && blob.CheckName(i.Name) == nil {
			files[i.Name] = i
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", st, err)
	}
	return files, nil
}

// folder makes a folder of the second what it is in the first.
func (s *copier) folder(ctx context.Context, dir string, files map[string]blob.Info) error {
	have, err := s.list(s.to, dir)
	if err != nil {
		return err
	}
	g, within := errgroup.WithContext(ctx)
	g.SetLimit(s.Jobs)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		is, there := have[name]
		delete(have, name)
		if within.Err() != nil {
			break
		}
		g.Go(func() error { return s.file(within, files[name], is, there) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	gone := slices.Sorted(maps.Keys(have))
	for _, name := range gone {
		s.changed(name, 0)
	}
	if s.Check || len(gone) == 0 {
		return nil
	}
	return s.to.Remove(gone...)
}

func (s *copier) changed(name string, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Changed++; s.First == "" {
		s.First = name
	}
	s.Copied += size
}

func (s *copier) fail(name, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Failed = append(s.Failed, Failure{name, text})
}

// file makes one file what it is in the first.
func (s *copier) file(ctx context.Context, f, is blob.Info, there bool) (err error) {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.done += f.Size
		progress.Report(ctx, s.Step, s.done>>20, s.Bytes>>20)
	}()
	if there && is.Size == f.Size {
		if isNAR(f.Name) || f.ModTime.Before(s.Since) {
			return nil
		}
		if same, err := s.same(f); same || err != nil {
			return err
		}
	}
	if s.Check {
		s.changed(f.Name, f.Size)
		return nil
	}
	size, err := s.copy(f.Name)
	var damaged *damaged
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // deleted since it was listed
	case errors.As(err, &damaged):
		s.fail(f.Name, damaged.text)
		return nil
	case err != nil:
		return fmt.Errorf("copy %s: %w", f.Name, err)
	}
	s.changed(f.Name, size)
	return ctx.Err()
}

// maxSmall bounds what is compared in memory, in bytes; build logs are larger at times.
const maxSmall = 4 << 20

// same compares two files of one size.
func (s *copier) same(f blob.Info) (bool, error) {
	if f.Size > maxSmall {
		return false, nil
	}
	a, err := blob.ReadFile(s.from, f.Name, maxSmall)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("read %s: %w", f.Name, err)
	}
	b, err := blob.ReadFile(s.to, f.Name, maxSmall)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read %s there: %w", f.Name, err)
	}
	return bytes.Equal(a, b), nil
}

// damaged is the error of a file that is not what its name says.
type damaged struct{ text string }

func (d *damaged) Error() string { return d.text }

// copy copies a file and returns its size.
func (s *copier) copy(name string) (size int64, err error) {
	in, err := s.from.Open(name)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	out, err := s.to.Create(name, in.Size)
	if err != nil {
		return 0, err
	}
	defer out.Abort()
	hash := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, hash), in.Content)
	if err != nil {
		return 0, err
	}
	if n != in.Size {
		return 0, fmt.Errorf("it has %d bytes and should have %d", n, in.Size)
	}
	if file, ok := strings.CutPrefix(name, "nar/"); ok && narfile.Grammar.MatchString(file) {
		if is := narinfo.Hash(hash.Sum(nil)).Base32(); is != file[:52] {
			return 0, &damaged{"its SHA-256 is " + is + ", so it is damaged: see narwharf fsck"}
		}
	}
	return n, out.Commit()
}
