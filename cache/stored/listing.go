package stored

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"narwharf/cache/blob"
	"narwharf/cache/limits"
	"narwharf/cache/nar"
	"narwharf/cache/narfile"
	"narwharf/cache/refusal"
	"narwharf/narinfo"
)

// The listing of an uploaded path, /<hash>.ls, is made out of its NAR when it is first
// asked for, and stored. The NAR was verified, what a client sends as a listing cannot
// be: see docs/design/006-listings-from-verified-bytes.md.

const (
	// MaxListing bounds a listing's text, maxEntries that of which one is made: both are some
	// hundred MiB in memory.
	MaxListing = 64 << 20
	maxEntries = 500_000

	maxTree = 16 << 20 // text of a listing that is kept ready for File
)

// turn is one of the work of unpacking (limits.Work.Turn).
func (c *Cache) turn(ctx context.Context) (done func(), err error) {
	done, err = c.work.Turn(ctx, limits.Client(ctx))
	if errors.Is(err, limits.ErrBusy) {
		err = busy()
	}
	return done, err
}

// busy is that a client has had as much processor time as he may have for now.
func busy() error {
	return refusal.New(refusal.Busy, "this cache works on as much as it can for your address: try again in a minute")
}

// Spend counts processor time to a client, as turns do, and tells whether he may have more.
func (c *Cache) Spend(who string, took time.Duration) bool { return c.work.Spend(who, took) }

// counted counts the time of do as a turn does, and waits for none.
func (c *Cache) counted(ctx context.Context, do func() error) error {
	who := limits.Client(ctx)
	if !c.work.Spend(who, 0) {
		return busy()
	}
	began := time.Now()
	defer func() { c.Spend(who, time.Since(began)) }()
	return do()
}

// ListingOf makes the listing of what is no upload: it walks a path of the local store, of which it opens no file,
// and pulls the NAR of an upstream's path, whose own listing nobody has signed.
func (c *Cache) ListingOf(ctx context.Context, src *Source) ([]byte, error) {
	if src.Upstream != nil {
		return c.upstreamListing(ctx, src)
	}
	done, err := c.turn(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	tree, err := c.Local.Measure(ctx, src.Info)
	if err != nil {
		return nil, err
	}
	root := tree.Listing()
	if countUpTo(root, maxEntries) > maxEntries {
		return nil, tooMany(src.Path)
	}
	return listingText(src.Path, root)
}

func countUpTo(n *nar.Node, most int) int {
	count := 1
	for i := range n.Entries {
		if count > most {
			break
		}
		count += countUpTo(&n.Entries[i], most-count)
	}
	return count
}

func tooMany(p narinfo.Path) error {
	return refusal.New(refusal.Missing, "%s has no listing: it has more than %d files", p, maxEntries)
}

// Listing opens the listing of a path, and makes it if need be. A path that is not
// uploaded has none, but where it is instead, for ListingOf.
func (c *Cache) Listing(ctx context.Context, hash string) (*blob.File, *Source, error) {
	f, err := c.Uploads.Files.Open(hash + ".ls")
	if !errors.Is(err, fs.ErrNotExist) {
		return f, nil, err
	}
	src, err := c.uploadedOrLocal(ctx, hash)
	if missing(err) && c.Upstreams != nil {
		src, err = c.atUpstream(ctx, hash)
	}
	if err != nil {
		return nil, nil, err
	}
	if src.Local || src.Upstream != nil {
		return nil, src, nil
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
	r, err := c.Uploads.Index.Get(hash)
	if err != nil {
		return nil, err
	}
	if c.trees.Unlisted(hash) == r.Info.NarHash {
		return nil, tooMany(r.Info.Path)
	}
	text, err := c.list(ctx, r.Info)
	if errors.Is(err, nar.ErrTooMany) || len(text) > MaxListing {
		c.trees.NoList(hash, r.Info.NarHash)
		err = tooMany(r.Info.Path)
	}
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
func (c *Cache) list(ctx context.Context, info *narinfo.Info) ([]byte, error) {
	plain, err := c.unpack(info.URL)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	return c.listed(ctx, info, plain)
}

// listed is list of a NAR that is open.
func (c *Cache) listed(ctx context.Context, info *narinfo.Info, plain io.Reader) ([]byte, error) {
	done, err := c.turn(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	root, err := nar.List(narfile.WithContext(ctx, plain), maxEntries)
	if errors.Is(err, nar.ErrTooMany) || ctx.Err() != nil {
		return nil, cmp.Or(ctx.Err(), err)
	}
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

// node finds a name in an uploaded path by its listing, which is read once for many who
// ask.
func (c *Cache) node(ctx context.Context, info *narinfo.Info, name string) (*nar.Node, error) {
	hash := info.Path.Hash()
	root := c.trees.Get(hash, info.NarHash)
	if root == nil {
		in, _, err := c.Listing(ctx, hash)
		if err != nil {
			return nil, err
		}
		if in == nil { // it was taken out meanwhile
			return nil, fs.ErrNotExist
		}
		defer in.Close()
		defer c.locks.Lock("tree " + hash)()
		if root = c.trees.Get(hash, info.NarHash); root == nil {
			if root, err = c.tree(ctx, in, info, name); err != nil {
				return nil, err
			}
		}
	}
	n := root.Lookup(name)
	if n == nil {
		return nil, fs.ErrNotExist
	}
	if n.Type != nar.Directory {
		alone := *n // not the folder around it
		n = &alone
	}
	return n, nil
}

// tree parses a listing, whole if it is not too large to be kept.
func (c *Cache) tree(ctx context.Context, in *blob.File, info *narinfo.Info, name string) (*nar.Node, error) {
	if in.Size > MaxListing {
		return nil, fmt.Errorf("listing of %s: too large to be shown", info.Path)
	}
	done, err := c.turn(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	text := make([]byte, in.Size)
	if _, err := io.ReadFull(in.Content, text); err != nil {
		return nil, fmt.Errorf("listing of %s: %w", info.Path, err)
	}
	if in.Size > maxTree {
		root, err := nar.ParsePart(text, name)
		if err != nil {
			err = damaged(err)
		}
		return root, err
	}
	root, err := nar.ParseListing(text)
	if err != nil {
		return nil, damaged(err)
	}
	c.trees.Put(info.Path.Hash(), info.NarHash, root, in.Size)
	return root, nil
}
