// Package narfile reads NAR files: a NAR as it lies in a cache, with one of the
// compressions that Nix knows. Read verifies one, Open opens a stored one, and
// Decode undoes the same compressions as a Content-Encoding.
//
// The bytes tell how a file is compressed. Its name does not, since gzip has no
// suffix; only brotli, which has no magic bytes, is known by it.
//
// What is wrong with a file is a refusal. An error of whatever it is read from
// stays what it is: "the connection broke" never becomes "the stream is damaged".
package narfile

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"regexp"
	"strings"
	"sync"

	"narwharf/cache/blob"
	"narwharf/cache/nar"
	"narwharf/cache/refusal"
	"narwharf/narinfo"
)

// Grammar is how a NAR file is named in the folder nar: by its SHA-256.
var Grammar = regexp.MustCompile(`^[0-9abcdfghijklmnpqrsvwxyz]{52}\.nar(\.[a-z0-9]{1,8})?$`)

// Facts are what a NAR file turned out to be when it was read whole.
type Facts struct {
	Compression       string // as in a narinfo
	FileHash, NarHash narinfo.Hash
	FileSize, NarSize int64 // bytes
}

// NoLimit is for reading what is stored: max_nar_size may have been larger when
// it came.
const NoLimit = math.MaxInt64

// Read reads a NAR file to its end and tells what it is. Whatever is not exactly
// one well-formed NAR, compressed or not, is refused, and so is what is larger
// than limit bytes, as it is or unpacked.
func Read(file string, r io.Reader, limit int64) (f Facts, err error) {
	whole := newTapped(Limit(r, limit, "the NAR file"))
	defer whole.close()
	src := &source{r: whole}
	buf := bufio.NewReader(src) // what decoders ask for at once goes past it
	narHash := newTap()
	defer narHash.close()

	compression, plain, err := unpack(buf, file, &receiving)
	if src.err != nil {
		return f, src.err
	}
	if err != nil {
		return f, err
	}
	defer plain.Close()
	narSize, err := nar.CheckTapped(Limit(plain, limit, "the unpacked NAR"), narHash)
	if src.err != nil {
		return f, src.err
	}
	if refusal.In(err) != nil {
		return f, err
	}
	if err != nil {
		return f, refusal.New(refusal.Nar, "not a well-formed NAR (compression %s): %v", compression, err)
	}
	// Some decoders stop at the end of their stream and do not look beyond.
	junk, err := io.Copy(io.Discard, buf)
	if src.err != nil {
		return f, src.err
	}
	if err != nil {
		return f, err
	}
	if junk > 0 {
		return f, refusal.New(refusal.Nar, "%d bytes follow the end of the %s stream", junk, compression)
	}
	return Facts{Compression: compression, FileSize: whole.tap.size, FileHash: whole.hash(), NarSize: narSize, NarHash: narHash.hash()}, nil
}

// unpack recognises the compression of a NAR file by its first bytes and returns
// the unpacked stream.
func unpack(r *bufio.Reader, file string, among *places) (compression string, plain io.ReadCloser, err error) {
	head, err := r.Peek(21) // the longest magic
	if err != nil && len(head) == 0 {
		if err == io.EOF {
			return "", nil, refusal.New(refusal.Nar, "the body is empty, it should be a NAR")
		}
		return "", nil, err
	}
	for _, c := range codecs {
		if c.magic != nil && bytes.HasPrefix(head, c.magic) || c.magic == nil && strings.HasSuffix(file, c.suffix) {
			plain, err := c.start(r, among)
			if refusal.In(err) != nil {
				return "", nil, err
			}
			if err != nil {
				return "", nil, notDecodable(c.name, err)
			}
			return c.name, plain, nil
		}
	}
	for _, c := range unchecked {
		if bytes.HasPrefix(head, c.magic) || strings.HasSuffix(file, c.suffix) {
			return "", nil, refusal.New(refusal.Encoding, "this cache cannot check %s: copy with ?compression=zstd", c.name)
		}
	}
	return "", nil, refusal.New(refusal.Nar, "the body is neither a NAR nor one packed with zstd, xz, gzip, bzip2, lz4, brotli or lzma (it starts with %q)", head[:min(8, len(head))])
}

func notDecodable(compression string, err error) error {
	return refusal.New(refusal.Nar, "the body is not a whole %s stream: %v", compression, err)
}

// buffers stand between a file and its decoder: large, so that hashes and the
// disk get large pieces.
var buffers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 256<<10) }}

func getBuffer(r io.Reader) *bufio.Reader {
	br, ok := buffers.Get().(*bufio.Reader)
	if !ok {
		panic("the pool holds readers only")
	}
	br.Reset(r)
	return br
}

func putBuffer(br *bufio.Reader) {
	br.Reset(nil)
	buffers.Put(br)
}

// Open opens a stored NAR file by its name "nar/…" and returns the NAR in it. It
// was verified when it came, so what is wrong with it now is our fault and no
// refusal.
func Open(blobs blob.Store, name string) (io.ReadCloser, error) {
	f, err := blobs.Open(name)
	if err != nil {
		return nil, err
	}
	buf := getBuffer(f.Content)
	_, plain, err := unpack(buf, strings.TrimPrefix(name, "nar/"), &reading)
	if err != nil {
		putBuffer(buf)
		f.Close()
		if r := refusal.In(err); r != nil && r.Kind == refusal.Busy {
			return nil, err
		}
		return nil, errors.New("read " + name + ": " + err.Error())
	}
	return &opened{plain, buf, f}, nil
}

type opened struct {
	io.ReadCloser
	buf  *bufio.Reader
	file io.Closer
}

func (o *opened) Close() error {
	o.ReadCloser.Close()
	putBuffer(o.buf)
	return o.file.Close()
}

// WithContext returns a reader of r that ends with its context.
func WithContext(ctx context.Context, r io.Reader) io.Reader { return contextReader{ctx, r} }

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// Decode undoes the Content-Encoding of a PUT. Nix 2.32 and later send one on
// narinfos, listings and logs if asked to by the store's URL, and the word "none"
// literally. NARs never have one. What is larger than limit bytes, as it is or
// decoded, is refused by the name of what; other faults of content are refused as
// kind.
//
// It reads nothing of r before it is read itself: a PUT may still be refused by its
// headers then.
func Decode(r io.Reader, encoding string, limit int64, what string, kind refusal.Kind) (io.ReadCloser, error) {
	d := &decoded{src: source{r: Limit(r, limit, what)}, limit: limit, what: what, kind: kind}
	name := strings.ToLower(strings.TrimSpace(encoding))
	switch name {
	case "", "none", "identity":
		name = "none"
	case "x-gzip":
		name = "gzip"
	}
	for i, c := range codecs {
		if c.name == name {
			d.codec = &codecs[i]
			return d, nil
		}
	}
	return nil, refusal.New(refusal.Encoding, "this cache does not know the Content-Encoding %q; it takes zstd, br, gzip, xz and none", name)
}

// decoded is a body that is decoded while it is read.
type decoded struct {
	src   source
	codec *codec
	limit int64
	what  string
	kind  refusal.Kind

	plain   io.Closer // nil before the first Read
	limited io.Reader
	err     error
}

func (d *decoded) open() error {
	plain, err := d.codec.start(bufio.NewReader(&d.src), &receiving)
	if refusal.In(err) != nil {
		return err
	}
	if err != nil {
		return notDecodable(d.codec.name, err)
	}
	d.plain, d.limited = plain, Limit(plain, d.limit, d.what)
	return nil
}

func (d *decoded) explain(err error) error {
	if d.src.err != nil {
		return d.src.err
	}
	return refusal.Of(err, d.kind)
}

func (d *decoded) Read(p []byte) (n int, err error) {
	if d.plain == nil && d.err == nil {
		d.err = d.open()
	}
	if err = d.err; err == nil {
		n, err = d.limited.Read(p)
	}
	if err != nil && err != io.EOF {
		err = d.explain(err)
	}
	return n, err
}

func (d *decoded) Close() error {
	if d.plain == nil {
		return nil
	}
	return d.plain.Close()
}

// source keeps the error of what is read apart: a decoder above it may turn it
// into another.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// Limit reads at most limit bytes and refuses more, by the name of what.
func Limit(r io.Reader, limit int64, what string) io.Reader {
	return &limited{r, limit, limit, what}
}

type limited struct {
	r     io.Reader
	left  int64
	limit int64
	what  string
}

func (l *limited) Read(p []byte) (int, error) {
	if l.left <= 0 {
		var one [1]byte
		if n, err := l.r.Read(one[:]); n == 0 {
			return 0, err
		}
		return 0, refusal.New(refusal.TooLarge, "%s is larger than the %s that this cache takes", l.what, refusal.Size(l.limit))
	}
	n, err := l.r.Read(p[:min(int64(len(p)), l.left)])
	l.left -= int64(n)
	return n, err
}
