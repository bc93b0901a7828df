package narfile

import (
	"bufio"
	"compress/bzip2"
	"io"
	"sync"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/mikelolasagasti/xz"
	"github.com/pierrec/lz4/v4"

	"narwharf/cache/refusal"
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
// can check.
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

// unchecked are those that Nix can write and nobody here can read: there is no decoder in
// Go that is kept well. The first bytes are those that libarchive writes.
var unchecked = []codec{
	{name: "lzip", suffix: ".lzip", magic: []byte("LZIP")},
	{name: "lzma", suffix: ".lzma", magic: []byte("\x5d\x00\x00")},
	{name: "compress", suffix: ".Z", magic: []byte("\x1f\x9d")},
	{name: "lzop", suffix: ".lzo", magic: []byte("\x89LZO\x00")},
	{name: "lrzip", suffix: ".lrz", magic: []byte("LRZI")},
	{name: "grzip", suffix: ".grz", magic: []byte("GRZipII\x00")},
}

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

// Unpack undoes a compression by its name in a narinfo.
func Unpack(r *bufio.Reader, compression string) (io.ReadCloser, error) {
	for _, c := range codecs {
		if c.name == compression {
			return c.open(r)
		}
	}
	return nil, refusal.New(refusal.Encoding, "the compression %q is not known here", compression)
}
