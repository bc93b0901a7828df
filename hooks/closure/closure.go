// Package closure is what a cache must hold for a release or a pin: every path of its
// closures, with the bytes that were signed.
//
// Who makes a release or a pin holds its closures first, then checks them, and makes the
// roots last. What is held is not collected for as long as a lease lasts, so what the
// check finds is there until the roots keep it.
//
// Closure manifests are files beside those of the cache, closures/<sha256>.
package closure

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"time"

	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/narinfo/clip"
	"narwharf/signing"
)

// Cache is what closures need of a binary cache.
type Cache interface {
	// Info returns what the cache holds for a store path, by hash part,
	// with the signatures that came with it, and when and by whom it was
	// uploaded. fs.ErrNotExist if it holds nothing.
	Info(hash string) (info *narinfo.Info, uploaded time.Time, by string, err error)
	// HasBytes tells whether the NAR of a path is really there. An error is that nobody knows now.
	HasBytes(info *narinfo.Info) (bool, error)
	// Peek reads small files out of a path, and what links point at: names that
	// are missing are not in the result, what is neither or larger than limit is
	// there with no content.
	Peek(hash string, names []string, limit int64) (map[string][]byte, error)
	// Adopt makes the cache's own those of paths that it only passes on from
	// the store of its machine, and returns how many; by is then the
	// uploader. All are durable when it returns nil; what an earlier call
	// did is not done again. A Refusal is for the promoter to read.
	Adopt(ctx context.Context, paths []narinfo.Path, by string) (int, error)
	// Use notes that paths are of use now, by their hash parts: none of those that were
	// uploaded is collected for as long as a lease. missing are the others.
	Use(ctx context.Context, hashes []string) (missing []string, err error)
}

// Refusal is an error of Adopt that says in its words what is wrong with a path and what
// to do.
type Refusal interface {
	error
	// Conflict: another content of a path was uploaded meanwhile.
	Conflict() bool
	// Unavailable: the cache cannot look now; it may pass.
	Unavailable() bool
}

// Files keeps immutable files beside those of the cache. A write that has
// returned nil survives a power cut.
type Files interface {
	// Write stores data under name, whole or not at all.
	Write(name string, data []byte) error
	// Read returns a file of at most limit bytes; fs.ErrNotExist if absent.
	Read(name string, limit int64) ([]byte, error)
	// Stream opens a file of size bytes; fs.ErrNotExist if absent.
	Stream(name string) (content io.ReadCloser, size int64, err error)
}

// Closures looks at those in a cache.
type Closures struct {
	cache Cache
	files Files
	log   *slog.Logger
}

// New makes Closures of a cache, with the manifests among files.
func New(cache Cache, files Files, log *slog.Logger) *Closures {
	return &Closures{cache, files, log}
}

// Adopt makes the cache keep all of some paths, of which it may only pass some on from the
// store of its machine: there a garbage collection would take them. kept says for what, as
// "channel web". It returns how many were adopted.
func (c *Closures) Adopt(ctx context.Context, kept, by string, paths []narinfo.Path) (int, error) {
	n, err := c.cache.Adopt(ctx, paths, "adopted for "+kept)
	if err == nil {
		if n > 0 {
			c.log.Info("adopted paths of the local store", "for", kept, "paths", n, "by", by)
		}
		return n, nil
	}
	var refused Refusal
	switch {
	case ctx.Err() != nil:
		e := api.Errorf(api.Unavailable, "the server stops; try again, it goes on from where it was")
		e.RetryAfter = 5 * time.Second
		return 0, e
	case !errors.As(err, &refused):
		return 0, err
	case refused.Conflict():
		return 0, api.Errorf(api.ClosureDiffers, "%v", err)
	case refused.Unavailable():
		return 0, api.Errorf(api.Unavailable, "%v", err)
	}
	return 0, api.Errorf(api.ClosureIncomplete, "%v", err)
}

// Hold keeps the closures of roots from being collected for as long as a lease, as far as
// they are here: what is found whole after it stays so until roots keep it.
func (c *Closures) Hold(ctx context.Context, roots []narinfo.Path) error {
	known := make(map[narinfo.Path]*narinfo.Info)
	for _, root := range roots {
		if _, _, err := c.walk(root, known, indexed); err != nil {
			return err
		}
	}
	hashes := make([]string, 0, len(known))
	for p := range known {
		hashes = append(hashes, p.Hash())
	}
	slices.Sort(hashes)
	_, err := c.cache.Use(ctx, hashes)
	return err
}

// Whole sees to it that the closures of roots are in the cache, and returns their paths,
// sorted.
func (c *Closures) Whole(roots []narinfo.Path) ([]narinfo.Path, error) {
	known := make(map[narinfo.Path]*narinfo.Info)
	for _, root := range roots {
		_, lost, err := c.walk(root, known, c.cache.HasBytes)
		if err != nil {
			return nil, err
		}
		if len(lost) > 0 {
			e := api.Errorf(api.ClosureIncomplete, "the closure of %s is not complete in this cache: it lacks %s, %s first; nix copy --refresh --to this cache", root, clip.Count(len(lost), "path"), lost[0])
			e.Missing = []api.Missing{{Count: len(lost), Paths: lost[:min(len(lost), maxListed)]}}
			return nil, e
		}
	}
	return slices.Sorted(maps.Keys(known)), nil
}

// Has tells whether a path is in the cache.
func (c *Closures) Has(p narinfo.Path) (bool, error) {
	_, _, _, err := c.cache.Info(p.Hash())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Paths are all paths of closures, sorted.
func Paths(closures map[signing.Digest]*Closure) []narinfo.Path {
	paths := make(map[narinfo.Path]bool)
	for _, cl := range closures {
		for _, l := range cl.Manifest.Lines {
			paths[l.Path] = true
		}
	}
	return slices.Sorted(maps.Keys(paths))
}

func name(d signing.Digest) string { return "closures/" + d.Hex() }

// Store makes the manifests of closures durable.
func (c *Closures) Store(closures map[signing.Digest]*Closure) error {
	for digest, cl := range closures {
		if cl.stored {
			continue
		}
		if err := c.files.Write(name(digest), cl.Manifest.Text()); err != nil {
			return err
		}
	}
	return nil
}

// Of is the manifest of an entry, nil if it cannot be read.
func (c *Closures) Of(e *signing.Entry) *signing.Manifest {
	root, err := e.Path()
	if err != nil {
		return nil
	}
	text, err := c.files.Read(name(e.Closure), signing.MaxManifest)
	if err != nil {
		return nil
	}
	m, err := signing.ParseManifest(text, e.Closure, root)
	if err != nil {
		return nil
	}
	return m
}

// Manifest opens a closure manifest of size bytes.
func (c *Closures) Manifest(d signing.Digest) (text io.ReadCloser, size int64, err error) {
	text, size, err = c.files.Stream(name(d))
	if errors.Is(err, fs.ErrNotExist) {
		err = api.Errorf(api.NotFound, "there is no closure manifest %s here", d)
	}
	return text, size, err
}

// PutManifest takes a manifest that a promoter wants to be compared.
func (c *Closures) PutManifest(d signing.Digest, text []byte) error {
	m, err := signing.ReadManifest(text)
	if err != nil {
		return api.Errorf(api.Invalid, "%v", err)
	}
	if m.Digest() != d {
		return api.Errorf(api.Invalid, "the manifest has the digest %s and was sent as %s", m.Digest(), d)
	}
	if _, err := c.files.Read(name(d), signing.MaxManifest); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return c.files.Write(name(d), text)
}
