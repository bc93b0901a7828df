package stored

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"narwharf/cache/blob"
	"narwharf/cache/local"
	"narwharf/cache/nar"
	"narwharf/narinfo"
)

// ofLocal is the uploader of a path that comes from the local store.
const ofLocal = "its own Nix store"

// Info returns the narinfo of a path by its hash part, with the signatures that
// came with it, and when and by whom it was uploaded; for one of the local store
// when it became valid there. One of an upstream counts, too. A path that is not here is an error that Is
// fs.ErrNotExist.
func (c *Cache) Info(hash string) (info *narinfo.Info, uploaded time.Time, by string, err error) {
	r, err := c.uploaded(hash)
	if err == nil && r != nil {
		return r.Info, r.Uploaded, r.By, nil
	}
	ctx := context.Background()
	if err == nil {
		if info, err = c.Local.Info(ctx, hash); err == nil {
			uploaded, err = c.Local.Registered(ctx, info.Path)
		}
	}
	if missing(err) && c.Upstreams != nil {
		p, err := c.Upstreams.Find(ctx, hash)
		if err != nil {
			return nil, time.Time{}, "", err
		}
		return c.served(p), time.Now(), p.From.String(), nil
	}
	if err != nil {
		return nil, time.Time{}, "", err
	}
	return info, uploaded, ofLocal, nil
}

// HasBytes tells whether the NAR of a path is there, whole by its size. The
// files of a local path are there if the first is: the rest shows when they are
// read. What we lean on an upstream for is there. While a bucket is away nobody knows: blob.ErrAway.
func (c *Cache) HasBytes(info *narinfo.Info) (bool, error) {
	if info.URL == local.URL(info) {
		if c.Local != nil && c.Local.HasFiles(info.Path) {
			return true, nil
		}
		_, err := c.Upstreams.Find(context.Background(), info.Path.Hash())
		return err == nil, nil
	}
	st, err := c.Uploads.Files.Stat(info.URL)
	if errors.Is(err, blob.ErrAway) {
		return false, err
	}
	return err == nil && (info.FileSize == 0 || st.Size == info.FileSize), nil
}

// Use keeps paths for a lease, by hash part: they do not go while their closure is checked
// and promoted. It returns those that are in no source.
func (c *Cache) Use(ctx context.Context, hashes []string) (missing []string, err error) {
	gone, err := c.Uploads.Index.Use(ctx, hashes)
	for _, hash := range gone {
		if c.Local != nil {
			if _, err := c.Local.Info(ctx, hash); err == nil {
				continue
			}
		}
		if _, err := c.Upstreams.Lean(ctx, hash); err == nil {
			continue
		}
		missing = append(missing, hash)
	}
	return missing, err
}

// Peek reads small files out of a path, out of an uploaded one in one pass over
// its NAR, and what links point at. A name that is neither, or larger than limit bytes, is
// there with no content; one that is missing is not in the result.
func (c *Cache) Peek(hash string, names []string, limit int64) (map[string][]byte, error) {
	src, err := c.find(context.Background(), hash)
	if err != nil {
		return nil, err
	}
	if src.Local {
		return c.Local.ReadFiles(src.Path, names, limit)
	}
	plain, err := c.open(context.Background(), src)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	found := make(map[string][]byte)
	for reader := nar.NewReader(plain); ; {
		e, err := reader.Next()
		if err == io.EOF {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		if !slices.Contains(names, e.Path) {
			continue
		}
		found[e.Path] = nil
		if e.Type == nar.Symlink {
			found[e.Path] = []byte(e.Target)
		}
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

// Stream opens a file of size bytes; fs.ErrNotExist if there is none.
func (f ChannelFiles) Stream(name string) (io.ReadCloser, int64, error) {
	in, err := f.Store.Open(name)
	if err != nil {
		return nil, 0, err
	}
	return in.Content, in.Size, nil
}

// List calls fn with the name of each file directly in dir.
func (f ChannelFiles) List(dir string, fn func(name string) error) error {
	return f.Store.List(dir, func(i blob.Info) error { return fn(i.Name) })
}

// Remove deletes a file; that there is none is no error.
func (f ChannelFiles) Remove(name string) error { return f.Store.Remove(name) }
