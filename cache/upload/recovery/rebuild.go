package recovery

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"narwharf/cache/blob"
	"narwharf/cache/index"
	"narwharf/cache/narfile"
	"narwharf/cache/state"
	"narwharf/cache/state/progress"
	"narwharf/cache/upload"
	"narwharf/narinfo"
	"narwharf/narinfo/clip"
)

// Rebuild makes the index anew from the files alone, path by path, while reads and
// uploads go on. NARs that no narinfo names are read, since they may be another
// encoding of one that is named. Files that cannot be used are reported and left as
// they are.
//
// Not in files: who uploaded a path and the exact time. gone counts paths without a NAR.
func Rebuild(ctx context.Context, s *upload.Store, report func(format string, args ...any)) (gone int64, err error) {
	files, err := upload.InfoFiles(s.Files)
	if err != nil {
		return 0, err
	}
	if err := s.Index.Began(len(files) == 0); err != nil {
		return 0, err
	}
	b := &rebuild{Store: s, files: files, known: make(map[string]bool), byNar: make(map[narinfo.Hash][]string), alternates: make(map[string][]string), report: report}
	if err := b.readInfos(ctx); err != nil {
		return 0, err
	}
	further, err := b.readFurther(ctx)
	if err != nil {
		return 0, err
	}
	fileless, err := without(s, files)
	if err != nil {
		return 0, err
	}
	var paths, lost, done atomic.Int64
	err = eachAtOnce(ctx, slices.Sorted(maps.Keys(files)), func(hash string) error {
		progress.Report(ctx, "paths put into the index", done.Add(1), int64(len(files)))
		info, err := b.put(hash)
		if info == nil || err != nil {
			return err
		}
		paths.Add(1)
		if s.IsLost(info) {
			lost.Add(1)
			s.NoteLost(info.URL)
		}
		return nil
	})
	if err == nil {
		err = b.dropCollected(ctx)
	}
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
	report("index made anew: %s, and %s with the NAR of one of them in another compression", clip.Count(paths.Load(), "path"), clip.Count(further, "NAR file"))
	if n := lost.Load(); n > 0 {
		report("%s without a NAR any more, the log says which: nix copy --refresh uploads again, or run narwharf fsck --repair", clip.Count(n, "path"))
	}
	report("not in files, and so not restored: who uploaded a path; the time is that of the file")
	return lost.Load(), nil
}

// rebuild holds in memory of each narinfo only what tells its alternates; it is read
// again when its turn comes.
type rebuild struct {
	*upload.Store
	files      map[string]time.Time      // hash parts of the narinfo files
	known      map[string]bool           // NAR files that a narinfo names, or that were read
	byNar      map[narinfo.Hash][]string // hash parts of the paths with a NAR
	alternates map[string][]string       // further files of a path, by hash part
	report     func(format string, args ...any)

	mu sync.Mutex // while narinfos are read: guards the maps, and report
}

// readers are how many narinfos are read at once: a bucket answers each after some milliseconds.
const readers = 64

func (b *rebuild) readInfos(ctx context.Context) error {
	var n atomic.Int64
	return eachOf(ctx, readers, slices.Sorted(maps.Keys(b.files)), func(hash string) error {
		progress.Report(ctx, "narinfos read", n.Add(1), int64(len(b.files)))
		info, err := b.LoadInfo(hash)
		b.mu.Lock()
		defer b.mu.Unlock()
		if err != nil {
			b.report("left out: %s.narinfo: %v", hash, err)
			return nil
		}
		b.known[strings.Clone(info.URL)] = true
		b.byNar[info.NarHash] = append(b.byNar[info.NarHash], hash)
		return nil
	})
}

// readFurther reads the NAR files that no narinfo names, and returns how many have
// the NAR of a path.
func (b *rebuild) readFurther(ctx context.Context) (further int, err error) {
	err = b.Files.List("nar", func(st blob.Info) error {
		file := strings.TrimPrefix(st.Name, "nar/")
		if ctx.Err() != nil || b.known[st.Name] || !narfile.Grammar.MatchString(file) {
			return ctx.Err()
		}
		b.known[st.Name] = true
		f, err := upload.Inspect(b.Files, file)
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

// put makes the record of a path that has a file, and returns what it says. What an upload has added to it
// since the files were read stays. The file is read outside the transaction, for which others wait: an upload
// waits for the lock, and what a collection takes away is found by dropCollected.
func (b *rebuild) put(hash string) (put *narinfo.Info, err error) {
	defer b.LockPath(hash)()
	info, unread := b.LoadInfo(hash)
	locks := []string{index.PathLock(hash)}
	for _, name := range b.alternates[hash] {
		locks = append(locks, state.Shared(index.NarLock(name)))
	}
	err = b.Index.Change(locks, func(tx *index.Tx) error {
		put = nil
		if going, err := tx.IsGoing(hash); going || err != nil {
			return err // it was collected since the files were read
		}
		if unread != nil {
			return tx.Drop(hash) // as reported above
		}
		put = info
		next := (&index.Record{Uploaded: b.files[hash], Alternates: b.alternates[hash]}).With(info)
		next.Alternates = slices.DeleteFunc(next.Alternates, func(name string) bool { _, err := b.Files.Stat(name); return errors.Is(err, fs.ErrNotExist) })
		if old, err := tx.Record(hash); err == nil {
			for _, name := range old.Alternates {
				if _, err := b.Files.Stat(name); err == nil && !b.known[name] && !slices.Contains(next.Files(), name) {
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
	return put, err
}

// dropCollected removes the records of paths whose files were collected while this ran.
func (b *rebuild) dropCollected(ctx context.Context) error {
	now, err := upload.InfoFiles(b.Files)
	if err != nil {
		return err
	}
	var gone []string
	for hash := range b.files {
		if _, there := now[hash]; !there {
			gone = append(gone, hash)
		}
	}
	return eachAtOnce(ctx, gone, b.drop)
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

// without returns the paths of the index that have none of the files.
func without(s *upload.Store, files map[string]time.Time) (gone []string, err error) {
	err = s.Index.Each(func(hash string, _ *index.Record, _ error) error {
		if _, there := files[hash]; !there {
			gone = append(gone, hash)
		}
		return nil
	})
	return gone, err
}
