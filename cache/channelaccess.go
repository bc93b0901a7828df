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
	"narwharf/cache/upload"
	"narwharf/cache/upload/adopt"
	"narwharf/narinfo"
)

// ChannelAccess is the cache as channels see it, uploads and the machine's own
// store as one. Package hooks declares the interface.
type ChannelAccess struct {
	*adopt.Adopter
	Uploads *upload.Store
	Local   *local.Store // nil if it is not served
}

// ofLocal is the uploader of a path that comes from the local store.
const ofLocal = "its own Nix store"

// Info returns the narinfo of a path by its hash part, with the signatures that
// came with it, and when and by whom it was uploaded; for one of the local store
// when it became valid there. A path that is not here is an error that Is
// fs.ErrNotExist.
func (a *ChannelAccess) Info(hash string) (info *narinfo.Info, uploaded time.Time, by string, err error) {
	r, err := a.Uploads.Index.Get(hash)
	if err == nil {
		return r.Info, r.Uploaded, r.By, nil
	}
	if !errors.Is(err, index.ErrNotFound) {
		return nil, time.Time{}, "", err
	}
	if a.Local == nil {
		return nil, time.Time{}, "", fs.ErrNotExist
	}
	ctx := context.Background()
	l, err := a.Local.Info(ctx, hash)
	if err != nil {
		return nil, time.Time{}, "", err
	}
	since, err := a.Local.Registered(ctx, l.Path)
	if err != nil {
		return nil, time.Time{}, "", err
	}
	return l, since, ofLocal, nil
}

// HasBytes tells whether the NAR of a path is there, whole by its size. The
// files of a local path are there if the first is: the rest shows when they are
// read.
func (a *ChannelAccess) HasBytes(info *narinfo.Info) bool {
	if a.Local != nil && localGrammar.MatchString(strings.TrimSuffix(strings.TrimPrefix(info.URL, "nar/"), local.CompressedSuffix)) {
		return a.Local.HasFiles(info.Path)
	}
	st, err := a.Uploads.Files.Stat(info.URL)
	return err == nil && (info.FileSize == 0 || st.Size == info.FileSize)
}

// Peek reads small files out of a path, out of an uploaded one in one pass over
// its NAR. A name that is no regular file, or is larger than limit bytes, is
// there with no content; one that is missing is not in the result.
func (a *ChannelAccess) Peek(hash string, names []string, limit int64) (map[string][]byte, error) {
	r, err := a.Uploads.Index.Get(hash)
	if a.Local != nil && errors.Is(err, index.ErrNotFound) {
		i, err := a.Local.Info(context.Background(), hash)
		if err != nil {
			return nil, err
		}
		return a.Local.ReadFiles(i.Path, names, limit)
	}
	if err != nil {
		return nil, err
	}
	plain, err := narfile.Open(a.Uploads.Files, r.Info.URL)
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

// ChannelFiles lets channels keep their files beside those of the cache.
type ChannelFiles struct{ blob.Store }

// Write stores data under name, whole or not at all.
func (f ChannelFiles) Write(name string, data []byte) error {
	return blob.WriteFile(f.Store, name, data)
}

// Read returns a file of at most limit bytes; fs.ErrNotExist if there is none.
func (f ChannelFiles) Read(name string, limit int64) ([]byte, error) {
	return blob.ReadFile(f.Store, name, limit)
}

// List calls fn with the name of each file directly in dir.
func (f ChannelFiles) List(dir string, fn func(name string) error) error {
	return f.Store.List(dir, func(i blob.Info) error { return fn(i.Name) })
}
