package hooks

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"narwharf/signing/access"
)

// A lot is where connections with a parked poll stand, and then until their
// next request. net/http has 10 KiB of buffers, two goroutines with 10 KiB of
// stack and the whole request for each; here it is one goroutine in a Read, which
// ends when the client leaves or speaks, when the time is over, or when the poll
// is woken. For a next request the connection goes back to net/http as if it had
// just been accepted: the lot is a listener.
//
// bench/PERFORMANCE.md has what this saves. Where it cannot be done (no
// HTTP/1.1, a body, nobody serves the lot) a poll waits in its handler.
type lot struct {
	idle      time.Duration // between two requests
	back      chan net.Conn
	done      chan struct{}
	closeDone func()
	polls     sync.WaitGroup // that are here

	mu     sync.Mutex
	open   bool // somebody accepts
	silent map[*kept]struct{}
}

// sendTimeout is how long a client may take to receive the answer to a poll.
const sendTimeout = 10 * time.Second

// longAgo as a deadline ends what is under way.
var longAgo = time.Unix(1, 0)

func newLot() *lot {
	l := &lot{back: make(chan net.Conn), done: make(chan struct{}), silent: make(map[*kept]struct{})}
	l.closeDone = sync.OnceFunc(func() { close(l.done) })
	return l
}

// Returned is a listener for the http.Server that serves s, in addition to its
// others, and lets polls park outside of it. Their connections may be silent
// for idle between two requests. It is to be asked for once.
func (s *Server) Returned(idle time.Duration) net.Listener {
	s.lot.idle = idle
	return s.lot
}

// Accept implements net.Listener.
func (l *lot) Accept() (net.Conn, error) {
	l.mu.Lock()
	select {
	case <-l.done:
	default:
		l.open = true
	}
	l.mu.Unlock()
	select {
	case c := <-l.back:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *lot) Close() error {
	l.shut()
	l.closeDone()
	return nil
}

// Addr implements net.Listener.
func (l *lot) Addr() net.Addr { return lotAddr{} }

type lotAddr struct{}

func (lotAddr) Network() string { return "parked" }
func (lotAddr) String() string  { return "parked" }

// enter makes room for one poll, which is to call polls.Done.
func (l *lot) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open {
		l.polls.Add(1)
	}
	return l.open
}

// shut lets nothing more in, and sends away what has no poll.
func (l *lot) shut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = false
	for k := range l.silent {
		_ = k.SetReadDeadline(longAgo)
	}
}

// between keeps a connection until its client speaks again, and hands it to
// net/http then.
func (l *lot) between(k *kept) {
	if len(k.early) == 0 && !l.speaks(k) || k.SetReadDeadline(time.Time{}) != nil {
		_ = k.Close()
		return
	}
	select {
	case l.back <- k:
	case <-l.done:
		_ = k.Close()
	}
}

// speaks waits for a byte of the client.
func (l *lot) speaks(k *kept) bool {
	l.mu.Lock()
	if l.open {
		l.silent[k] = struct{}{}
		_ = k.SetReadDeadline(time.Now().Add(l.idle)) // what fails here fails in Read
	}
	open := l.open
	l.mu.Unlock()
	if !open {
		return false
	}
	n, _ := k.Conn.Read(k.one[:])
	l.mu.Lock()
	delete(l.silent, k)
	l.mu.Unlock()
	k.early = append(k.early, k.one[:n]...)
	return n > 0
}

// kept is a connection that was in the lot. What was read there is kept for
// net/http.
type kept struct {
	net.Conn
	early []byte
	one   [1]byte
}

// Read implements net.Conn.
func (k *kept) Read(p []byte) (int, error) {
	if len(k.early) > 0 {
		n := copy(p, k.early)
		if k.early = k.early[n:]; len(k.early) == 0 {
			k.early = nil
		}
		return n, nil
	}
	return k.Conn.Read(p)
}

// ReadFrom lets net/http find the sendfile of a TCP connection.
func (k *kept) ReadFrom(r io.Reader) (int64, error) {
	if f, ok := k.Conn.(io.ReaderFrom); ok {
		return f.ReadFrom(r)
	}
	return io.Copy(struct{ io.Writer }{k.Conn}, r)
}

// CloseWrite lets net/http send the end of an answer before it closes.
func (k *kept) CloseWrite() error {
	if c, ok := k.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// detach takes a parked poll and its connection off net/http, or says that
// this cannot be done. The call is then no more than the poll needs.
func (p *poll) detach() bool {
	c, l := p.call, p.s.lot
	req := c.req
	if req.Method != http.MethodGet || !req.ProtoAtLeast(1, 1) || req.Close || req.Body != http.NoBody || !l.enter() {
		return false
	}
	conn, rw, err := http.NewResponseController(c.w).Hijack()
	if err != nil {
		l.polls.Done()
		return false
	}
	k, ok := conn.(*kept)
	if !ok {
		k = &kept{Conn: conn}
	}
	if early, _ := rw.Reader.Peek(rw.Reader.Buffered()); len(early) > 0 {
		k.early = slices.Concat(early, k.early)
	}
	c.parked = true
	c.w, c.param, c.who = nil, nil, access.Principal{}
	c.req = &http.Request{Method: req.Method, URL: &url.URL{Path: req.URL.Path}}
	go func() {
		keep := p.serve(k)
		l.polls.Done()
		if keep {
			l.between(k)
		} else {
			_ = k.Close()
		}
	}()
	return true
}

// serve is a poll in the lot until it is answered. It tells whether the
// connection is good for another request.
func (p *poll) serve(k *kept) (keep bool) {
	defer func() {
		if r := recover(); r != nil { // as net/http does: one request, not the server
			p.s.log.Error("request failed", "path", p.call.req.URL.Path, "panic", r)
			keep = false
		}
	}()
	c := p.call
	last := woken
	err := p.follow(func() outcome {
		last = p.blockOn(k)
		c.w = newReply()
		return last
	})
	if last == clientGone {
		return false
	}
	if err != nil {
		p.s.writeError(c.w, c.req, err)
	}
	r := c.w.(*reply)
	if last == stopped {
		r.header.Set("Connection", "close")
	}
	p.s.count(c.route, r.status)
	return r.send(k) == nil && last != stopped
}

// blockOn waits in the Read of the connection.
func (p *poll) blockOn(k *kept) outcome {
	if len(k.early) > 0 { // a client that does not wait for its answer
		return p.block(nil)
	}
	if !p.waiter.onRead(k.Conn, p.until) {
		return p.s.orStopped(woken)
	}
	if p.s.orStopped(woken) == stopped { // since before the poll joined its topics
		p.waiter.offRead()
		return stopped
	}
	n, err := k.Conn.Read(k.one[:])
	wake := p.waiter.offRead()
	switch {
	case n > 0:
		k.early = append(k.early, k.one[0])
		return p.block(nil)
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return clientGone
	case wake:
		return p.s.orStopped(woken)
	}
	return timedOut
}

// A reply is the answer to a poll in the lot, while it is made.
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

// send writes the answer; writeRaw gave it a Content-Length if it has a body.
func (r *reply) send(k *kept) error {
	var b bytes.Buffer
	b.Grow(512 + len(r.body))
	b.WriteString("HTTP/1.1 " + strconv.Itoa(r.status) + " " + http.StatusText(r.status) + "\r\n")
	r.header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	if err := r.header.Write(&b); err != nil {
		return err
	}
	b.WriteString("\r\n")
	b.Write(r.body)
	if err := k.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	if _, err := k.Write(b.Bytes()); err != nil {
		return err
	}
	return k.SetWriteDeadline(time.Time{})
}
