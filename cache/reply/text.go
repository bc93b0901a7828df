package reply

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"narwharf/cache/blob"
)

// Blob sends a text file, compressed if the client likes that.
func Blob(w *Writer, req *http.Request, f *blob.File, contentType string) error {
	etag := strconv.FormatInt(f.ModTime.UnixNano(), 36) + "-" + strconv.FormatInt(f.Size, 36)
	return Text(w, req, f.Content, f.Size, contentType, etag)
}

// An encoder holds memory for as long as its client takes, and costs processor time: so many
// work at once, on texts that are not longer. Other texts, and those of a client who has had his share
// of the time, go as they are.
const (
	packers = 32
	maxPack = 8 << 20
)

var packing = make(chan struct{}, packers)

// Packed is the encoding in which a text of size bytes, -1 if that is not known, goes out now, ""
// if it goes as it is. done ends that.
func Packed(w *Writer, req *http.Request, size int64) (encoding string, done func()) {
	if encoding = EncodingFor(req); encoding != "" && size <= maxPack && w.MayWork() {
		select {
		case packing <- struct{}{}:
			return encoding, func() { <-packing }
		default:
		}
	}
	return "", func() {}
}

// Text sends size bytes of text. etag is without quotes; what is compressed has
// it as a weak one.
func Text(w *Writer, req *http.Request, content io.ReadSeeker, size int64, contentType, etag string) error {
	h := w.Header()
	TextHeader(h, contentType)
	// HTTP/1.0 has no chunks: a compressed text that broke off would look whole.
	if size >= 1024 && req.Header.Get("Range") == "" && req.ProtoAtLeast(1, 1) {
		enc, done := Packed(w, req, size)
		defer done()
		if enc != "" {
			return Stream(w, req, content, size, enc, `W/"`+etag+`"`)
		}
	}
	h.Set("Etag", `"`+etag+`"`)
	return Content(w, req, content, size)
}

// Bytes sends a text that is in memory, with a hash of it as its ETag.
func Bytes(w *Writer, req *http.Request, text []byte, contentType string) error {
	sum := sha256.Sum256(text)
	return Text(w, req, bytes.NewReader(text), int64(len(text)), contentType, hex.EncodeToString(sum[:12]))
}

// TextHeader sets what all texts have, compressed or not.
func TextHeader(h http.Header, contentType string) {
	h.Set("Content-Type", contentType)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Vary", "Accept-Encoding")
}

// EncodingFor is the encoding that the client likes of those that we make.
func EncodingFor(req *http.Request) string {
	for _, enc := range []string{"zstd", "gzip"} {
		if Accepts(req, enc) {
			return enc
		}
	}
	return ""
}

// Stream sends content of size bytes, -1 if that is not known, compressed while it goes
// out unless encoding is "". A failure after the first byte breaks the connection off,
// so that it is never taken for the end of the text.
func Stream(w *Writer, req *http.Request, content io.Reader, size int64, encoding, etag string) error {
	if NotModified(w, req, etag) {
		return nil
	}
	if encoding != "" {
		w.Header().Set("Content-Encoding", encoding)
	}
	if req.Method == http.MethodHead {
		w.WriteHeader(http.StatusOK)
		return nil
	}
	began, out := time.Now(), &timed{w: w}
	defer func() { w.Worked(time.Since(began) - out.took) }()
	z, err := encoder(out, encoding)
	if err != nil {
		return err
	}
	n, err := io.Copy(z, content)
	if err == nil && n < size {
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	return nil
}

// timed knows how long writing took: that is the client's time, and not the server's.
type timed struct {
	w    io.Writer
	took time.Duration
}

func (t *timed) Write(p []byte) (int, error) {
	began := time.Now()
	n, err := t.w.Write(p)
	t.took += time.Since(began)
	return n, err
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

func encoder(w io.Writer, encoding string) (io.WriteCloser, error) {
	switch encoding {
	case "zstd":
		return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
	case "gzip":
		return gzip.NewWriter(w), nil
	}
	return nopCloser{w}, nil
}

// Short sends a short text whole.
func Short(w *Writer, contentType, text string) error {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", fmt.Sprint(len(text)))
	_, _ = io.WriteString(w, text) // fails only if the client left; net/http drops the text of a HEAD
	return nil
}

// Stored answers a PUT that was taken in.
func Stored(w *Writer) error {
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusCreated)
	return nil
}
