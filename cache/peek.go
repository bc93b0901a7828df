package cache

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"time"

	"narwharf/cache/blob"
	"narwharf/cache/index"
	"narwharf/cache/local"
	"narwharf/cache/nar"
	"narwharf/cache/narfile"
	"narwharf/narinfo"
)

// What channels need of a cache: package hooks declares the interface.

// ofLocal is the uploader of a path that comes from the local store.
const ofLocal = "its own Nix store"

// Info returns the narinfo of a path by its hash part, with the signatures that
// came with it, and when and by whom it was uploaded; for one of the local store
// when it became valid there. A path that is not here is an error that Is
// fs.ErrNotExist.
func (u *Uploads) Info(hash string) (info *narinfo.Info, uploaded time.Time, by string, err error) {
	r, err := u.index.Get(hash)
	if err == nil {
		return r.Info, r.Uploaded, r.By, nil
	}
	if !errors.Is(err, index.ErrNotFound) {
		return nil, time.Time{}, "", err
	}
	if u.local == nil {
		return nil, time.Time{}, "", fs.ErrNotExist
	}
	ctx := context.Background()
	l, err := u.local.Info(ctx, hash)
	if err != nil {
		return nil, time.Time{}, "", err
	}
	since, err := u.local.Registered(ctx, l.Path)
	if err != nil {
		return nil, time.Time{}, "", err
	}
	return l, since, ofLocal, nil
}

// HasBytes tells whether the NAR of a path is there, whole by its size. The
// files of a local path are there if the first is: the rest shows when they are
// read.
func (u *Uploads) HasBytes(info *narinfo.Info) bool {
	if u.local != nil && localGrammar.MatchString(strings.TrimSuffix(strings.TrimPrefix(info.URL, "nar/"), local.CompressedSuffix)) {
		return u.local.HasFiles(info.Path)
	}
	st, err := u.blobs.Stat(info.URL)
	return err == nil && (info.FileSize == 0 || st.Size == info.FileSize)
}

// Peek reads small files out of a path, out of an uploaded one in one pass over
// its NAR. A name that is no regular file, or is larger than limit bytes, is
// there with no content; one that is missing is not in the result.
func (u *Uploads) Peek(hash string, names []string, limit int64) (map[string][]byte, error) {
	r, err := u.index.Get(hash)
	if u.local != nil && errors.Is(err, index.ErrNotFound) {
		i, err := u.local.Info(context.Background(), hash)
		if err != nil {
			return nil, err
		}
		return u.local.ReadFiles(i.Path, names, limit)
	}
	if err != nil {
		return nil, err
	}
	plain, err := narfile.Open(u.blobs, r.Info.URL)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	wanted := make(map[string]bool, len(names))
	for _, n := range names {
		wanted[n] = true
	}
	found := make(map[string][]byte)
	reader := nar.NewReader(plain)
	for {
		e, err := reader.Next()
		if err == io.EOF {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		if !wanted[e.Path] {
			continue
		}
		found[e.Path] = nil
		if e.Type == nar.Regular && e.Size <= limit {
			text, err := io.ReadAll(reader)
			if err != nil {
				return nil, err
			}
			found[e.Path] = text
		}
	}
}

// Files is the store of content files, for channels to keep theirs in.
func (u *Uploads) Files() blob.Store { return u.blobs }
