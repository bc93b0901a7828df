package upload

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"

	"narwharf/cache/blob"
	"narwharf/cache/index"
	"narwharf/cache/narfile"
	"narwharf/narinfo"
)

// Rebuild makes the index anew from the files alone, while readers go on with
// the old one and uploads wait. NARs that no narinfo names are read, since
// they may be another encoding of one that is named. Files that cannot be
// used are reported and left as they are.
//
// Not in files, and so lost: who uploaded a path and the exact time.
func (s *Store) Rebuild(ctx context.Context, report func(format string, args ...any)) error {
	s.gate.Lock()
	defer s.gate.Unlock()
	files, err := InfoFiles(s.Files)
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
		info, err := s.LoadInfo(hash)
		if err != nil {
			report("left out: %s.narinfo: %v", hash, err)
			continue
		}
		named[strings.Clone(info.URL)] = true
		byNar[info.NarHash] = append(byNar[info.NarHash], hash)
	}
	alternates := make(map[string][]string) // hash -> further files
	var further int
	err = s.Files.List("nar", func(st blob.Info) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		file := strings.TrimPrefix(st.Name, "nar/")
		if named[st.Name] || !narfile.Grammar.MatchString(file) {
			return nil
		}
		f, err := Inspect(s.Files, file)
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
	err = s.Index.Replace(func(put func(*index.Record) error) error {
		for _, hash := range hashes {
			if err := ctx.Err(); err != nil {
				return err
			}
			info, err := s.LoadInfo(hash)
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
	s.Changed("")
	report("index made anew: %d paths, %d more NAR files with the NAR of one of them in another encoding", paths, further)
	report("not in files, and so not restored: who uploaded a path; the time is that of the file")
	return nil
}
