package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"narwharf/cache/blob"
	"narwharf/cache/index"
	"narwharf/narinfo"
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
	var bytes, files int64
	err := u.blobs.List("nar", func(st blob.Info) error {
		bytes += st.Size
		files++
		return nil
	})
	if err != nil {
		return err
	}
	u.bytes.Store(bytes)
	u.files.Store(files)
	return nil
}

// Recover makes the index agree with the narinfo files after a crash, or
// after somebody changed the files while nothing ran. The files win. It must
// run before the first upload. A narinfo file that cannot be read stays out
// of the index and is left for fsck to judge.
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
	for _, hash := range gone {
		if err := u.index.Delete(hash); err != nil {
			return added, dropped, err
		}
		dropped++
	}
	for hash, when := range files {
		info, err := u.loadInfo(hash)
		if err != nil {
			u.log.Error("a narinfo file is damaged, run narwharf fsck", "file", hash+".narinfo", "error", err)
			if known[hash] {
				dropped++
				if err := u.index.Delete(hash); err != nil {
					return added, dropped, err
				}
			}
			continue
		}
		r := &index.Record{Info: info, Uploaded: when}
		if known[hash] {
			old, err := u.index.Get(hash)
			if err != nil {
				return added, dropped, err
			}
			if string(old.Info.Append(nil)) == string(info.Append(nil)) {
				continue
			}
			r.Uploaded, r.By, r.Alternates = old.Uploaded, old.By, old.Alternates
		}
		if err := u.index.Put(r); err != nil {
			return added, dropped, err
		}
		added++
	}
	return added, dropped, nil
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

	named := make(map[string]bool)            // NAR files that a narinfo names
	byNar := make(map[narinfo.Hash][]string)  // NarHash -> paths
	records := make(map[string]*index.Record) // with alternates, a few
	alternates := make(map[string][]string)   // hash -> further files
	for _, hash := range hashes {
		info, err := u.loadInfo(hash)
		if err != nil {
			report("left out: %s.narinfo: %v", hash, err)
			continue
		}
		named[info.URL] = true
		byNar[info.NarHash] = append(byNar[info.NarHash], hash)
		records[hash] = &index.Record{Info: info, Uploaded: files[hash]}
	}
	err = u.blobs.List("nar", func(st blob.Info) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		file := strings.TrimPrefix(st.Name, "nar/")
		if named[st.Name] || !narGrammar.MatchString(file) {
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
		for _, hash := range byNar[f.narHash] {
			alternates[hash] = append(alternates[hash], st.Name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = u.index.Replace(func(put func(*index.Record) error) error {
		for _, hash := range hashes {
			r := records[hash]
			if r == nil {
				continue
			}
			r.Alternates = alternates[hash]
			if err := put(r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, hash := range hashes {
		u.changed(hash)
	}
	report("index made anew: %d paths, %d NAR files named twice or in another encoding", len(records), len(alternates))
	report("not in files, and so not restored: who uploaded a path; the time is that of the file")
	return nil
}

// Sweep removes NARs that have had no narinfo for longer than the grace time,
// and returns how many files and bytes went.
func (u *Uploads) Sweep(now time.Time) (files int, bytes int64, err error) {
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
	for _, name := range old {
		size, err := u.sweepOne(name, now)
		if err != nil {
			return files, bytes, err
		}
		if size >= 0 {
			files++
			bytes += size
		}
	}
	return files, bytes, nil
}

// sweepOne removes one NAR if, under its lock, it is still old and unnamed.
// It returns its size, -1 if it stays.
func (u *Uploads) sweepOne(name string, now time.Time) (int64, error) {
	defer u.locks.lock(name)()
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
	if err := u.blobs.Remove(name); err != nil {
		return -1, err
	}
	u.forget(name)
	u.bytes.Add(-st.Size)
	u.files.Add(-1)
	return st.Size, nil
}
