// Package reply is how the cache's handlers answer: one writer that counts and paces,
// ranges and conditions, texts that are compressed on the way.
//
//   - A reply that cannot be sent whole is broken off (http.ErrAbortHandler): a client
//     must never take a part for all.
//   - A client that takes less than 4 KiB a second is cut, and so is an upload that is
//     silent for too long. Whoever moves may take as long as he likes.
//   - ReadFrom survives every wrapper, or sendfile(2) is lost.
package reply

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Writer is the one wrapper around net/http's writer. It counts, it keeps
// the route for the metrics, and it paces: a client that takes less than
// writeStep in WriteIdle, which is 4 KiB a second, is cut, however large the
// reply; one that takes that much may take as long as it likes.
//
// It implements io.ReaderFrom, as net/http's own writer does; a wrapper that
// forgets that costs sendfile(2), and half of the throughput of NARs.
type Writer struct {
	http.ResponseWriter
	Control *http.ResponseController
	Route   string // of the URL grammar, for the metrics
	Source  string // of what is sent, for the metrics
	By      string // who uploads, by his token's name
	Status  int    // 0 until there is one
	Bytes   int64  // of the body
	Written bool   // a header or body byte has gone out
	LAN     bool   // it was asked for below LAN

	// Work counts processor time to the client and tells whether he may have more; nil: he does
	// not count.
	Work func(took time.Duration) bool

	head  bool          // the body is dropped on its way
	idle  time.Duration // how long a client may take nothing
	armed bool          // a write deadline is set on the connection
	small int           // bytes written since without one
}

// NoCache is the Cache-Control of each answer that has no other: a proxy may keep it and
// has to ask whether it still is so. Without one Varnish keeps a 404 for two minutes.
const NoCache = "no-cache"

// NewWriter wraps rw, which answers req. A client may take nothing for idle.
func NewWriter(rw http.ResponseWriter, req *http.Request, idle time.Duration) *Writer {
	rw.Header()["Cache-Control"] = []string{NoCache}
	return &Writer{ResponseWriter: rw, Control: http.NewResponseController(rw), Route: "none", idle: idle, head: req.Method == http.MethodHead}
}

const (
	// WriteIdle is how long a client may take nothing of a reply.
	WriteIdle = 2 * time.Minute
	// writeStep is how much of a file is handed over between two looks at
	// the clock.
	writeStep = 512 << 10
	// writeSmall is what net/http and the socket's buffers mostly take at once: only End has a
	// deadline for it.
	writeSmall = 16 << 10
)

// WriteHeader implements http.ResponseWriter.
func (w *Writer) WriteHeader(status int) {
	if status >= 200 && w.Status == 0 {
		if h := w.Header(); h["Cache-Control"] == nil { // http.ServeContent takes it off a 416
			h["Cache-Control"] = []string{NoCache}
		}
		w.Status = status
		w.Written = true
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *Writer) Write(p []byte) (int, error) {
	w.begin()
	// An encoder writes small pieces, and many of them.
	if w.small += len(p); w.armed || w.small > writeSmall {
		w.arm()
	}
	n, err := w.ResponseWriter.Write(p)
	if !w.head {
		w.Bytes += int64(n)
	}
	return n, err
}

// ReadFrom implements io.ReaderFrom in steps that each get a deadline. The
// *io.LimitedReader is what net's sendfile looks for around an *os.File.
func (w *Writer) ReadFrom(r io.Reader) (total int64, err error) {
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
		w.Bytes += n
		if err != nil || n < want {
			return total, err
		}
	}
	return total, nil
}

// FlushNow sends what was written so far, or the head alone.
func (w *Writer) FlushNow() error {
	w.begin()
	w.arm()
	return w.Control.Flush()
}

func (w *Writer) begin() {
	if w.Status == 0 {
		w.Status = http.StatusOK
	}
	w.Written = true
}

func (w *Writer) arm() {
	w.armed = true
	_ = w.Control.SetWriteDeadline(time.Now().Add(w.idle)) // not every writer has one
}

// End gives a deadline to what net/http still sends when the handler has returned: all of a small
// answer. Who asks for many at once, and reads none, would be waited for without end. The next
// request takes it off (limits.Begin).
func (w *Writer) End() { w.arm() }

// MayWork tells whether the client may have more of the server's time.
func (w *Writer) MayWork() bool { return w.Work == nil || w.Work(0) }

// Worked counts to the client how long the server worked for him.
func (w *Writer) Worked(took time.Duration) {
	if w.Work != nil {
		w.Work(took)
	}
}

// Unwrap lets http.ResponseController reach the connection.
func (w *Writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Body reads a request's body with a limit on silence and on slowness instead of on
// length: each read may wait for idle, and bodyStep for what takes 4 KiB a second, then the
// upload ends in a 400. (A server-wide ReadTimeout would cut a slow large upload.)
type Body struct {
	r        io.Reader
	control  *http.ResponseController
	idle     time.Duration
	Received int64 // bytes read

	step  int64     // bytes since the last step began
	until time.Time // when that has to end
}

// bodyStep is how much of a body has to come in bodyTime, beyond idle.
const (
	bodyStep = 256 << 10
	bodyTime = 64 * time.Second
)

// NewBody makes one of the body of the request that w answers.
func NewBody(w *Writer, body io.Reader, idle time.Duration) *Body {
	return &Body{r: body, control: w.Control, idle: idle}
}

func (b *Body) Read(p []byte) (int, error) {
	now := time.Now()
	if b.until.IsZero() || b.step >= bodyStep {
		b.step, b.until = 0, now.Add(b.idle+bodyTime)
	}
	deadline := now.Add(b.idle)
	if deadline.After(b.until) {
		deadline = b.until
	}
	_ = b.control.SetReadDeadline(deadline)
	n, err := b.r.Read(p)
	b.Received, b.step = b.Received+int64(n), b.step+int64(n)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("%w: %w", ErrBody, err) // and not that of a disk
	}
	if err == io.EOF {
		// From here on net/http waits on the connection in order to see the
		// client leave: what follows may take longer than idle.
		_ = b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

// ErrBody is in every error of reading a request's body.
var ErrBody = errors.New("receive")
