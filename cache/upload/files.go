package upload

import (
	"fmt"
	"strings"
	"time"

	"narwharf/cache/blob"
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
