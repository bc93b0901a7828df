// Package fastpath answers plain GETs for what is in memory, or whole in a file,
// on the connection itself, before net/http sees them. It is a leaf, knows
// nothing of caches, and whoever does not wrap his listener goes without it.
//
// It is there for narinfos and NARs: a Nix client asks for hundreds of them on 25
// connections, and net/http spends as much on watching for the client to leave as
// on answering (bench/PERFORMANCE.md, docs/design/015-nars-on-the-connection.md).
//
// # The contract
//
//   - It sits in the Read of an accepted connection. While net/http waits there
//     for the begin of a request, Read takes requests, answers those that Lookup
//     knows, and returns with the first one that it does not know.
//   - Such a request goes to net/http untouched, byte by byte, with the whole
//     connection. When net/http has answered it, the connection comes back
//     (ConnState), but only if what net/http was given was one request to its
//     end and no more. So nothing is ever parsed in two ways.
//   - It answers a buffer only if that is exactly one complete GET of HTTP/1.1
//     with fields out of a short list, to which those belong that proxies add,
//     and "Connection: close". A body, a range, a condition, a password, a
//     pipelined second request, half a head, any other field is net/http's.
//   - An answer is, byte for byte but for the order of the fields, the one that
//     net/http's handler gives. It is whole, or the connection is broken off.
//   - Slow clients have limits as in net/http: Idle between two requests, Pace
//     for each step of a file.
package fastpath

import (
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// Listener wraps the connections of a TCP listener for an http.Server.
type Listener struct {
	net.Listener
	// Lookup gives the answer for a path, or nil. gzip says that the client
	// would take that encoding. It must not keep or change path.
	Lookup func(path []byte, gzip bool) *Answer
	// Served is told of every answer, as Lookup gave it, and how many bytes of its
	// body the connection took: less than all where it was broken off. The answer's
	// File is still open then.
	Served func(a *Answer, sent int64)
	// Idle is how long a connection may be silent, HeaderTimeout how long the
	// rest of a request's head may take that is handed over.
	Idle, HeaderTimeout time.Duration
	// Pace is how long a client may take for each step of a file; 512 KiB is one.
	Pace time.Duration

	sending atomic.Int64 // files under way
}

// An Answer is a response that is ready to be sent. Many may send it at once,
// unless it has a File.
type Answer struct {
	// Tail follows the value of Date: "\r\n", the other header fields, the
	// empty line and the body.
	Tail []byte
	// Body is how many bytes of Tail, its last ones, are the body.
	Body int
	// File, if not nil, is sent behind Tail: Size bytes from where it is read next.
	// It is closed afterwards. A shorter one breaks the connection off.
	File *os.File
	Size int64
	// Label is for whoever made the answer.
	Label any
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if t, ok := c.(tcp); ok {
		return &conn{tcp: t, l: l}, nil
	}
	return c, nil
}

// tcp is a TCPConn, or what embeds one.
type tcp interface {
	net.Conn
	io.ReaderFrom
	syscall.Conn
	CloseWrite() error
}

// conn embeds the TCPConn itself, so that ReadFrom (sendfile) and CloseWrite
// stay visible to net/http.
type conn struct {
	tcp
	l     *Listener
	slow  bool      // net/http has the connection, or who hijacked it
	taken bool      // somebody hijacked it
	left  int64     // bytes of its request that net/http has not been given; negative: unknown, or it has more
	first []byte    // of the next request, see Resume
	until time.Time // the deadline that we set; zero: none
	out   []byte
	hold  bool // see Hold; of the goroutine that writes
	state atomic.Int32
}

func (c *conn) Read(p []byte) (int, error) {
	switch {
	case c.slow && !c.taken && c.left == 0 && len(p) == 1:
		return c.watch(p)
	case c.slow:
		n, err := c.tcp.Read(p)
		c.left -= int64(n)
		return n, err
	}
	for {
		got := copy(p, c.first)
		n, err := c.tcp.Read(p[got:])
		n, c.first = n+got, nil
		var answer *Answer
		r := parse(p[:n])
		if err == nil && r.path != nil {
			answer = c.l.Lookup(r.path, r.gzip)
		}
		if answer == nil {
			c.handOver(r.left)
			return n, err
		}
		if !c.answer(answer, r.close) || r.close {
			return 0, c.end()
		}
	}
}

// NetConn is the connection beneath.
func (c *conn) NetConn() net.Conn { return c.tcp }

// answer sends an answer and reports whether something may follow it.
func (c *conn) answer(a *Answer, last bool) bool {
	now := time.Now()
	if c.allow(now, c.l.Idle/2, c.l.Idle) != nil {
		a.drop()
		return false
	}
	c.out = append(c.out[:0], "HTTP/1.1 200 OK\r\nDate: "...)
	c.out = appendDate(c.out, now)
	if last {
		c.out = append(c.out, "\r\nConnection: close"...)
	}
	c.out = append(c.out, a.Tail...)
	if a.File != nil {
		// Between two steps of a file less time is left than between two requests.
		return c.sendFile(a) && c.allow(time.Now(), c.l.Idle/2, c.l.Idle) == nil
	}
	if _, err := c.Write(c.out); err != nil {
		return false
	}
	c.l.Served(a, int64(a.Body))
	return true
}

// end ends a connection, on which half an answer may have gone out. net/http
// would send a 400 after most errors of Read, which the client would take for
// what is missing of the body: it gets an end of file, and nothing to write to.
func (c *conn) end() error {
	_ = c.tcp.Close()
	return io.EOF
}

// allow sees to a deadline between least and most from now: a new one for every
// answer would cost more than it is worth.
func (c *conn) allow(now time.Time, least, most time.Duration) error {
	if left := c.until.Sub(now); left >= least && left <= most {
		return nil
	}
	c.until = now.Add(most)
	return c.SetDeadline(c.until)
}

// handOver gives net/http the connection, with the begin of a request.
func (c *conn) handOver(left int64) {
	c.slow, c.left, c.out = true, left, nil
	if !c.until.IsZero() {
		c.until = time.Time{}
		_ = c.SetReadDeadline(time.Now().Add(c.l.HeaderTimeout))
		_ = c.SetWriteDeadline(time.Time{})
	}
}

// ConnState is for the http.Server of a Listener. It takes a connection back on
// which net/http has answered a request and waits for the next.
func ConnState(c net.Conn, state http.ConnState) {
	// When it closes one, net/http may still be reading from it.
	if c, ok := c.(*conn); ok && state != http.StateClosed {
		c.taken = state == http.StateHijacked
		c.slow = c.slow && (state != http.StateIdle || c.left != 0)
	}
}

// Resume takes a connection back that was hijacked from net/http, is answered, and
// of whose next request the first byte was read. An http.Server has to serve it
// then as if it had just been accepted.
func (c *conn) Resume(first byte) { c.slow, c.taken, c.first = false, false, []byte{first} }

// date is the text of one second.
type date struct {
	unix int64
	text string
}

var lastDate atomic.Pointer[date]

func appendDate(dst []byte, now time.Time) []byte {
	d := lastDate.Load()
	if d == nil || d.unix != now.Unix() {
		d = &date{now.Unix(), now.UTC().Format(http.TimeFormat)}
		lastDate.Store(d)
	}
	return append(dst, d.text...)
}
