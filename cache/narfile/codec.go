package narfile

import (
	"bufio"
	"compress/bzip2"
	"io"
	"slices"
	"sync"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/mikelolasagasti/xz"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz/lzma"

	"narwharf/cache/refusal"
)

// A codec is one value of a narinfo's Compression.
type codec struct {
	name   string                       // as in "Compression: "
	suffix string                       // as Nix names such files, "" and ".nar" alone for two of them
	magic  []byte                       // first bytes; brotli has none
	window func(r *bufio.Reader) uint64 // what it needs for this stream; nil: next to nothing
	open   func(r *bufio.Reader, window uint64) (io.ReadCloser, error)
}

// fixed is a window that does not depend on the stream.
func fixed(size uint64) func(*bufio.Reader) uint64 { return func(*bufio.Reader) uint64 { return size } }

// codecs are the compressions of src/libstore/binary-cache-store.cc that we
// can check.
var codecs = []codec{
	{"none", "", []byte("\x0d\x00\x00\x00\x00\x00\x00\x00nix-archive-1"), nil, func(r *bufio.Reader, _ uint64) (io.ReadCloser, error) {
		return io.NopCloser(r), nil
	}},
	{"zstd", ".zst", []byte("\x28\xb5\x2f\xfd"), zstdWindow, openZstd},
	{"xz", ".xz", []byte("\xfd7zXZ\x00"), xzWindow, func(r *bufio.Reader, window uint64) (io.ReadCloser, error) {
		x, err := xz.NewReader(r, uint32(limit(window)))
		return readCloser{x, nil}, err
	}},
	{"lzma", "", []byte("\x5d\x00\x00"), lzmaWindow, func(r *bufio.Reader, window uint64) (io.ReadCloser, error) {
		x, err := lzma.ReaderConfig{DictCap: int(limit(window))}.NewReader(r)
		return readCloser{x, nil}, err
	}},
	{"gzip", "", []byte("\x1f\x8b"), nil, func(r *bufio.Reader, _ uint64) (io.ReadCloser, error) {
		return gzip.NewReader(r)
	}},
	{"bzip2", ".bz2", []byte("BZh"), fixed(smallWindow), func(r *bufio.Reader, _ uint64) (io.ReadCloser, error) {
		return readCloser{bzip2.NewReader(r), nil}, nil
	}},
	{"lz4", ".lz4", []byte("\x04\x22\x4d\x18"), fixed(smallWindow), func(r *bufio.Reader, _ uint64) (io.ReadCloser, error) {
		return readCloser{lz4.NewReader(r), nil}, nil
	}},
	{"br", ".br", nil, brotliWindow, func(r *bufio.Reader, _ uint64) (io.ReadCloser, error) {
		return readCloser{brotli.NewReader(r), nil}, nil
	}},
}

// unchecked are those that Nix can write and nobody here can read: there is no decoder in
// Go that is kept well. The first bytes are those that libarchive writes.
var unchecked = []codec{
	{name: "lzip", suffix: ".lzip", magic: []byte("LZIP")},
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

// zstdReaders are kept because each holds its window. One goroutine each: an upload is
// decoded where it is read. One with a large window is not kept.
var zstdReaders = sync.Pool{New: func() any { return newZstd(smallWindow) }}

func newZstd(window uint64) *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(window), zstd.WithDecoderMaxMemory(1<<62))
	if err != nil {
		panic(err) // the options are constants
	}
	return d
}

func openZstd(r *bufio.Reader, window uint64) (io.ReadCloser, error) {
	if window > smallWindow {
		d := newZstd(limit(window))
		return readCloser{d, d.Close}, d.Reset(r)
	}
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

// Unpack undoes a compression by its name in a narinfo, for the Nix of this machine.
func Unpack(r *bufio.Reader, compression string) (io.ReadCloser, error) {
	return unpackAs(r, compression, &relaying)
}

// UnpackStored is Unpack for those who read what a cache has.
func UnpackStored(r *bufio.Reader, compression string) (io.ReadCloser, error) {
	return unpackAs(r, compression, &reading)
}

func unpackAs(r *bufio.Reader, compression string, among *places) (io.ReadCloser, error) {
	for _, c := range codecs {
		if c.name == compression {
			return c.start(r, among)
		}
	}
	return nil, refusal.New(refusal.Encoding, "the compression %q is not known here", compression)
}

// Suffix is how Nix names a NAR file with a compression behind ".nar", "" where that is
// not known here.
func Suffix(compression string) string {
	for _, c := range append(slices.Clone(codecs), unchecked...) {
		if c.name == compression {
			return c.suffix
		}
	}
	return ""
}

// start opens a stream when there is a place for its decoder.
func (c *codec) start(r *bufio.Reader, among *places) (io.ReadCloser, error) {
	window := uint64(0)
	if c.window != nil {
		window = c.window(r)
	}
	done, err := among.take(window)
	if err != nil {
		return nil, err
	}
	plain, err := c.open(r, window)
	if err != nil {
		done()
		return nil, err
	}
	return &placed{plain, sync.OnceFunc(done)}, nil
}

// placed gives its place back when it is closed.
type placed struct {
	io.ReadCloser
	done func()
}

func (p *placed) Close() error {
	defer p.done()
	return p.ReadCloser.Close()
}
