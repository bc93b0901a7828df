package limits

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"
)

// unreadBytes is how much of a body may come that nobody reads.
const unreadBytes = 16 << 20

// Early has h answer a request. If it refuses it before the end of the body, the answer
// goes out at once, and what comes of the body afterwards is thrown away, for patience and
// 16 MiB at most. A connection that is closed on unread bytes is reset, and the answer lost
// with it: proxies then say 502, and Nix before 2.33 hangs.
//
// A proxy sends the body on even if the client asked whether to ("Expect: 100-continue"), and
// Caddy resets the client's connection if the answer comes before, Varnish does not look at
// it: there half of that is thrown away first.
func Early(w http.ResponseWriter, req *http.Request, patience time.Duration, h http.HandlerFunc) {
	if req.Body == nil || req.Body == http.NoBody || req.ProtoMajor != 1 {
		h(w, req)
		return
	}
	e := &early{ResponseWriter: w, body: &tracked{ReadCloser: req.Body}, patience: patience, left: unreadBytes}
	for _, field := range []string{"X-Forwarded-For", "Forwarded", "Via"} {
		e.forwarded = e.forwarded || req.Header.Get(field) != ""
	}
	inner := *req // net/http has to find its own body in its own request
	inner.Body = e.body
	h(e, &inner)
	if e.early {
		e.linger(req)
	}
}

// tracked is a body that knows whether it came to its end.
type tracked struct {
	io.ReadCloser
	err error
}

func (t *tracked) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	t.err = err
	return n, err
}

type early struct {
	http.ResponseWriter
	body      *tracked
	patience  time.Duration
	left      int64
	forwarded bool // by a proxy
	status    int
	early     bool // the answer came before the end of the body
}

// WriteHeader implements http.ResponseWriter.
func (e *early) WriteHeader(status int) {
	if e.status == 0 && status >= 200 {
		e.status = status
		e.early = status >= 400 && e.body.err == nil
		if e.early && e.forwarded {
			e.early = !e.discard(unreadBytes / 2)
		}
		if e.early {
			_ = http.NewResponseController(e.ResponseWriter).EnableFullDuplex() // else net/http reads first
		}
	}
	e.ResponseWriter.WriteHeader(status)
}

func (e *early) Write(p []byte) (int, error) {
	if e.status == 0 {
		e.WriteHeader(http.StatusOK)
	}
	return e.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the connection.
func (e *early) Unwrap() http.ResponseWriter { return e.ResponseWriter }

// discard throws the rest of the body away, and reports whether it came to its end.
func (e *early) discard(most int64) bool {
	control := http.NewResponseController(e.ResponseWriter)
	_ = control.SetReadDeadline(time.Now().Add(e.patience))
	n, err := io.CopyN(io.Discard, e.body, most)
	e.left -= n
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	_ = control.SetReadDeadline(time.Time{}) // else net/http takes the client for gone then
	return true
}

// linger reads what is left. The connection goes on if that was all of it.
func (e *early) linger(req *http.Request) {
	control := http.NewResponseController(e.ResponseWriter)
	if control.Flush() != nil {
		return
	}
	// To who asked whether to send, net/http has said that it will close.
	if req.Header.Get("Expect") == "" && !e.forwarded && e.discard(e.left) {
		return
	}
	conn, in, err := control.Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	if half, ok := conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() != nil {
		return
	}
	_ = conn.SetReadDeadline(time.Now().Add(e.patience))
	_, _ = io.CopyN(io.Discard, in, e.left)
}
