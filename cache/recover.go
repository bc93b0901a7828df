package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"narwharf/cache/blob"
	"narwharf/cache/index"
	"narwharf/cache/narfile"
	"narwharf/narinfo"
	"narwharf/narinfo/clip"
)

// maxNarinfo bounds a narinfo's text in bytes: some 15,000 references.
const maxNarinfo = 1 << 20

// loadInfo reads and parses a narinfo file.
func (u *Uploads) loadInfo(hash string) (*narinfo.Info, error) {
	text, err := blob.ReadFile(u.blobs, hash+".narinfo", maxNarinfo)
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
	if info.StoreDir != u.opts.StoreDir {
		return nil, fmt.Errorf("is for the store %s, this cache serves %s", info.StoreDir, u.opts.StoreDir)
	}
	if file, ok := strings.CutPrefix(info.URL, "nar/"); !ok || !narfile.Grammar.MatchString(file) {
		return nil, fmt.Errorf("has the URL %s, not of the form nar/<52 characters of nix32>.nar[.suffix]", clip.Text(info.URL, 100))
	}
	return info, nil
}

// infoFiles returns the hash parts of all narinfo files with their times.
func (u *Uploads) infoFiles() (map[string]time.Time, error) {
	files := make(map[string]time.Time)
	err := u.blobs.List("", func(st blob.Info) error {
		if hash, ok := strings.CutSuffix(st.Name, ".narinfo"); ok && narinfo.ValidHash(hash) {
			files[hash] = st.ModTime
		}
		return nil
	})
	return files, err
}

// Measure counts the NAR files; the numbers are kept up to date from then on.
func (u *Uploads) Measure() error {
	var size, files int64
	err := u.blobs.List("nar", func(st blob.Info) error {
		size += st.Size
		files++
		return nil
	})
	if err != nil {
		return err
	}
	u.bytes.Store(size)
	u.files.Store(files)
	return nil
}

// recoverAtOnce is how many records Recover works on at a time. The index
// takes what waits in one transaction.
const recoverAtOnce = 256

// Recover makes the index agree with the narinfo files after a crash, or
// after somebody changed the files while nothing ran. The files win. It must
// run before the first upload. What the index knows of a narinfo file that
// cannot be read stays as it is; the file is left for fsck to judge.
func (u *Uploads) Recover() (added, dropped int, err error) {
	files, err := u.infoFiles()
	if err != nil {
		return 0, 0, err
	}
	var gone []string
	known := make(map[string]bool)
	err = u.index.Each(func(r *index.Record) error {
		hash := r.Info.Path.Hash()
		if _, there := files[hash]; there {
			known[hash] = true
		} else {
			gone = append(gone, hash)
		}
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	// All at once, and so in few transactions: after a lost database every
	// path goes through here.
	var put, lost atomic.Int64
	var g errgroup.Group
	g.SetLimit(recoverAtOnce)
	for _, hash := range gone {
		g.Go(func() error {
			lost.Add(1)
			return u.index.Delete(hash)
		})
	}
	for hash, when := range files {
		g.Go(func() error {
			r, err := u.recoverOne(hash, when, known[hash])
			if err != nil {
				return err
			}
			if r != nil {
				put.Add(1)
				return u.index.Put(r)
			}
			return nil
		})
	}
	err = g.Wait()
	return int(put.Load()), int(lost.Load()), err
}

// recoverOne returns the record that a narinfo file calls for, nil if the index
// has it right or the file cannot be read.
func (u *Uploads) recoverOne(hash string, when time.Time, known bool) (*index.Record, error) {
	info, err := u.loadInfo(hash)
	if err != nil {
		u.log.Error("a narinfo file is damaged, run narwharf fsck", "file", hash+".narinfo", "error", err)
		return nil, nil
	}
	if !known {
		return &index.Record{Info: info, Uploaded: when}, nil
	}
	r, err := u.index.Get(hash)
	if err != nil || bytes.Equal(r.Info.Append(nil), info.Append(nil)) {
		return nil, err
	}
	r.Info, r.Alternates = info, without(r.Alternates, info.URL)
	return r, nil
}

// Rebuild makes the index anew from the files alone, while readers go on with
// the old one and uploads wait. NARs that no narinfo names are read, since
// they may be another encoding of one that is named. Files that cannot be
// used are reported and left as they are.
//
// Not in files, and so lost: who uploaded a path and the exact time.
func (u *Uploads) Rebuild(ctx context.Context, report func(format string, args ...any)) error {
	u.gate.Lock()
	defer u.gate.Unlock()
	files, err := u.infoFiles()
	if err != nil {
		return err
	}
	hashes := make([]string, 0, len(files))
	for hash := range files {
		hashes = append(hashes, hash)
	}
	slices.Sort(hashes)

	// Of each narinfo only what tells its alternates is held in memory; it is
	// read again when its turn comes.
	named := make(map[string]bool)           // NAR files that a narinfo names
	byNar := make(map[narinfo.Hash][]string) // NarHash -> paths
	for _, hash := range hashes {
		if err := ctx.Err(); err != nil {
			return err
		}
		info, err := u.loadInfo(hash)
		if err != nil {
			report("left out: %s.narinfo: %v", hash, err)
			continue
		}
		named[strings.Clone(info.URL)] = true
		byNar[info.NarHash] = append(byNar[info.NarHash], hash)
	}
	alternates := make(map[string][]string) // hash -> further files
	var further int
	err = u.blobs.List("nar", func(st blob.Info) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		file := strings.TrimPrefix(st.Name, "nar/")
		if named[st.Name] || !narfile.Grammar.MatchString(file) {
			return nil
		}
		f, err := u.inspect(file)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			report("left out: %s: %v", st.Name, err)
			return nil
		}
		for _, hash := range byNar[f.NarHash] {
			alternates[hash] = append(alternates[hash], st.Name)
		}
		if len(byNar[f.NarHash]) > 0 {
			further++
		}
		return nil
	})
	if err != nil {
		return err
	}
	var paths int
	err = u.index.Replace(func(put func(*index.Record) error) error {
		for _, hash := range hashes {
			if err := ctx.Err(); err != nil {
				return err
			}
			info, err := u.loadInfo(hash)
			if err != nil {
				continue // as reported above
			}
			slices.Sort(alternates[hash])
			if err := put(&index.Record{Info: info, Uploaded: files[hash], Alternates: alternates[hash]}); err != nil {
				return err
			}
			paths++
		}
		return nil
	})
	if err != nil {
		return err
	}
	u.changed("")
	report("index made anew: %d paths, %d more NAR files with the NAR of one of them in another encoding", paths, further)
	report("not in files, and so not restored: who uploaded a path; the time is that of the file")
	return nil
}

// Sweep removes NARs that have had no narinfo for longer than the grace time,
// and returns how many files and bytes went.
func (u *Uploads) Sweep(now time.Time) (files int, size int64, err error) {
	var old []string
	err = u.blobs.List("nar", func(st blob.Info) error {
		if now.Sub(st.ModTime) > u.opts.NarGrace {
			old = append(old, st.Name)
		}
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	var errs []error
	for _, name := range old {
		n, err := u.sweepOne(name, now)
		if err != nil {
			errs = append(errs, err) // one that cannot go must not keep the others
			continue
		}
		if n >= 0 {
			files++
			size += n
		}
	}
	return files, size, errors.Join(errs...)
}

// sweepOne removes one NAR if, under its lock, it is still old and unnamed.
// It returns its size, -1 if it stays.
func (u *Uploads) sweepOne(name string, now time.Time) (int64, error) {
	u.gate.RLock() // Rebuild may be about to name it
	defer u.gate.RUnlock()
	defer u.locks.Lock(name)()
	users, err := u.index.Users(name)
	if err != nil || len(users) > 0 {
		return -1, err
	}
	st, err := u.blobs.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return -1, nil
	}
	if err != nil {
		return -1, err
	}
	if now.Sub(st.ModTime) <= u.opts.NarGrace {
		return -1, nil
	}
	if err := u.removeNar(st); err != nil {
		return -1, err
	}
	return st.Size, nil
}

// removeNar deletes a NAR file, of which st is known. The caller holds its
// lock.
func (u *Uploads) removeNar(st blob.Info) error {
	err := u.blobs.Remove(st.Name)
	// A failed removal may be one whose folder could not be synced.
	if _, now := u.blobs.Stat(st.Name); errors.Is(now, fs.ErrNotExist) {
		u.forget(st.Name)
		u.bytes.Add(-st.Size)
		u.files.Add(-1)
	}
	return err
}
