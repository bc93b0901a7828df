package hooks

import (
	"context"
	"time"

	"narwharf/narinfo"
)

// Cache is what channels need of a binary cache.
type Cache interface {
	// Info returns what the cache holds for a store path, by hash part,
	// with the signatures that came with it, and when and by whom it was
	// uploaded. fs.ErrNotExist if it holds nothing.
	Info(hash string) (info *narinfo.Info, uploaded time.Time, by string, err error)
	// HasBytes tells whether the NAR of a path is really there.
	HasBytes(info *narinfo.Info) bool
	// Peek reads small files out of a path: names that are missing are not
	// in the result, what is no regular file or larger than limit is there
	// with no content.
	Peek(hash string, names []string, limit int64) (map[string][]byte, error)
	// Adopt makes the cache's own those of paths that it only passes on from
	// the store of its machine, and returns how many; by is then the
	// uploader. All are durable when it returns nil; what an earlier call
	// did is not done again. A CacheRefusal is for the promoter to read.
	Adopt(ctx context.Context, paths []narinfo.Path, by string) (int, error)
}

// CacheRefusal is an error of Adopt that says in its words what is wrong with a
// path and what to do.
type CacheRefusal interface {
	error
	// Conflict: another content of a path was uploaded meanwhile.
	Conflict() bool
	// Unavailable: the cache cannot look now; it may pass.
	Unavailable() bool
}

// Files keeps immutable files beside those of the cache: channels/<c>/<seq>
// and closures/<hex>. A write that has returned nil survives a power cut.
type Files interface {
	// Write stores data under name, whole or not at all.
	Write(name string, data []byte) error
	// Read returns a file of at most limit bytes; fs.ErrNotExist if absent.
	Read(name string, limit int64) ([]byte, error)
	// List calls fn with the name of each file directly in dir.
	List(dir string, fn func(name string) error) error
	// Folders returns the names of the folders directly in dir.
	Folders(dir string) ([]string, error)
}
