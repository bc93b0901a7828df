package upload

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

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
	b := &rebuild{s, files, make(map[string]bool), make(map[narinfo.Hash][]string), make(map[string][]string), report}
	if err := b.readInfos(ctx); err != nil {
		return err
	}
	further, err := b.readFurther(ctx)
	if err != nil {
		return err
	}
	paths, err := b.replace(ctx)
	if err != nil {
		return err
	}
	s.Changed("")
	report("index made anew: %d paths, %d more NAR files with the NAR of one of them in another encoding", paths, further)
	report("not in files, and so not restored: who uploaded a path; the time is that of the file")
	return nil
}

// rebuild holds in memory of each narinfo only what tells its alternates; it is read
// again when its turn comes.
type rebuild struct {
	*Store
	files      map[string]time.Time      // hash parts of the narinfo files
	named      map[string]bool           // NAR files that a narinfo names
	byNar      map[narinfo.Hash][]string // hash parts of the paths with a NAR
	alternates map[string][]string       // further files of a path, by hash part
	report     func(format string, args ...any)
}

func (b *rebuild) readInfos(ctx context.Context) error {
	for _, hash := range slices.Sorted(maps.Keys(b.files)) {
		if err := ctx.Err(); err != nil {
			return err
		}
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

func (b *rebuild) replace(ctx context.Context) (paths int, err error) {
	err = b.Index.Replace(func(put func(*index.Record) error) error {
		for _, hash := range slices.Sorted(maps.Keys(b.files)) {
			if err := ctx.Err(); err != nil {
				return err
			}
			info, err := b.LoadInfo(hash)
			if err != nil {
				continue // as reported above
			}
			slices.Sort(b.alternates[hash])
			if err := put(&index.Record{Info: info, Uploaded: b.files[hash], Alternates: b.alternates[hash]}); err != nil {
				return err
			}
			paths++
		}
		return nil
	})
	return paths, err
}
