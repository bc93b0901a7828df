// Package front answers plain GETs for what is in memory on the connection
// itself, before net/http sees them.
//
// It sits in the Read of an accepted connection: while net/http waits there for
// the first byte of a connection's first request, Read takes requests, answers
// those that Lookup knows, and returns only with the first one that it does not
// know. From then on the connection is net/http's alone, because only net/http
// knows where its requests end. So nothing is ever parsed twice in two ways:
// front answers a buffer only if it is exactly one complete GET of HTTP/1.1
// with header fields out of a short list; a body, a pipelined second request,
// half a head, any other field goes to net/http untouched.
//
// It is there for narinfos: a Nix client asks for hundreds of them on 25
// connections before it fetches the first NAR, and net/http spends as much
// on watching for the client to leave as on answering (bench/PERFORMANCE.md).
package front

import (
	"bytes"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// Listener wraps the connections of a TCP listener for an http.Server.
type Listener struct {
	net.Listener
	// Lookup gives the answer for a path, or nil. gzip says that the client
	// would take that encoding. It must not keep or change path.
	Lookup func(path []byte, gzip bool) *Answer
	// Served is told of every answer, as Lookup gave it.
	Served func(*Answer)
	// Idle is how long a connection may be silent, HeaderTimeout how long the
	// rest of a request's head may take that is handed over.
	Idle, HeaderTimeout time.Duration
}

// An Answer is a response that is ready to be sent. Many may send it at once.
type Answer struct {
	// Tail follows the value of Date: "\r\n", the other header fields, the
	// empty line and the body.
	Tail []byte
	// Body is how many bytes of Tail, its last ones, are the body.
	Body int
	// Label is for whoever made the answer.
	Label string
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		return &conn{TCPConn: tcp, l: l}, nil
	}
	return c, nil
}

// conn embeds the TCPConn itself, so that ReadFrom (sendfile) and CloseWrite
// stay visible to net/http.
type conn struct {
	*net.TCPConn
	l     *Listener
	slow  bool      // net/http has seen a byte
	until time.Time // the deadline that we set; zero: none
	out   []byte
	hold  bool // see Hold; of the goroutine that writes
}

func (c *conn) Read(p []byte) (int, error) {
	if c.slow {
		return c.TCPConn.Read(p)
	}
	for {
		n, err := c.TCPConn.Read(p)
		var answer *Answer
		if err == nil {
			answer = c.l.match(p[:n])
		}
		if answer == nil {
			c.handOver()
			return n, err
		}
		now := time.Now()
		if c.until.Sub(now) < c.l.Idle/2 {
			c.until = now.Add(c.l.Idle)
			if err := c.SetDeadline(c.until); err != nil {
				return 0, err
			}
		}
		c.out = append(c.out[:0], "HTTP/1.1 200 OK\r\nDate: "...)
		c.out = appendDate(c.out, now)
		c.out = append(c.out, answer.Tail...)
		if _, err := c.Write(c.out); err != nil {
			return 0, err
		}
		c.l.Served(answer)
	}
}

func (c *conn) handOver() {
	c.slow, c.out = true, nil
	if !c.until.IsZero() {
		_ = c.SetReadDeadline(time.Now().Add(c.l.HeaderTimeout))
		_ = c.SetWriteDeadline(time.Time{})
	}
}

// match is Lookup for a buffer that is exactly one plain GET.
func (l *Listener) match(b []byte) *Answer {
	// net/http ends lines at a bare "\n" too: what has one is not for us.
	lines := bytes.Count(b, crlf)
	if bytes.Count(b, crlf[1:]) != lines || bytes.Count(b, crlf[:1]) != lines {
		return nil
	}
	line, fields, ok := bytes.Cut(b, crlf)
	path, ok1 := bytes.CutPrefix(line, []byte("GET /"))
	path, ok2 := bytes.CutSuffix(path, []byte(" HTTP/1.1"))
	fields, ok3 := bytes.CutSuffix(fields, crlf)
	if !ok || !ok1 || !ok2 || !ok3 {
		return nil
	}
	hosts, gzip := 0, false
	for len(fields) > 0 {
		var field []byte
		if field, fields, ok = bytes.Cut(fields, crlf); !ok {
			return nil
		}
		name, value, ok := bytes.Cut(field, []byte(":"))
		switch {
		case !ok:
			return nil // also the empty line before a pipelined request
		case bytes.EqualFold(name, []byte("host")):
			hosts++
		case bytes.EqualFold(name, []byte("user-agent")), bytes.EqualFold(name, []byte("accept")):
		case bytes.EqualFold(name, []byte("accept-encoding")):
			if bytes.Contains(value, []byte(";")) {
				return nil // qualities are the slow path's
			}
			gzip = gzip || bytes.Contains(value, []byte("gzip"))
		default:
			return nil
		}
	}
	if hosts != 1 {
		return nil
	}
	return l.Lookup(path, gzip)
}

var crlf = []byte("\r\n")

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
