package cache

import (
	"io"
	"net/http"
	"strconv"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"narwharf/cache/blob"
)

// sendBlob sends a text file, compressed if the client likes that.
func sendBlob(w *response, req *http.Request, f *blob.File, contentType string) error {
	etag := strconv.FormatInt(f.ModTime.UnixNano(), 36) + "-" + strconv.FormatInt(f.Size, 36)
	return sendText(w, req, f.Content, f.Size, contentType, etag)
}

// sendText sends size bytes of text. etag is without quotes; what is compressed has
// it as a weak one.
func sendText(w *response, req *http.Request, content io.ReadSeeker, size int64, contentType, etag string) error {
	h := w.Header()
	textHeader(h, contentType)
	// HTTP/1.0 has no chunks: a compressed text that broke off would look whole.
	if size >= 1024 && req.Header.Get("Range") == "" && req.ProtoAtLeast(1, 1) {
		if enc := encodingFor(req); enc != "" {
			h.Set("Etag", `W/"`+etag+`"`)
			return sendCompressed(w, req, content, size, enc)
		}
	}
	h.Set("Etag", `"`+etag+`"`)
	return serveContent(w, req, content, size)
}

func textHeader(h http.Header, contentType string) {
	h.Set("Content-Type", contentType)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Vary", "Accept-Encoding")
}

// encodingFor is the encoding that the client likes of those that we make.
func encodingFor(req *http.Request) string {
	for _, enc := range []string{"zstd", "gzip"} {
		if accepts(req, enc) {
			return enc
		}
	}
	return ""
}

// sendCompressed compresses while sending; size is -1 if it is not known. A failure after
// the first byte breaks the connection off, so that it is never taken for the
// end of the text.
func sendCompressed(w *response, req *http.Request, content io.Reader, size int64, encoding string) error {
	h := w.Header()
	if noneMatch(req, h.Get("Etag")) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	h.Set("Content-Encoding", encoding)
	if req.Method == http.MethodHead {
		w.WriteHeader(http.StatusOK)
		return nil
	}
	var z io.WriteCloser
	if encoding == "zstd" {
		enc, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
		if err != nil {
			return err
		}
		z = enc
	} else {
		z = gzip.NewWriter(w)
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
