package sidecar

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"strings"
	"time"

	"narwharf/cache/blob"
	"narwharf/narinfo"
)

// maxLogs is how many old logs one Sweep looks at.
const maxLogs = 100_000

// Keeper says what sidecars are about.
type Keeper interface {
	// Has tells whether a path is in the cache.
	Has(ctx context.Context, p narinfo.Path) (bool, error)
	// Derivers calls fn with the deriver of each path, "" where none is known.
	Derivers(ctx context.Context, fn func(drv []byte)) error
}

// Sweep removes what is about nothing that is here: realisations whose output is gone
// and debug infos whose NAR is, unless they were written since lease; logs written before
// grace of which no path has the .drv as its deriver. What cannot be read stays, for
// people.
func (s *Store) Sweep(ctx context.Context, k Keeper, lease, grace time.Time) (removed int64, err error) {
	folders := []string{"realisations"}
	drvs, err := s.files.Folders("build-trace-v2")
	if err != nil {
		return 0, err
	}
	for _, drv := range drvs {
		folders = append(folders, "build-trace-v2/"+drv)
	}
	outputGone := func(text []byte) (bool, error) {
		t, err := parseTrace(text)
		if err != nil {
			return false, nil
		}
		has, err := k.Has(ctx, narinfo.Path(t.outPath()))
		return !has, err
	}
	for _, dir := range folders {
		n, err := s.sweepJSON(ctx, dir, lease, outputGone)
		if removed += n; err != nil {
			return removed, err
		}
	}
	n, err := s.sweepJSON(ctx, "debuginfo", lease, s.narGone)
	if removed += n; err != nil {
		return removed, err
	}
	n, err = s.sweepLogs(ctx, k, grace)
	return removed + n, err
}

// narGone tells whether the NAR of a debug info is not here.
func (s *Store) narGone(text []byte) (bool, error) {
	var d struct{ Archive string }
	if json.Unmarshal(text, &d) != nil {
		return false, nil
	}
	name, ok := strings.CutPrefix(d.Archive, "../")
	if !ok {
		return false, nil
	}
	_, err := s.files.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, nil
	case errors.Is(err, fs.ErrInvalid): // it was never a name of ours
		return false, nil
	}
	return false, err
}

// old lists the files of a folder that were written before a time, at most so many.
func (s *Store) old(dir string, before time.Time, most int) (names []string, err error) {
	enough := errors.New("enough")
	err = s.files.List(dir, func(i blob.Info) error {
		if i.ModTime.Before(before) {
			names = append(names, i.Name)
		}
		if len(names) >= most {
			return enough
		}
		return nil
	})
	if errors.Is(err, enough) {
		err = nil
	}
	return names, err
}

func (s *Store) sweepJSON(ctx context.Context, dir string, before time.Time, gone func(text []byte) (bool, error)) (removed int64, err error) {
	names, err := s.old(dir, before, 1<<30)
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return removed, err
		}
		ended, err := s.end(name, before, func() (bool, error) {
			text, err := blob.ReadFile(s.files, name, MaxJSON)
			if err != nil {
				return false, err
			}
			return gone(text)
		})
		if err != nil {
			return removed, err
		}
		removed += ended
	}
	return removed, err
}

// end removes a file if it is still old and may go, while nobody writes it.
func (s *Store) end(name string, before time.Time, may func() (bool, error)) (removed int64, err error) {
	defer s.locks.Lock(name)()
	st, err := s.files.Stat(name)
	if err == nil && st.ModTime.Before(before) {
		var ok bool
		if ok, err = may(); ok && err == nil {
			return 1, s.files.Remove(name)
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return 0, err
}

// sweepLogs removes old logs of derivations that no path was built by.
func (s *Store) sweepLogs(ctx context.Context, k Keeper, before time.Time) (removed int64, err error) {
	names, err := s.old("log", before, maxLogs)
	if err != nil || len(names) == 0 {
		return 0, err
	}
	loose := make(map[string]bool, len(names))
	for _, name := range names {
		loose[strings.TrimPrefix(name, "log/")] = true
	}
	if err := k.Derivers(ctx, func(drv []byte) { delete(loose, string(drv)) }); err != nil {
		return 0, err
	}
	for drv := range loose {
		if err := ctx.Err(); err != nil {
			return removed, err
		}
		n, err := s.end(LogName(drv), before, func() (bool, error) { return true, nil })
		if removed += n; err != nil {
			return removed, err
		}
	}
	return removed, nil
}
