package copies

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"narwharf/cache/blob"
	"narwharf/narinfo"
)

// Content is a Source of content files that lie elsewhere than in a folder.
type Content struct {
	store blob.Store
	about func() (map[string][]string, error) // what sidecars say that they are about
}

// NewContent makes a source of content files.
func NewContent(store blob.Store) *Content {
	c := &Content{store: store}
	c.about = sync.OnceValues(c.listSidecars)
	return c
}

// Info implements Source.
func (c *Content) Info(_ context.Context, hash string) (*narinfo.Info, error) {
	text, err := blob.ReadFile(c.store, hash+".narinfo", maxNarinfo)
	if err != nil {
		return nil, err
	}
	return ParseInfo(hash, text)
}

// NAR implements Source.
func (c *Content) NAR(_ context.Context, info *narinfo.Info) (io.ReadCloser, error) {
	return c.open(info.URL)
}

// Sidecar implements Besides.
func (c *Content) Sidecar(name string) (io.ReadCloser, error) { return c.open(name) }

func (c *Content) open(name string) (io.ReadCloser, error) {
	f, err := c.store.Open(name)
	if err != nil {
		return nil, err
	}
	return f.Content, nil
}

// Beside implements Besides.
func (c *Content) Beside(info *narinfo.Info) ([]string, error) {
	about, err := c.about()
	if err != nil {
		return nil, err
	}
	names := slices.Concat(about[string(info.Path)], about[info.URL])
	named := []string{info.Path.Hash() + ".ls"}
	if info.Deriver != "" {
		named = append(named, "log/"+string(info.Deriver))
	}
	for _, name := range named {
		_, err := c.store.Stat(name)
		switch {
		case err == nil:
			names = append(names, name)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
	}
	return names, nil
}

// listSidecars is Folder.listSidecars for content files.
func (c *Content) listSidecars() (map[string][]string, error) {
	about := make(map[string][]string)
	dirs := []string{"realisations", "debuginfo"}
	below, err := c.store.Folders("build-trace-v2")
	if err != nil {
		return nil, err
	}
	for _, drv := range below {
		dirs = append(dirs, "build-trace-v2/"+drv)
	}
	for _, dir := range dirs {
		err := c.store.List(dir, func(i blob.Info) error {
			text, err := blob.ReadFile(c.store, i.Name, 1<<20)
			if errors.Is(err, blob.ErrAway) {
				return err
			}
			var is struct{ OutPath, Archive string }
			if err != nil || json.Unmarshal(text, &is) != nil { // it is about nothing
				return nil
			}
			if key := is.OutPath + strings.TrimPrefix(is.Archive, "../"); key != "" {
				about[key] = append(about[key], i.Name)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return about, nil
}
