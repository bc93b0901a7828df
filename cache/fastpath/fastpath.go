// Package fastpath answers plain GETs for what is in memory, or whole in a file, on
// the connection itself, before net/http sees them.
//
// It sits in the Read of an accepted connection: while net/http waits there for
// the first byte of a connection's first request, Read takes requests, answers
// those that Lookup knows, and returns only with the first one that it does not
// know. From then on the connection is net/http's alone, because only net/http
// knows where its requests end. So nothing is ever parsed twice in two ways:
// it answers a buffer only if it is exactly one complete GET of HTTP/1.1
// with header fields out of a short list; a body, a pipelined second request,
// half a head, any other field goes to net/http untouched.
//
// It is there for narinfos and NARs: a Nix client asks for hundreds of them on 25
// connections, and net/http spends as much on watching for the client to leave as
// on answering (bench/PERFORMANCE.md).
package fastpath

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
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
	state atomic.Int32
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
		if err := c.allow(now, c.l.Idle/2, c.l.Idle); err != nil {
			answer.drop()
			return 0, c.broken()
		}
		c.out = append(c.out[:0], "HTTP/1.1 200 OK\r\nDate: "...)
		c.out = appendDate(c.out, now)
		c.out = append(c.out, answer.Tail...)
		if answer.File != nil {
			// Between two steps of a file less time is left than between two requests.
			if !c.sendFile(answer) || c.allow(time.Now(), c.l.Idle/2, c.l.Idle) != nil {
				return 0, c.broken()
			}
			continue
		}
		if _, err := c.Write(c.out); err != nil {
			return 0, c.broken()
		}
		c.l.Served(answer, int64(answer.Body))
	}
}

// broken ends a connection on which half an answer may have gone out. net/http
// would send a 400 after most errors of Read, which the client would take for
// what is missing of the body: it gets an end of file, and nothing to write to.
func (c *conn) broken() error {
	_ = c.TCPConn.Close()
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

func (c *conn) handOver() {
	c.slow, c.out = true, nil
	if !c.until.IsZero() {
		_ = c.SetReadDeadline(time.Now().Add(c.l.HeaderTimeout))
		_ = c.SetWriteDeadline(time.Time{})
	}
}

// match is Lookup for a buffer that is exactly one plain GET.
func (l *Listener) match(b []byte) *Answer {
	// What net/http would refuse it shall refuse.
	for _, c := range b {
		if c < ' ' && c != '\r' && c != '\n' || c > '~' {
			return nil
		}
	}
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
			if hosts++; !isHost(bytes.TrimLeft(value, " ")) {
				return nil
			}
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

// isHost reports whether a Host is a name or an address, with or without a port.
func isHost(b []byte) bool {
	for _, c := range b {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '-' <= c && c <= ':' && c != '/', c == '[', c == ']', c == '_':
		default:
			return false
		}
	}
	return true
}

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
