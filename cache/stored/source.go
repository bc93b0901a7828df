package stored

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"narwharf/cache/blob"
	"narwharf/cache/local/encoder"
	"narwharf/cache/nar"
	"narwharf/cache/narfile"
	"narwharf/cache/refusal"
	"narwharf/cache/upstream"
	"narwharf/narinfo"
)

// A Source is where a path can be read.
type Source struct {
	*narinfo.Info
	Local    bool           // the path's own files; else an upload
	Upstream *upstream.Path // or what an upstream has
}

// find looks a path up, at upstreams last.
func (c *Cache) find(ctx context.Context, hash string) (*Source, error) {
	src, err := c.uploadedOrLocal(ctx, hash)
	if missing(err) && c.Upstreams != nil {
		p, err := c.Upstreams.Find(ctx, hash)
		if err != nil {
			return nil, err
		}
		return &Source{Info: c.served(p), Upstream: p}, nil
	}
	return src, err
}

func (c *Cache) uploadedOrLocal(ctx context.Context, hash string) (*Source, error) {
	r, err := c.uploaded(hash)
	if err != nil {
		return nil, err
	}
	if r != nil {
		return &Source{Info: r.Info}, nil
	}
	i, err := c.Local.Info(ctx, hash)
	if err != nil {
		return nil, err
	}
	return &Source{Info: i, Local: true}, nil
}

// NAR looks up a path that has this NAR, in either source: clients remember a narinfo
// for 30 days, and meanwhile the path may have been adopted, or uploaded and deleted
// here. What the signer has in memory saves the look. For one who may upload, an upload
// is kept for a lease.
func (c *Cache) NAR(ctx context.Context, hash string, narHash narinfo.Hash, uploader bool) (*Source, error) {
	t, err := c.Signer.Get(ctx, hash, c.Uploads.Index)
	if missing(err) && c.Upstreams != nil {
		return c.upstreamNAR(ctx, hash, narHash)
	}
	if err != nil {
		return nil, err
	}
	var src *Source
	if t.Local != nil {
		src = &Source{Info: t.Local.Info, Local: true}
	} else if src, err = c.uploadedOrLocal(ctx, hash); err == nil && src.NarHash != narHash && c.Local != nil { // uploaded with another content
		src.Local = true
		src.Info, err = c.Local.Info(ctx, hash)
	}
	if err == nil && src.NarHash != narHash {
		err = fs.ErrNotExist
	}
	if err == nil && !src.Local && uploader {
		if there, err := c.use(ctx, hash); err != nil {
			return nil, err
		} else if !there {
			return c.NAR(ctx, hash, narHash, uploader)
		}
	}
	return src, err
}

// Dump returns a source of a NAR for an encoder.
func (c *Cache) Dump(src *Source) encoder.Source {
	if src.Local {
		return c.Local.Dump(src.Info)
	}
	return func(ctx context.Context, w io.Writer) error {
		in, err := c.unpack(src.URL)
		if err != nil {
			return err
		}
		defer in.Close()
		_, err = io.Copy(struct{ io.Writer }{w}, narfile.WithContext(ctx, in))
		return err
	}
}

// WriteNAR writes the bytes [from, to) of a NAR to w. Unless it returns nil, w has
// not got all of them.
func (c *Cache) WriteNAR(ctx context.Context, w io.Writer, src *Source, from, to int64) error {
	if src.Local && from == 0 && to == src.NarSize {
		return c.Local.WriteNAR(ctx, w, src.Info)
	}
	if src.Local {
		var write func() error
		err := c.counted(ctx, func() error { // a walk over all files, for some bytes perhaps
			tree, err := c.Local.Measure(ctx, src.Info)
			write = func() error { return c.Local.WriteRange(ctx, w, tree, from, to) }
			return err
		})
		if err != nil {
			return err
		}
		return write()
	}
	in, err := c.openAt(ctx, src, from)
	if err == nil {
		defer in.Close()
		_, err = io.CopyN(struct{ io.Writer }{w}, in, to-from)
	}
	if refusal.In(err) != nil {
		return err
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", src.URL, err)
	}
	return nil
}

// A File is what a name in a path leads to.
type File struct {
	*nar.Node
	Open func(context.Context) (io.ReadCloser, error) // of a regular file
}

// Page is at most so many entries of a folder, behind a name. more is the name behind which
// the next are, "" at the end.
func (f *File) Page(after string, most int) (part []nar.Node, more string) {
	part = f.Entries
	if after != "" {
		at, _ := slices.BinarySearchFunc(part, after+"\x00", func(n nar.Node, name string) int { return strings.Compare(n.Name, name) })
		part = part[at:]
	}
	if len(part) > most {
		part = part[:most]
		more = part[most-1].Name
	}
	return part, more
}

// File finds a name in a path, "" being the path itself. It follows no link.
func (c *Cache) File(ctx context.Context, hash, name string) (*Source, *File, error) {
	src, err := c.uploadedOrLocal(ctx, hash)
	if err != nil {
		return nil, nil, err
	}
	if src.Local {
		var n *nar.Node
		var file string
		err := c.counted(ctx, func() (err error) { // a folder may have any number of files
			n, file, err = c.Local.File(src.Path, name)
			return err
		})
		return src, &File{n, func(context.Context) (io.ReadCloser, error) { return os.Open(file) }}, err
	}
	n, err := c.node(ctx, src.Info, name)
	return src, &File{n, func(ctx context.Context) (io.ReadCloser, error) { return c.openFile(ctx, src, n) }}, err
}

// openFile reads a file out of an uploaded NAR: only what lies before it has to be
// unpacked.
func (c *Cache) openFile(ctx context.Context, src *Source, n *nar.Node) (io.ReadCloser, error) {
	all, err := c.openAt(ctx, src, n.Offset)
	if err != nil && (refusal.In(err) != nil || ctx.Err() != nil) {
		return nil, err
	}
	if err != nil {
		return nil, damaged(err)
	}
	in := io.LimitReader(all, n.Size)
	if n.Size <= maxHeld { // a client that is slow keeps no decoder
		defer all.Close()
		text, err := io.ReadAll(in)
		if err != nil {
			return nil, damaged(err)
		}
		return io.NopCloser(bytes.NewReader(text)), nil
	}
	return struct {
		io.Reader
		io.Closer
	}{in, all}, nil
}

// maxHeld is the size of files that are unpacked before they are sent.
const maxHeld = 256 << 10

// openAt opens a NAR at a position, one that is not in the local store. All before it is unpacked, which may cost
// much more than to ask for it: that takes a turn.
func (c *Cache) openAt(ctx context.Context, src *Source, at int64) (io.ReadCloser, error) {
	all, err := c.open(ctx, src)
	if err != nil {
		return nil, err
	}
	in := narfile.WithContext(ctx, all)
	if at > 0 {
		var done func()
		if done, err = c.turn(ctx); err == nil {
			_, err = io.CopyN(io.Discard, in, at)
			done()
		}
	}
	if err != nil {
		all.Close()
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{in, all}, nil
}

// damaged makes no refusal of an error about content: it is our own stored file, not
// something that the caller sent.
func damaged(err error) error { return errors.New(err.Error()) }

// OpenNar opens the NAR file "nar/<file>" to be read, or to be told of. One that shall be
// read elsewhere has a URL instead. It waits for a bucket that is away. One that should be there and is not is noted.
// Whoever can upload asks in order to know whether he must, or has it then.
func (c *Cache) OpenNar(ctx context.Context, file string, uploader, read bool) (f *blob.File, url string, err error) {
	f, url, err = c.openNar(file, uploader, read)
	if errors.Is(err, blob.ErrAway) && blob.Wait(ctx, c.Uploads.Files) == nil {
		return c.openNar(file, uploader, read)
	}
	return f, url, err
}

func (c *Cache) openNar(file string, uploader, read bool) (f *blob.File, url string, err error) {
	name := "nar/" + file
	_ = c.Uploads.Settled(name) // where that failed there is no file
	if uploader {
		_, err = c.Uploads.Claim(file)
	}
	if err == nil && read {
		url, err = blob.Link(c.Uploads.Files, name)
	}
	switch {
	case err == nil && !read:
		f, err = blob.Head(c.Uploads.Files, name)
	case err == nil && url == "":
		f, err = c.Uploads.Files.Open(name)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.Uploads.NoteLost(name)
	case err == nil && !uploader:
		c.Uploads.Asked(name)
	}
	return f, url, err
}

// open opens the NAR of an upload or of an upstream's path.
func (c *Cache) open(ctx context.Context, src *Source) (io.ReadCloser, error) {
	if src.Upstream != nil {
		return c.openUpstream(ctx, src)
	}
	return c.unpack(src.URL)
}

// unpack opens a NAR file "nar/…" and returns the NAR in it, as narfile.Open does.
func (c *Cache) unpack(name string) (io.ReadCloser, error) {
	plain, err := narfile.Open(c.Uploads.Files, name)
	if errors.Is(err, fs.ErrNotExist) {
		c.Uploads.NoteLost(name)
	}
	return plain, err
}
