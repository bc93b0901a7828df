package stored

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"narwharf/cache/blob"
	"narwharf/cache/nar"
	"narwharf/cache/narfile"
	"narwharf/cache/refusal"
	"narwharf/narinfo"
)

// The listing of an uploaded path, /<hash>.ls, is made out of its NAR when it is first
// asked for, and stored. The NAR was verified, what a client sends as a listing cannot
// be: see docs/design/006-listings-from-verified-bytes.md.

// MaxListing bounds a listing's text: some 600,000 files.
const MaxListing = 64 << 20

// turn waits until few others unpack something: that costs more than asking for it.
// done ends the turn.
func (c *Cache) turn(ctx context.Context) (done func(), err error) {
	select {
	case c.turns <- struct{}{}:
		return func() { <-c.turns }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// LocalListing walks a path of the local store. It opens none of its files.
func (c *Cache) LocalListing(ctx context.Context, info *narinfo.Info) ([]byte, error) {
	done, err := c.turn(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	tree, err := c.Local.Measure(ctx, info)
	if err != nil {
		return nil, err
	}
	return listingText(info.Path, tree.Listing())
}

// Listing opens the listing of a path, and makes it if need be. A path that is not
// uploaded has none, but what the local store has of it.
func (c *Cache) Listing(ctx context.Context, hash string) (*blob.File, *narinfo.Info, error) {
	f, err := c.Uploads.Files.Open(hash + ".ls")
	if !errors.Is(err, fs.ErrNotExist) {
		return f, nil, err
	}
	src, err := c.find(ctx, hash)
	if err != nil {
		return nil, nil, err
	}
	if src.Local {
		return nil, src.Info, nil
	}
	f, err = c.makeListing(ctx, hash)
	return f, nil, err
}

// makeListing makes the listing of an uploaded path, stores it and returns it.
func (c *Cache) makeListing(ctx context.Context, hash string) (*blob.File, error) {
	files, name := c.Uploads.Files, hash+".ls"
	// Anybody may ask for the listing of anything, and making one reads a
	// whole NAR: each is made once, whoever else waits, and a few at a time.
	defer c.locks.Lock(name)()
	if f, err := files.Open(name); err == nil {
		return f, nil
	}
	done, err := c.turn(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	r, err := c.Uploads.Index.Get(hash)
	if err != nil {
		return nil, err
	}
	text, err := c.list(r.Info)
	if err != nil {
		return nil, err
	}
	if err := blob.WriteFile(files, name, text); err != nil {
		c.log.Warn("a listing could not be kept, it will be made again", "file", name, "error", err)
	} else if now, err := c.Uploads.Index.Get(hash); err != nil || now.Info.NarHash != r.Info.NarHash {
		// The path was taken out meanwhile, and may have come back as another.
		if err := errors.Join(err, files.Remove(name)); err != nil {
			return nil, err
		}
	}
	modified := time.Now()
	if st, err := files.Stat(name); err == nil {
		modified = st.ModTime // the ETag is made of it, and later answers have the file's
	}
	return &blob.File{
		Info:    blob.Info{Name: name, Size: int64(len(text)), ModTime: modified},
		Content: inMemory{bytes.NewReader(text)},
	}, nil
}

type inMemory struct{ *bytes.Reader }

func (inMemory) Close() error { return nil }

// list reads the NAR of a path and returns the listing's text.
func (c *Cache) list(info *narinfo.Info) ([]byte, error) {
	plain, err := narfile.Open(c.Uploads.Files, info.URL)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	root, err := nar.List(plain)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", info.URL, damaged(err))
	}
	return listingText(info.Path, root)
}

// listingText is a listing as it is sent. Where a name is none that JSON can hold there
// is no listing; Nix writes none either.
func listingText(p narinfo.Path, root *nar.Node) ([]byte, error) {
	text, err := root.AppendJSON(nil)
	if err != nil {
		return nil, refusal.New(refusal.Missing, "%s has no listing: %v", p, err)
	}
	return text, nil
}

// node finds a name in an uploaded path by its listing.
func (c *Cache) node(ctx context.Context, info *narinfo.Info, name string) (*nar.Node, error) {
	in, _, err := c.Listing(ctx, info.Path.Hash())
	if err != nil {
		return nil, err
	}
	if in == nil { // it was taken out meanwhile
		return nil, fs.ErrNotExist
	}
	defer in.Close()
	if in.Size > MaxListing {
		return nil, fmt.Errorf("listing of %s: too large to be shown", info.Path)
	}
	text := make([]byte, in.Size)
	if _, err := io.ReadFull(in.Content, text); err != nil {
		return nil, fmt.Errorf("listing of %s: %w", info.Path, err)
	}
	root, err := nar.ParsePart(text, name)
	if err != nil {
		return nil, damaged(err)
	}
	n := root.Lookup(name)
	if n == nil {
		return nil, fs.ErrNotExist
	}
	return n, nil
}
