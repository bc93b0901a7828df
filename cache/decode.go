package cache

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/mikelolasagasti/xz"
	"github.com/pierrec/lz4/v4"
)

// maxWindow is the largest zstd window that a decoder allocates: what
// `zstd --ultra -22` makes, the most a Nix can be told to use.
const maxWindow = 128 << 20

// A codec is one value of a narinfo's Compression.
type codec struct {
	name   string // as in "Compression: "
	suffix string // as Nix names such files, "" and ".nar" alone for two of them
	magic  []byte // first bytes; brotli has none
	open   func(r *bufio.Reader) (io.ReadCloser, error)
}

// codecs are the compressions of src/libstore/binary-cache-store.cc that we
// can check. lzip is known by its magic and refused in words.
var codecs = []codec{
	{"none", "", []byte("\x0d\x00\x00\x00\x00\x00\x00\x00nix-archive-1"), func(r *bufio.Reader) (io.ReadCloser, error) {
		return io.NopCloser(r), nil
	}},
	{"zstd", ".zst", []byte("\x28\xb5\x2f\xfd"), openZstd},
	{"xz", ".xz", []byte("\xfd7zXZ\x00"), func(r *bufio.Reader) (io.ReadCloser, error) {
		x, err := xz.NewReader(r, maxWindow)
		return readCloser{x, nil}, err
	}},
	{"gzip", "", []byte("\x1f\x8b"), func(r *bufio.Reader) (io.ReadCloser, error) {
		return gzip.NewReader(r)
	}},
	{"bzip2", ".bz2", []byte("BZh"), func(r *bufio.Reader) (io.ReadCloser, error) {
		return readCloser{bzip2.NewReader(r), nil}, nil
	}},
	{"lz4", ".lz4", []byte("\x04\x22\x4d\x18"), func(r *bufio.Reader) (io.ReadCloser, error) {
		return readCloser{lz4.NewReader(r), nil}, nil
	}},
	{"br", ".br", nil, func(r *bufio.Reader) (io.ReadCloser, error) {
		return readCloser{brotli.NewReader(r), nil}, nil
	}},
}

var lzipMagic = []byte("LZIP")

type readCloser struct {
	io.Reader
	close func()
}

func (r readCloser) Close() error {
	if r.close != nil {
		r.close()
	}
	return nil
}

// zstdReaders are kept because each holds its window (8 MiB at Nix's default
// level). One goroutine each: an upload is decoded where it is read.
var zstdReaders = sync.Pool{New: func() any {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(1<<62))
	if err != nil {
		panic(err) // the options are constants
	}
	return d
}}

func openZstd(r *bufio.Reader) (io.ReadCloser, error) {
	d, ok := zstdReaders.Get().(*zstd.Decoder)
	if !ok {
		panic("zstdReaders holds decoders only")
	}
	if err := d.Reset(r); err != nil {
		return nil, err
	}
	return readCloser{d, func() {
		_ = d.Reset(nil)
		zstdReaders.Put(d)
	}}, nil
}

// decodeNar recognises the compression of a NAR file by its first bytes (gzip
// has no suffix, so names tell nothing; brotli has no magic, so there the
// suffix must do) and returns the unpacked stream.
func decodeNar(r *bufio.Reader, file string) (compression string, plain io.ReadCloser, err error) {
	head, err := r.Peek(21) // the longest magic
	if err != nil && len(head) == 0 {
		if err == io.EOF {
			return "", nil, refuse(http.StatusUnprocessableEntity, "nar", "the body is empty, it should be a NAR")
		}
		return "", nil, err
	}
	for _, c := range codecs {
		if c.magic != nil && bytes.HasPrefix(head, c.magic) || c.magic == nil && strings.HasSuffix(file, c.suffix) {
			plain, err := c.open(r)
			if err != nil {
				return "", nil, notDecodable(c.name, err)
			}
			return c.name, plain, nil
		}
	}
	if bytes.HasPrefix(head, lzipMagic) || strings.HasSuffix(file, ".lzip") {
		return "", nil, refuse(http.StatusUnsupportedMediaType, "compression", "this cache cannot check lzip: copy with ?compression=zstd")
	}
	return "", nil, refuse(http.StatusUnprocessableEntity, "nar", "the body is neither a NAR nor one packed with zstd, xz, gzip, bzip2, lz4 or brotli (it starts with %q)", head[:min(8, len(head))])
}

func notDecodable(compression string, err error) error {
	return refuse(http.StatusUnprocessableEntity, "nar", "the body is not a whole %s stream: %v", compression, err)
}

// decodeBody undoes the Content-Encoding of a PUT. Nix 2.32 and later send one
// on narinfos, listings and logs if asked to by the store's URL, and the word
// "none" literally. NARs never have one.
func decodeBody(r io.Reader, encoding string) (io.ReadCloser, error) {
	encoding = strings.ToLower(strings.TrimSpace(encoding))
	switch encoding {
	case "", "none", "identity":
		return io.NopCloser(r), nil
	case "x-gzip":
		encoding = "gzip"
	}
	for _, c := range codecs {
		if c.name == encoding {
			plain, err := c.open(bufio.NewReader(r))
			if err != nil {
				return nil, notDecodable(encoding, err)
			}
			return plain, nil
		}
	}
	return nil, refuse(http.StatusUnsupportedMediaType, "compression", "this cache does not know the Content-Encoding %q; it takes zstd, br, gzip, xz and none", encoding)
}

// capped reads at most limit bytes and then fails with a 413 that names what.
type capped struct {
	r     io.Reader
	left  int64
	limit int64
	what  string
}

func newCapped(r io.Reader, limit int64, what string) *capped {
	return &capped{r, limit, limit, what}
}

func (c *capped) Read(p []byte) (int, error) {
	if c.left <= 0 {
		var one [1]byte
		if n, err := c.r.Read(one[:]); n == 0 {
			return 0, err
		}
		return 0, refuse(http.StatusRequestEntityTooLarge, "too-large", "%s is larger than the %s that this cache takes", c.what, sizeText(c.limit))
	}
	n, err := c.r.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}

// sizeText prints a number of bytes for people.
func sizeText(n int64) string {
	for _, u := range []string{"bytes", "KiB", "MiB", "GiB"} {
		if n < 10<<10 {
			return fmt.Sprintf("%d %s", n, u)
		}
		n >>= 10
	}
	return fmt.Sprintf("%d TiB", n)
}
