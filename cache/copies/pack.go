package copies

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"strings"

	"narwharf/cache/local/encoder"
	"narwharf/cache/narfile"
	"narwharf/narinfo"
)

// nameOf is the name of a NAR file by its hash, as caches have it that take uploads.
func nameOf(info *narinfo.Info) string {
	digits := info.FileHash.Base32()
	if file, ok := strings.CutPrefix(info.URL, "nar/"); ok && narfile.Grammar.MatchString(file) && strings.HasPrefix(file, digits) {
		return info.URL
	}
	return "nar/" + digits + ".nar" + narfile.Suffix(info.Compression)
}

// packed is a NAR file in the folder for temporary ones.
type packed struct{ name string }

func (p packed) open() (io.ReadCloser, error) { return os.Open(p.name) }
func (p packed) remove()                      { _ = os.Remove(p.name) } // of no use to anybody

// pack copies a NAR file whose hash is not known to a temporary one, and tells what it is.
// A plain NAR, as Harmonia and nix-serve have it, is packed with zstd on the way.
func (c *Copy) pack(ctx context.Context, info *narinfo.Info) (p packed, next *narinfo.Info, err error) {
	out, err := os.CreateTemp(c.Temp, "narwharf-*.nar")
	if err != nil {
		return p, nil, err
	}
	p = packed{out.Name()}
	defer func() {
		if cerr := out.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			p.remove()
		}
	}()
	next = info.Clone()
	if info.Compression == "none" {
		d, err := encoder.Encode(ctx, info.NarHash, func(ctx context.Context, w io.Writer) error {
			in, err := c.From.NAR(ctx, info)
			if err != nil {
				return err
			}
			defer in.Close()
			_, err = io.Copy(w, in)
			return err
		}, out)
		if err != nil {
			return p, nil, fmt.Errorf("read %s: %w", info.URL, err)
		}
		next.Compression, next.FileHash, next.FileSize = "zstd", d.Hash, d.Size
	} else {
		in, err := c.From.NAR(ctx, info)
		if err != nil {
			return p, nil, err
		}
		defer in.Close()
		sum := sha256.New()
		n, err := io.Copy(io.MultiWriter(out, sum), in)
		if err != nil {
			return p, nil, fmt.Errorf("read %s: %w", info.URL, err)
		}
		next.FileHash, next.FileSize = narinfo.Hash(sum.Sum(nil)), n
	}
	next.URL = nameOf(next)
	return p, next, nil
}
