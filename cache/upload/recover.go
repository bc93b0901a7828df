package upload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"narwharf/cache/blob"
	"narwharf/cache/index"
	"narwharf/cache/narfile"
	"narwharf/cache/state"
	"narwharf/cache/state/progress"
	"narwharf/narinfo"
	"narwharf/narinfo/clip"
)

// LoadInfo reads and parses a narinfo file.
func (s *Store) LoadInfo(hash string) (*narinfo.Info, error) {
	text, err := blob.ReadFile(s.Files, hash+".narinfo", MaxNarinfo)
	if err != nil {
		return nil, err
	}
	info, err := narinfo.Parse(text)
	if err != nil {
		return nil, err
	}
	if info.Path.Hash() != hash {
		return nil, fmt.Errorf("is for %s", info.Path)
	}
	if info.StoreDir != s.StoreDir {
		return nil, fmt.Errorf("is for the store %s, this cache serves %s", info.StoreDir, s.StoreDir)
	}
	if file, ok := strings.CutPrefix(info.URL, "nar/"); !ok || !narfile.Grammar.MatchString(file) {
		return nil, fmt.Errorf("has the URL %s, not of the form nar/<52 characters of nix32>.nar[.suffix]", clip.Text(info.URL, 100))
	}
	return info, nil
}

// InfoFiles returns the hash parts of all narinfo files with their times.
func InfoFiles(files blob.Store) (map[string]time.Time, error) {
	found := make(map[string]time.Time)
	err := files.List("", func(st blob.Info) error {
		if hash, ok := strings.CutSuffix(st.Name, ".narinfo"); ok && narinfo.ValidHash(hash) {
			found[hash] = st.ModTime
		}
		return nil
	})
	return found, err
}

// eachAtOnce calls fn for many paths at a time: the index takes what waits in one
// transaction, and after a lost database every path goes through here.
func eachAtOnce(ctx context.Context, hashes []string, fn func(hash string) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(256)
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

// Recover makes the index agree with the narinfo files after a crash. The files win.
// What the index knows of a narinfo file that cannot be read stays as it is; the file
// is left for fsck to judge.
func (s *Store) Recover() (added, dropped int, err error) {
	return s.agree(context.Background(), time.Time{}, func(*index.Record) {})
}

// Check finds what somebody did to the files while nothing ran, after a stop in order
// at since: narinfo files that came, went or changed are taken over, and NARs that are
// gone are told of. It runs beside everything else.
func (s *Store) Check(ctx context.Context, since time.Time) error {
	_, _, err := s.agree(ctx, since, func(r *index.Record) {
		if _, err := s.Files.Stat(r.Info.URL); errors.Is(err, fs.ErrNotExist) {
			s.NoteLost(r.Info.URL)
		}
	})
	return err
}

// agree compares the index with narinfo files that were written after since. look is
// called with each record.
func (s *Store) agree(ctx context.Context, since time.Time, look func(r *index.Record)) (added, dropped int, err error) {
	files, err := InfoFiles(s.Files)
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
		was, is, err := s.settle(hash, files[hash])
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
		s.log.Info("made the index agree with the files", "added", added, "dropped", dropped)
	}
	return added, dropped, nil
}

// settle makes the record of a path what its file says. It tells whether it removed one,
// or put one.
func (s *Store) settle(hash string, when time.Time) (removed, put bool, err error) {
	if info, err := s.LoadInfo(hash); err == nil {
		if r, err := s.Index.Get(hash); err == nil && bytes.Equal(r.Info.Append(nil), info.Append(nil)) {
			return false, false, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		s.log.Error("a narinfo file is damaged, run narwharf fsck", "file", hash+".narinfo", "error", err)
		return false, false, nil
	}
	defer s.LockPath(hash)()
	err = s.Index.Change([]string{index.PathLock(hash)}, func(tx *index.Tx) error {
		removed, put = false, false
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
		return tx.Put(WithInfo(r, info))
	})
	if err == nil && (removed || put) {
		s.Changed(hash)
	}
	return removed, put, err
}

// without returns the paths of the index that have none of the files.
func (s *Store) without(files map[string]time.Time) (gone []string, err error) {
	err = s.Index.Each(func(hash string, _ *index.Record, _ error) error {
		if _, there := files[hash]; !there {
			gone = append(gone, hash)
		}
		return nil
	})
	return gone, err
}

// WithInfo copies a record with another narinfo. The NAR file that this one names
// is no alternate then.
func WithInfo(r *index.Record, info *narinfo.Info) *index.Record {
	next := *r
	next.Info = info
	next.Alternates = slices.DeleteFunc(slices.Clone(r.Alternates), func(name string) bool { return name == info.URL })
	return &next
}

// Rebuild makes the index anew from the files alone, path by path, while reads and
// uploads go on. NARs that no narinfo names are read, since they may be another
// encoding of one that is named. Files that cannot be used are reported and left as
// they are.
//
// Not in files: who uploaded a path and the exact time. gone counts paths without a NAR.
func (s *Store) Rebuild(ctx context.Context, report func(format string, args ...any)) (gone int64, err error) {
	files, err := InfoFiles(s.Files)
	if err != nil {
		return 0, err
	}
	b := &rebuild{s, time.Now(), files, make(map[string]bool), make(map[narinfo.Hash][]string), make(map[string][]string), report}
	if err := b.readInfos(ctx); err != nil {
		return 0, err
	}
	further, err := b.readFurther(ctx)
	if err != nil {
		return 0, err
	}
	fileless, err := s.without(files)
	if err != nil {
		return 0, err
	}
	var paths, lost, done atomic.Int64
	err = eachAtOnce(ctx, slices.Sorted(maps.Keys(files)), func(hash string) error {
		progress.Report(ctx, "paths put into the index", done.Add(1), int64(len(files)))
		url, err := b.put(hash)
		if url == "" || err != nil {
			return err
		}
		paths.Add(1)
		if _, err := s.Files.Stat(url); errors.Is(err, fs.ErrNotExist) {
			lost.Add(1)
			s.NoteLost(url)
		}
		return nil
	})
	if err == nil {
		err = eachAtOnce(ctx, fileless, b.drop)
	}
	if err == nil {
		err = s.Index.Prune()
	}
	if err != nil {
		return 0, err
	}
	s.Changed("")
	report("index made anew: %d paths, %d more NAR files with the NAR of one of them in another encoding", paths.Load(), further)
	if n := lost.Load(); n > 0 {
		report("%d paths have lost their NAR, the log names them: upload them again with nix copy --refresh, or run narwharf fsck --repair", n)
	}
	report("not in files, and so not restored: who uploaded a path; the time is that of the file")
	return lost.Load(), nil
}

// rebuild holds in memory of each narinfo only what tells its alternates; it is read
// again when its turn comes.
type rebuild struct {
	*Store
	start      time.Time
	files      map[string]time.Time      // hash parts of the narinfo files
	named      map[string]bool           // NAR files that a narinfo names
	byNar      map[narinfo.Hash][]string // hash parts of the paths with a NAR
	alternates map[string][]string       // further files of a path, by hash part
	report     func(format string, args ...any)
}

func (b *rebuild) readInfos(ctx context.Context) error {
	for i, hash := range slices.Sorted(maps.Keys(b.files)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		progress.Report(ctx, "narinfos read", int64(i), int64(len(b.files)))
		info, err := b.LoadInfo(hash)
		if err != nil {
			b.report("left out: %s.narinfo: %v", hash, err)
			continue
		}
		b.named[strings.Clone(info.URL)] = true
		b.byNar[info.NarHash] = append(b.byNar[info.NarHash], hash)
	}
	return nil
}

// readFurther reads the NAR files that no narinfo names, and returns how many have
// the NAR of a path.
func (b *rebuild) readFurther(ctx context.Context) (further int, err error) {
	err = b.Files.List("nar", func(st blob.Info) error {
		file := strings.TrimPrefix(st.Name, "nar/")
		if ctx.Err() != nil || b.named[st.Name] || !narfile.Grammar.MatchString(file) {
			return ctx.Err()
		}
		f, err := Inspect(b.Files, file)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			b.report("left out: %s: %v", st.Name, err)
			return nil
		}
		for _, hash := range b.byNar[f.NarHash] {
			b.alternates[hash] = append(b.alternates[hash], st.Name)
		}
		if len(b.byNar[f.NarHash]) > 0 {
			further++
		}
		return nil
	})
	return further, err
}

// put makes the record of a path that has a file, and returns the URL in it. What an upload has added to it
// since the files were read stays.
func (b *rebuild) put(hash string) (url string, err error) {
	defer b.LockPath(hash)()
	locks := []string{index.PathLock(hash)}
	for _, name := range b.alternates[hash] {
		locks = append(locks, state.Shared(index.NarLock(name)))
	}
	err = b.Index.Change(locks, func(tx *index.Tx) error {
		info, err := b.LoadInfo(hash)
		if url = ""; err != nil {
			return tx.Drop(hash) // as reported above
		}
		url = info.URL
		next := WithInfo(&index.Record{Uploaded: b.files[hash], Alternates: b.alternates[hash]}, info)
		next.Alternates = slices.DeleteFunc(next.Alternates, func(name string) bool { _, err := b.Files.Stat(name); return err != nil })
		if old, err := tx.Record(hash); err == nil {
			for _, name := range old.Alternates {
				if st, err := b.Files.Stat(name); err == nil && st.ModTime.After(b.start) && !slices.Contains(next.Files(), name) {
					next.Alternates = append(next.Alternates, name)
				}
			}
		}
		slices.Sort(next.Alternates)
		if err := tx.Drop(hash); err != nil {
			return err
		}
		return tx.Put(next)
	})
	return url, err
}

// drop removes the record of a path that had no file, if it has none.
func (b *rebuild) drop(hash string) error {
	defer b.LockPath(hash)()
	return b.Index.Change([]string{index.PathLock(hash)}, func(tx *index.Tx) error {
		if _, err := b.LoadInfo(hash); err == nil {
			return nil
		}
		return tx.Drop(hash)
	})
}
