package limits

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"golang.org/x/sync/semaphore"
)

// Bodies and answers of the API have limits: on silence, and on the whole by the least rate
// that a client may have. What waits for a change has them from its answer on.
const (
	slowest    = 4 << 10  // bytes a second
	answerStep = 64 << 10 // of an answer
	answerIdle = 2 * time.Second * answerStep / slowest

	// Unread is how long a body may take that nobody reads, since it was refused.
	Unread = 5 * time.Second

	// small is the size of bodies that are read side by side, however many.
	small = 64 << 10
)

var (
	// ErrFull means that there is no room for a body now.
	ErrFull = errors.New("the server is reading as many large bodies as it has room for: try again in a moment")
	// ErrSlow means that a body came to a halt, or came too slowly.
	ErrSlow = errors.New("the body came to a halt, or came too slowly: send it again")
)

// Room is for bodies that are read into memory whole.
type Room struct{ left *semaphore.Weighted }

// NewRoom makes room for so many bytes at once.
func NewRoom(bytes int64) *Room { return &Room{semaphore.NewWeighted(bytes)} }

// Take waits a moment for room for the body of a request, of at most limit bytes, and
// returns ErrFull if there is none. done gives it back.
func (r *Room) Take(req *http.Request, limit int64) (done func(), err error) {
	size := sizeOf(req, limit)
	if size <= small {
		return func() {}, nil
	}
	ctx, cancel := context.WithTimeout(req.Context(), Unread)
	defer cancel()
	if r.left.Acquire(ctx, size) != nil {
		return nil, ErrFull
	}
	return func() { r.left.Release(size) }, nil
}

func sizeOf(req *http.Request, limit int64) int64 {
	if size := req.ContentLength; size >= 0 && size <= limit {
		return size
	}
	return limit
}

// Begin sets the limits of a request that is nobody's yet. w answers it.
func Begin(w http.ResponseWriter, req *http.Request) {
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Time{}) // of the answer before; not every writer has one
	if req.Body != nil && req.Body != http.NoBody {
		_ = control.SetReadDeadline(time.Now().Add(Unread))
	}
}

// Body is that of a request, of at most limit bytes, which may be silent for idle. A
// larger one ends in an http.MaxBytesError.
func Body(w http.ResponseWriter, req *http.Request, limit int64, idle time.Duration) io.Reader {
	return &body{
		Reader: http.MaxBytesReader(w, req.Body, limit), control: http.NewResponseController(w), idle: idle,
		until: time.Now().Add(idle + time.Duration(sizeOf(req, limit)/slowest)*time.Second),
	}
}

type body struct {
	io.Reader
	control *http.ResponseController
	idle    time.Duration
	until   time.Time
}

func (b *body) Read(p []byte) (int, error) {
	deadline := time.Now().Add(b.idle)
	if deadline.After(b.until) {
		deadline = b.until
	}
	_ = b.control.SetReadDeadline(deadline)
	n, err := b.Reader.Read(p)
	switch {
	case err == io.EOF:
		_ = b.control.SetReadDeadline(time.Time{}) // else net/http takes the client for gone then
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = ErrSlow
	}
	return n, err
}

// Write writes a part of an answer in steps, each of which the client has to take in time.
func Write(w http.ResponseWriter, p []byte) (n int, err error) {
	control := http.NewResponseController(w)
	for first := true; first || len(p) > 0; first = false {
		_ = control.SetWriteDeadline(time.Now().Add(answerIdle))
		step := p[:min(len(p), answerStep)]
		m, err := w.Write(step)
		if n += m; err != nil {
			return n, err
		}
		p = p[len(step):]
	}
	return n, nil
}

// Answer is a writer of answers that knows their status. A client has to take each step of one in time.
type Answer struct {
	http.ResponseWriter
	Status int // 0 until there is one
}

// NewAnswer wraps w.
func NewAnswer(w http.ResponseWriter) *Answer { return &Answer{ResponseWriter: w} }

// WriteHeader implements http.ResponseWriter.
func (a *Answer) WriteHeader(status int) {
	if a.Status == 0 && status >= 200 {
		a.Status = status
		_ = http.NewResponseController(a.ResponseWriter).SetWriteDeadline(time.Now().Add(answerIdle)) // it may have no body
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *Answer) Write(p []byte) (int, error) { return Write(a.ResponseWriter, p) }

// Unwrap lets http.ResponseController reach the connection.
func (a *Answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
