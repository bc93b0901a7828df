package longpoll

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"time"
)

// detach takes a parked poll and its connection off net/http, or says that
// this cannot be done. Of the request only method and path are left then.
func (p *poll) detach() bool {
	parking, req := p.all.parking, p.req
	if req.Method != http.MethodGet || !req.ProtoAtLeast(1, 1) || req.Body != http.NoBody || !parking.enter() {
		return false
	}
	hijacked, rw, err := http.NewResponseController(p.w).Hijack()
	if err != nil {
		parking.polls.Done()
		return false
	}
	c := parked(hijacked)
	if early, _ := rw.Reader.Peek(rw.Reader.Buffered()); len(early) > 0 {
		c.early = slices.Concat(early, c.early)
	}
	p.id = p.w.Header()[requestID]
	p.w, p.req = nil, &http.Request{Method: req.Method, URL: &url.URL{Path: req.URL.Path}, Close: req.Close}
	go func() {
		again := p.serve(c)
		parking.polls.Done()
		if again {
			parking.between(c)
		} else {
			_ = c.Close()
		}
	}()
	return true
}

// serve is a detached poll until it is answered. It tells whether the connection
// is good for another request.
func (p *poll) serve(c *conn) (again bool) {
	defer func() {
		if r := recover(); r != nil { // as net/http does: one request, not the server
			p.all.Log.Error("request failed", "path", p.req.URL.Path, "panic", r)
			again = false
		}
	}()
	r := newReply(p.id)
	last := woken
	err := p.follow(func() outcome {
		last = p.blockOn(c)
		r = newReply(p.id)
		p.w = r
		return last
	})
	if last == clientGone {
		return false
	}
	if err != nil {
		p.all.WriteError(r, p.req, err)
	}
	closes := last == stopped || p.req.Close
	if closes {
		r.header.Set("Connection", "close")
	}
	p.all.Answered(p.Route, r.status)
	return r.send(c) == nil && !closes
}

// blockOn waits in the Read of the connection.
func (p *poll) blockOn(c *conn) outcome {
	if len(c.early) > 0 { // a client that does not wait for its answer
		return p.block(nil)
	}
	if !p.waiter.onRead(c.Conn, p.until) {
		return p.all.orStopped(woken)
	}
	if p.all.orStopped(woken) == stopped { // since before the poll joined its topics
		p.waiter.offRead()
		return stopped
	}
	n, err := c.Conn.Read(c.one[:])
	wake := p.waiter.offRead()
	switch {
	case n > 0:
		c.early = append(c.early, c.one[0])
		return p.block(nil)
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return clientGone
	case wake:
		return p.all.orStopped(woken)
	}
	return timedOut
}

// A reply is the answer to a poll outside of net/http, while it is made.
type reply struct {
	header http.Header
	status int
	body   []byte
}

// requestID is a header that the answer has whatever it comes to.
const requestID = "X-Request-Id"

func newReply(id []string) *reply {
	r := &reply{header: http.Header{"Cache-Control": {"no-store"}, "Vary": {"Prefer"}}}
	if id != nil {
		r.header[requestID] = id
	}
	return r
}

// Header implements http.ResponseWriter.
func (r *reply) Header() http.Header { return r.header }

// WriteHeader implements http.ResponseWriter.
func (r *reply) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}

// Write implements http.ResponseWriter. It keeps b: of a large release there is one text
// for all who wait for it.
func (r *reply) Write(b []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	if len(r.body) == 0 {
		r.body = b
	} else {
		r.body = slices.Concat(r.body, b)
	}
	return len(b), nil
}

// send writes the answer.
func (r *reply) send(c *conn) error {
	r.header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	answer := http.Response{ProtoMajor: 1, ProtoMinor: 1, StatusCode: r.status, Header: r.header,
		ContentLength: int64(len(r.body)), Body: io.NopCloser(bytes.NewReader(r.body))}
	if err := c.SetWriteDeadline(time.Now().Add(sendTimeout + time.Duration(len(r.body)/sendRate)*time.Second)); err != nil {
		return err
	}
	out := bufio.NewWriter(c)
	if err := answer.Write(out); err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return err
	}
	return c.SetWriteDeadline(time.Time{})
}
