package stored

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"narwharf/cache/index"
	"narwharf/cache/local"
	"narwharf/cache/local/compress"
	"narwharf/cache/nar"
	"narwharf/cache/narfile"
	"narwharf/cache/signed"
	"narwharf/cache/upload"
	"narwharf/cache/upstream"
	"narwharf/narinfo"
)

// What an upstream has and we have not: its narinfo goes out with the URL of a packed copy of
// ours, which is made by pulling its NAR when somebody asks for it.

// Packed keeps the packed copies of what is no upload; nil if there are none.
func (c *Cache) Packed() *compress.Store { return c.behind().packed() }

func (c *Cache) behind() behind { return behind{c.Local, c.Upstreams} }

// missing tells whether a path is neither an upload nor in the local store.
func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, index.ErrNotFound)
}

// served is the narinfo of an upstream's path as it is ours to serve.
func (c *Cache) served(p *upstream.Path) *narinfo.Info {
	info := p.Info.Clone()
	info.URL, info.Compression, info.FileHash, info.FileSize = local.URL(info), "zstd", narinfo.Hash{}, 0
	if packed := c.Packed(); packed != nil {
		if d, known := packed.Digest(info.NarHash); known {
			info.FileHash, info.FileSize = d.Hash, d.Size
		}
	}
	return info
}

// upstreamNarinfo is the narinfo of a path that an upstream has. An uploader remembers it, so that
// we lean on it from then on; where NARs are not pulled through, nobody else is told of it, and
// the URL is the upstream's own.
func (c *Cache) upstreamNarinfo(ctx context.Context, hash string, uploader bool) (*signed.Narinfo, error) {
	find := c.Upstreams.Find
	if uploader {
		find = c.Upstreams.Lean
	}
	p, err := find(ctx, hash)
	if err != nil {
		return nil, err
	}
	if !p.From.PullThrough && !uploader {
		return nil, fs.ErrNotExist
	}
	info := c.served(p)
	switch {
	case !p.From.PullThrough:
		info = p.Info.Clone()
		info.URL = p.FileURL()
	case uploader && info.FileHash.IsZero(): // as signed.Narinfo.Whole has it
		info.URL, info.Compression = plainURL(info), "none"
		info.FileHash, info.FileSize = info.NarHash, info.NarSize
	}
	t, err := c.Signer.Sign(info, p.From.Sign)
	if err != nil {
		return nil, err
	}
	t.Upstream = true
	return t, nil
}

func plainURL(i *narinfo.Info) string {
	return "nar/" + i.Path.Hash() + "-" + i.NarHash.Base32() + local.PlainSuffix
}

// upstreamNAR is where the NAR of a path that an upstream has is read. If it cannot be asked, and a packed
// copy is here, that is it: clients remember URLs for 30 days.
func (c *Cache) upstreamNAR(ctx context.Context, hash string, narHash narinfo.Hash) (*Source, error) {
	src, err := c.atUpstream(ctx, hash)
	switch {
	case errors.Is(err, upstream.ErrUnavailable) && c.Packed() != nil && c.Packed().Has(narHash):
		return &Source{Info: &narinfo.Info{NarHash: narHash}, Upstream: new(upstream.Path)}, nil
	case err == nil && src.NarHash != narHash:
		return nil, fs.ErrNotExist
	}
	return src, err
}

// atUpstream is a path that an upstream has, and whose NAR is pulled through.
func (c *Cache) atUpstream(ctx context.Context, hash string) (*Source, error) {
	p, err := c.Upstreams.Find(ctx, hash)
	if err != nil {
		return nil, err
	}
	if !p.From.PullThrough || c.Packed() == nil {
		return nil, fs.ErrNotExist
	}
	return &Source{Info: c.served(p), Upstream: p}, nil
}

// upstreamListing makes the listing of an upstream's path out of its packed copy, which is pulled first.
func (c *Cache) upstreamListing(ctx context.Context, src *Source) ([]byte, error) {
	st, err := c.Stream(ctx, src)
	if err != nil {
		return nil, err
	}
	defer st.Close() //nolint:errcheck // never fails
	f, _, err := st.File(ctx)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	plain, err := narfile.Unpack(bufio.NewReader(f), "zstd")
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	text, err := c.listed(ctx, src.Info, plain)
	if errors.Is(err, nar.ErrTooMany) || len(text) > MaxListing {
		err = tooMany(src.Path)
	}
	return text, err
}

// Stream is the packed NAR of a source while it is made.
func (c *Cache) Stream(ctx context.Context, src *Source) (*compress.Stream, error) {
	if src.Upstream == nil {
		return c.Packed().Join(ctx, src.NarHash, c.Dump(src))
	}
	if src.Upstream.From == nil { // the copy has just gone
		return nil, fs.ErrNotExist
	}
	return c.Upstreams.Stream(ctx, src.Upstream)
}

// openUpstream is the NAR of an upstream's path. It does not come to its end unless it is what was signed.
func (c *Cache) openUpstream(ctx context.Context, src *Source) (io.ReadCloser, error) {
	st, err := c.Stream(ctx, src)
	if err != nil {
		return nil, err
	}
	plain, err := narfile.Unpack(bufio.NewReaderSize(st, 128<<10), "zstd")
	if err != nil {
		_ = st.Close() // never fails
		return nil, err
	}
	return closers{plain, plain, st}, nil
}

type closers struct {
	io.Reader
	a, b io.Closer
}

func (c closers) Close() error { return errors.Join(c.a.Close(), c.b.Close()) }

// ofUpstreams is the uploader of a path that was fetched from one.
func ofUpstreams(p *upstream.Path) string { return "kept from " + p.From.String() }

// Keep makes an upload of what an upstream has. A copy that was damaged on the disk is pulled anew, once.
func (c *Cache) Keep(ctx context.Context, p *upstream.Path) error {
	err := c.keepOnce(ctx, p)
	if errors.Is(err, upload.ErrDamagedCopy) {
		c.Packed().Drop(p.Info.NarHash, err)
		err = c.keepOnce(ctx, p)
	}
	if err == nil {
		c.log.Info("kept what a release needs of an upstream", "path", p.Info.Path, "upstream", p.From, "nar_size", p.Info.NarSize)
	}
	return err
}

func (c *Cache) keepOnce(ctx context.Context, p *upstream.Path) error {
	st, err := c.Upstreams.Stream(ctx, p)
	if err != nil {
		return err
	}
	defer func() { _ = st.Close() }() // never fails
	in, digest, err := st.File(ctx)
	if err != nil {
		return err
	}
	defer in.Close()
	f := narfile.Facts{Compression: "zstd", FileHash: digest.Hash, NarHash: p.Info.NarHash, FileSize: digest.Size, NarSize: p.Info.NarSize}
	file := f.FileHash.Base32() + ".nar.zst"
	if err := c.Uploads.PutCopy(file, narfile.WithContext(ctx, in), f); err != nil {
		return fmt.Errorf("keep %s: %w", p.Info.Path, err)
	}
	info := p.Info.Clone()
	info.URL, info.Compression, info.FileHash, info.FileSize = "nar/"+file, f.Compression, f.FileHash, f.FileSize
	return c.Uploads.PutInfo(info.Path.Hash(), info, ofUpstreams(p))
}

// TendUpstreams looks after what leans on upstreams until ctx ends. needs are the paths that channels need; lost is
// told which of them no upstream has any more.
func (c *Cache) TendUpstreams(ctx context.Context, needs func() (map[narinfo.Path][]string, error), lost func(ctx context.Context, channel string, paths []narinfo.Path) error) {
	c.Upstreams.Run(ctx, upstream.Tending{
		Held: func(hash string) (bool, error) {
			_, err := c.Uploads.Index.Get(hash)
			if errors.Is(err, index.ErrNotFound) {
				return false, nil
			}
			return err == nil, err
		},
		Referred: func(hash string) (bool, error) {
			by, err := c.Uploads.Index.Referrers(hash)
			return len(by) > 0, err
		},
		Keep: c.Keep, Needs: needs, Lost: lost,
		Grace: c.Uploads.Grace, // for so long Nix may remember what it saw here
	})
}

// Adopt makes uploads of what is in the local store alone (adopt.Adopter), and notes of what an upstream
// has that a release needs it.
func (c *Cache) Adopt(ctx context.Context, paths []narinfo.Path, by string) (int, error) {
	if c.Upstreams != nil {
		var behind []narinfo.Path
		for _, p := range paths {
			if _, err := c.uploadedOrLocal(ctx, p.Hash()); errors.Is(err, fs.ErrNotExist) {
				behind = append(behind, p)
			} else if err != nil {
				return 0, err
			}
		}
		leaning := make(map[narinfo.Path]bool)
		for _, p := range behind {
			leaning[p] = true
		}
		others, err := c.Upstreams.Promote(ctx, behind)
		if err != nil {
			return 0, err
		}
		for _, p := range others { // for the adopter to refuse
			delete(leaning, p)
		}
		var rest []narinfo.Path
		for _, p := range paths {
			if !leaning[p] {
				rest = append(rest, p)
			}
		}
		paths = rest
	}
	return c.Adopter.Adopt(ctx, paths, by)
}

// Fetch gets the NAR of an uploaded path anew, from the local store or an upstream.
func (c *Cache) Fetch(ctx context.Context, p narinfo.Path) error {
	err := c.Adopter.Fetch(ctx, p)
	if !errors.Is(err, fs.ErrNotExist) || c.Upstreams == nil {
		return err
	}
	has, err := c.Upstreams.Find(ctx, p.Hash())
	if err == nil && has.Info.Path != p {
		err = fs.ErrNotExist
	}
	if err != nil {
		return err
	}
	return c.Keep(ctx, has)
}
