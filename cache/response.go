package cache

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// response is the one wrapper around net/http's writer. It counts, it keeps
// the route for the metrics, and it paces: a client that takes less than
// writeStep in writeIdle, which is 4 KiB a second, is cut, however large the
// reply; one that takes that much may take as long as it likes.
//
// It implements io.ReaderFrom, as net/http's own writer does; a wrapper that
// forgets that costs sendfile(2), and half of the throughput of NARs.
type response struct {
	http.ResponseWriter
	control *http.ResponseController
	route   string
	status  int
	bytes   int64
	written bool // a header or body byte has gone out
	head    bool // the body is dropped on its way

	source string        // of what is sent, for the metrics
	by     string        // who uploads, by his token's name
	idle   time.Duration // how long a client may take nothing, writeIdle
	armed  bool          // a write deadline is set on the connection
	small  int           // bytes written since without one
}

const (
	// writeIdle is how long a client may take nothing of a reply.
	writeIdle = 2 * time.Minute
	// writeStep is how much of a file is handed over between two looks at
	// the clock.
	writeStep = 512 << 10
	// writeSmall is what fits into socket buffers without ever blocking long.
	writeSmall = 16 << 10
)

func (w *response) WriteHeader(status int) {
	if status >= 200 && w.status == 0 {
		w.status = status
		w.written = true
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(p []byte) (int, error) {
	w.begin()
	// An encoder writes small pieces, and many of them.
	if w.small += len(p); w.armed || w.small > writeSmall {
		w.arm()
	}
	n, err := w.ResponseWriter.Write(p)
	if !w.head {
		w.bytes += int64(n)
	}
	return n, err
}

// ReadFrom implements io.ReaderFrom in steps that each get a deadline. The
// *io.LimitedReader is what net's sendfile looks for around an *os.File.
func (w *response) ReadFrom(r io.Reader) (total int64, err error) {
	w.begin()
	rf, ok := w.ResponseWriter.(io.ReaderFrom)
	if !ok {
		return io.Copy(struct{ io.Writer }{w}, r)
	}
	limit := int64(1<<63 - 1)
	if lr, ok := r.(*io.LimitedReader); ok {
		r, limit = lr.R, lr.N
		defer func() { lr.N -= total }()
	}
	for total < limit {
		w.arm()
		want := min(writeStep, limit-total)
		n, err := rf.ReadFrom(&io.LimitedReader{R: r, N: want})
		total += n
		w.bytes += n
		if err != nil || n < want {
			return total, err
		}
	}
	return total, nil
}

// flush sends what was written so far, or the head alone.
func (w *response) flush() error {
	w.begin()
	w.arm()
	return w.control.Flush()
}

func (w *response) begin() {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	w.written = true
}

func (w *response) arm() {
	w.armed = true
	_ = w.control.SetWriteDeadline(time.Now().Add(w.idle)) // not every writer has one
}

// disarm takes the deadline off the connection, which may serve more requests.
func (w *response) disarm() {
	if w.armed {
		_ = w.control.SetWriteDeadline(time.Time{})
	}
}

// Unwrap lets http.ResponseController reach the connection.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// body reads a request's body with a limit on silence instead of on length:
// each read may wait for idle, then the upload ends in a 400. (A server-wide
// ReadTimeout would cut a slow large upload.)
type body struct {
	r       io.Reader
	control *http.ResponseController
	idle    time.Duration
	read    int64
	err     error // of the last Read
}

func (b *body) Read(p []byte) (int, error) {
	_ = b.control.SetReadDeadline(time.Now().Add(b.idle))
	n, err := b.r.Read(p)
	b.read += int64(n)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("%w: %w", errBody, err) // and not that of a disk
	}
	if b.err = err; err == io.EOF {
		// From here on net/http waits on the connection in order to see the
		// client leave: what follows may take longer than idle.
		_ = b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

// errBody is in every error of reading a request's body.
var errBody = errors.New("receive")

// discard reads what is left, for at most limit, and throws it away.
func (b *body) discard(limit time.Duration) {
	if b.err != nil {
		return
	}
	_ = b.control.SetReadDeadline(time.Now().Add(limit))
	_, _ = io.Copy(io.Discard, b.r) // an error only means that the client is gone
}
