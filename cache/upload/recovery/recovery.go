// Package recovery makes the index of uploads agree with their files: after a crash, after
// a stop in which somebody changed files, and from nothing. The files win.
package recovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"narwharf/cache/index"
	"narwharf/cache/upload"
)

// eachAtOnce calls fn for many paths at a time: the index takes what waits in one
// transaction, and after a lost database every path goes through here.
func eachAtOnce(ctx context.Context, hashes []string, fn func(hash string) error) error {
	return eachOf(ctx, 256, hashes, fn)
}

// eachOf calls fn for so many paths at a time.
func eachOf(ctx context.Context, limit int, hashes []string, fn func(hash string) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(limit)
	for _, hash := range hashes {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return fn(hash)
		})
	}
	return g.Wait()
}

// Recover makes the index agree with the narinfo files after a crash. What was being
// deleted then is deleted first; for the rest the files win. What the index knows of a
// narinfo file that cannot be read stays as it is; the file is left for fsck to judge.
func Recover(s *upload.Store) (added, dropped int, err error) {
	if err := s.Finish(context.Background()); err != nil {
		return 0, 0, err
	}
	return agree(context.Background(), s, time.Time{}, func(*index.Record) {})
}

// Check finds what somebody did to the files while nothing ran, after a stop in order
// at since: narinfo files that came, went or changed are taken over, and NARs that are
// gone are told of. NAR files get the rows that they lack: an older narwharf writes none,
// and after a crash those of the last uploads are missing. It runs beside everything else.
func Check(ctx context.Context, s *upload.Store, since time.Time) error {
	var alternates []string
	_, _, err := agree(ctx, s, since, func(r *index.Record) {
		alternates = append(alternates, r.Alternates...)
		if s.IsLost(r.Info) {
			s.NoteLost(r.Info.URL)
		}
	})
	if err == nil {
		err = giveRows(ctx, s, alternates)
	}
	if err == nil {
		err = FindUnnamed(ctx, s)
	}
	return err
}

// agree compares the index with narinfo files that were written after since. look is
// called with each record.
func agree(ctx context.Context, s *upload.Store, since time.Time, look func(r *index.Record)) (added, dropped int, err error) {
	files, err := upload.InfoFiles(s.Files)
	if err == nil {
		err = s.Index.Began(len(files) == 0)
	}
	if err != nil {
		return 0, 0, err
	}
	var gone []string
	err = s.Index.Each(func(hash string, r *index.Record, err error) error {
		when, there := files[hash]
		switch {
		case !there:
			gone = append(gone, hash)
		case err == nil:
			look(r)
			if !when.After(since) {
				delete(files, hash)
			}
		}
		return ctx.Err()
	})
	if err != nil {
		return 0, 0, err
	}
	var put, lost atomic.Int64
	settle := func(hash string) error {
		was, is, err := settleOne(s, hash, files[hash])
		if is {
			put.Add(1)
		} else if was {
			lost.Add(1)
		}
		return err
	}
	err = eachAtOnce(ctx, gone, settle)
	if err == nil {
		err = eachAtOnce(ctx, slices.Sorted(maps.Keys(files)), settle)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("make the index agree with the files: %w", err)
	}
	added, dropped = int(put.Load()), int(lost.Load())
	if added+dropped > 0 {
		s.Log.Info("made the index agree with the files", "added", added, "dropped", dropped)
	}
	return added, dropped, nil
}

// settle makes the record of a path what its file says. It tells whether it removed one,
// or put one.
func settleOne(s *upload.Store, hash string, when time.Time) (removed, put bool, err error) {
	if info, err := s.LoadInfo(hash); err == nil {
		if r, err := s.Index.Get(hash); err == nil && bytes.Equal(r.Info.Append(nil), info.Append(nil)) {
			return false, false, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		s.Log.Error("a narinfo file is damaged, run narwharf fsck", "file", hash+".narinfo", "error", err)
		return false, false, nil
	}
	defer s.LockPath(hash)()
	err = s.Index.Change([]string{index.PathLock(hash)}, func(tx *index.Tx) error {
		removed, put = false, false
		if going, err := tx.IsGoing(hash); going || err != nil {
			return err // it was collected since the files were listed
		}
		r, err := record(tx, hash)
		if err != nil {
			return err
		}
		info, err := s.LoadInfo(hash)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			removed = r != nil
			return tx.Delete(hash)
		case err != nil, r != nil && bytes.Equal(r.Info.Append(nil), info.Append(nil)):
			return nil
		case r == nil:
			r = &index.Record{Uploaded: when}
		}
		put = true
		return tx.Put(r.With(info))
	})
	if err == nil && (removed || put) {
		s.Changed(hash)
	}
	return removed, put, err
}

// record returns nil where there is none.
func record(tx *index.Tx, hash string) (*index.Record, error) {
	r, err := tx.Record(hash)
	if errors.Is(err, index.ErrNotFound) {
		return nil, nil
	}
	return r, err
}
