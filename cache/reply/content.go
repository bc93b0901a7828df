package reply

import (
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"narwharf/cache/fastpath"
)

// Content answers ranges and conditions by http.ServeContent and notices
// what that hides: a file that could not be sent whole.
func Content(w *Writer, req *http.Request, content io.ReadSeeker, size int64) error {
	if f, ok := content.(*os.File); ok && size > 0 && wantsAll(req) {
		return sendFile(w, req, f, size)
	}
	before := w.Bytes
	http.ServeContent(w, req, "", time.Time{}, content)
	if req.Method == http.MethodGet && w.Status == http.StatusOK && w.Bytes-before < size {
		panic(http.ErrAbortHandler) // read error or the client left: never a complete 200
	}
	return nil
}

// sendFile is Content for a request that can have no other answer than all
// of a file. The head leaves with the first of sendfile's pages; ServeContent
// would seek three times and read the begin in order to send it with the head.
func sendFile(w *Writer, req *http.Request, f *os.File, size int64) error {
	h := w.Header()
	h["Accept-Ranges"] = []string{"bytes"}
	h["Content-Length"] = []string{strconv.FormatInt(size, 10)}
	w.WriteHeader(http.StatusOK)
	fastpath.Hold(req.Context())
	if err := w.FlushNow(); err == nil {
		// What is missing at the end breaks the connection off, whatever the error.
		n, _ := w.ReadFrom(&io.LimitedReader{R: f, N: size})
		size -= n
	}
	if size > 0 {
		panic(http.ErrAbortHandler) // read error or the client left: never a complete 200
	}
	return nil
}

// wantsAll reports whether no field of a GET asks for anything but all.
func wantsAll(req *http.Request) bool {
	if req.Method != http.MethodGet {
		return false
	}
	for _, name := range []string{"Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"} {
		if req.Header[name] != nil {
			return false
		}
	}
	return true
}

// Flushing sends what an encoder makes, and flushes whenever it has sent all
// that there is: the client need not wait for a buffer of ours to fill.
func Flushing(w *Writer, r io.Reader) error {
	buf := make([]byte, 128<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return OfClient(err)
			}
			if n < len(buf) {
				_ = w.Control.Flush() // the next write tells
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
