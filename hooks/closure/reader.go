package closure

import (
	"narwharf/narinfo"
	"narwharf/signing"
)

// Reader reads closures as the cache has them now. It remembers what it has read, and is for one
// use: what it says is held by nobody.
type Reader struct {
	c     *Closures
	known map[narinfo.Path]*narinfo.Info
}

// Reader makes one.
func (c *Closures) Reader() *Reader { return &Reader{c, make(map[narinfo.Path]*narinfo.Info)} }

// Manifest is the closure of a path; lost are paths of it that are not here, and then there is
// none.
func (r *Reader) Manifest(root narinfo.Path) (m *signing.Manifest, lost []narinfo.Path, err error) {
	infos, lost, err := r.c.walk(root, r.known, indexed)
	if err != nil || len(lost) > 0 {
		return nil, lost, err
	}
	m, err = signing.NewManifest(infos)
	return m, nil, err
}

// Files are small files and links of a path; see Cache.Peek.
func (r *Reader) Files(root narinfo.Path, names []string, limit int64) (map[string][]byte, error) {
	return r.c.cache.Peek(root.Hash(), names, limit)
}
