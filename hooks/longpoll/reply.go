package longpoll

import (
	"bytes"
	"net/http"
	"strconv"
	"time"
)

// A reply is the answer to a poll outside of net/http, while it is made.
type reply struct {
	header http.Header
	status int
	body   []byte
}

func newReply() *reply {
	return &reply{header: http.Header{"Cache-Control": {"no-store"}, "Vary": {"Prefer"}}}
}

// Header implements http.ResponseWriter.
func (r *reply) Header() http.Header { return r.header }

// WriteHeader implements http.ResponseWriter.
func (r *reply) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}

// Write implements http.ResponseWriter.
func (r *reply) Write(b []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	r.body = append(r.body, b...)
	return len(b), nil
}

// send writes the answer, which has a Content-Length if it has a body.
func (r *reply) send(c *conn) error {
	var b bytes.Buffer
	b.Grow(512 + len(r.body))
	b.WriteString("HTTP/1.1 " + strconv.Itoa(r.status) + " " + http.StatusText(r.status) + "\r\n")
	r.header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	if err := r.header.Write(&b); err != nil {
		return err
	}
	b.WriteString("\r\n")
	b.Write(r.body)
	if err := c.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	if _, err := c.Write(b.Bytes()); err != nil {
		return err
	}
	return c.SetWriteDeadline(time.Time{})
}
