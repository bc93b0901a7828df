package upload

import (
	"bytes"
	"fmt"
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

// recoverAtOnce is how many records Recover works on at a time. The index
// takes what waits in one transaction.
const recoverAtOnce = 256

// Recover makes the index agree with the narinfo files after a crash, or
// after somebody changed the files while nothing ran. The files win. It must
// run before the first upload. What the index knows of a narinfo file that
// cannot be read stays as it is; the file is left for fsck to judge.
func (s *Store) Recover() (added, dropped int, err error) {
	files, err := InfoFiles(s.Files)
	if err != nil {
		return 0, 0, err
	}
	var gone []string
	known := make(map[string]bool)
	err = s.Index.Each(func(r *index.Record) error {
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
			return s.Index.Delete(hash)
		})
	}
	for hash, when := range files {
		g.Go(func() error {
			r, err := s.recoverOne(hash, when, known[hash])
			if err != nil {
				return err
			}
			if r != nil {
				put.Add(1)
				return s.Index.Put(r)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return 0, 0, fmt.Errorf("make the index agree with the files: %w", err)
	}
	added, dropped = int(put.Load()), int(lost.Load())
	if added+dropped > 0 {
		s.log.Info("made the index agree with the files", "added", added, "dropped", dropped)
	}
	return added, dropped, nil
}

// recoverOne returns the record that a narinfo file calls for, nil if the index
// has it right or the file cannot be read.
func (s *Store) recoverOne(hash string, when time.Time, known bool) (*index.Record, error) {
	info, err := s.LoadInfo(hash)
	if err != nil {
		s.log.Error("a narinfo file is damaged, run narwharf fsck", "file", hash+".narinfo", "error", err)
		return nil, nil
	}
	if !known {
		return &index.Record{Info: info, Uploaded: when}, nil
	}
	r, err := s.Index.Get(hash)
	if err != nil || bytes.Equal(r.Info.Append(nil), info.Append(nil)) {
		return nil, err
	}
	return WithInfo(r, info), nil
}

// WithInfo copies a record with another narinfo. The NAR file that this one names
// is no alternate then.
func WithInfo(r *index.Record, info *narinfo.Info) *index.Record {
	next := *r
	next.Info = info
	next.Alternates = slices.DeleteFunc(slices.Clone(r.Alternates), func(name string) bool { return name == info.URL })
	return &next
}
