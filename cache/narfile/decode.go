package narfile

import (
	"bufio"
	"io"
	"strings"

	"narwharf/cache/refusal"
)

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
	plain, err := d.codec.open(bufio.NewReader(&d.src))
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
