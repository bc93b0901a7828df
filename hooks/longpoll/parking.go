package longpoll

import (
	"crypto/tls"
	"io"
	"net"
	"sync"
	"time"
)

// parking is where connections with a parked poll stand, and then until their
// next request. It is the listener that hands them back to net/http.
type parking struct {
	idle      time.Duration // between two requests
	back      chan net.Conn
	done      chan struct{}
	closeDone func()
	polls     sync.WaitGroup // that are here

	mu     sync.Mutex
	open   bool // somebody accepts
	silent map[*conn]struct{}
}

// How long a client may take to receive the answer to a poll.
const (
	sendTimeout = 10 * time.Second
	sendRate    = 4 << 10 // bytes a second that come on top
)

// longAgo as a deadline ends what is under way.
var longAgo = time.Unix(1, 0)

func newParking() *parking {
	p := &parking{back: make(chan net.Conn), done: make(chan struct{}), silent: make(map[*conn]struct{})}
	p.closeDone = sync.OnceFunc(func() { close(p.done) })
	return p
}

// Accept implements net.Listener.
func (p *parking) Accept() (net.Conn, error) {
	p.mu.Lock()
	select {
	case <-p.done:
	default:
		p.open = true
	}
	p.mu.Unlock()
	select {
	case c := <-p.back:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (p *parking) Close() error {
	p.shut()
	p.closeDone()
	return nil
}

// Addr implements net.Listener.
func (p *parking) Addr() net.Addr { return parkedAddr{} }

type parkedAddr struct{}

func (parkedAddr) Network() string { return "parked" }
func (parkedAddr) String() string  { return "parked" }

// enter makes room for one poll, which is to call polls.Done.
func (p *parking) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open {
		p.polls.Add(1)
	}
	return p.open
}

// shut lets nothing more in, and sends away what has no poll.
func (p *parking) shut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = false
	for k := range p.silent {
		_ = k.SetReadDeadline(longAgo)
	}
}

// between keeps a connection until its client speaks again, and hands it to
// net/http then.
func (p *parking) between(k *conn) {
	if len(k.early) == 0 && !p.speaks(k) || k.SetReadDeadline(time.Time{}) != nil {
		_ = k.Close()
		return
	}
	var next net.Conn = k
	// A connection of cache/fastpath can be taken for a new one without k around it.
	if c, ok := k.Conn.(interface{ Resume(first byte) }); ok && len(k.early) == 1 {
		c.Resume(k.early[0])
		next = k.Conn
	}
	if _, ok := k.Conn.(stater); ok {
		next = secure{k}
	}
	select {
	case p.back <- next:
	case <-p.done:
		_ = k.Close()
	}
}

// speaks waits for a byte of the client.
func (p *parking) speaks(k *conn) bool {
	p.mu.Lock()
	if p.open {
		p.silent[k] = struct{}{}
		_ = k.SetReadDeadline(time.Now().Add(p.idle)) // what fails here fails in Read
	}
	open := p.open
	p.mu.Unlock()
	if !open {
		return false
	}
	n, _ := k.Conn.Read(k.one[:])
	p.mu.Lock()
	delete(p.silent, k)
	p.mu.Unlock()
	k.early = append(k.early, k.one[:n]...)
	return n > 0
}

// conn is a connection that was parked. What was read meanwhile is for net/http.
type conn struct {
	net.Conn
	early []byte
	one   [1]byte
}

// NetConn is the connection beneath.
func (c *conn) NetConn() net.Conn { return c.Conn }

// secure is a conn over TLS, of which net/http has to know: requests then have the client's certificate.
type secure struct{ *conn }

type stater interface{ ConnectionState() tls.ConnectionState }

// ConnectionState is what net/http asks for.
func (s secure) ConnectionState() tls.ConnectionState { return s.Conn.(stater).ConnectionState() } //nolint:forcetypeassert // between has looked

// parked is the conn of a connection that was here before, a new one of any other.
func parked(c net.Conn) *conn {
	switch c := c.(type) {
	case *conn:
		return c
	case secure:
		return c.conn
	}
	return &conn{Conn: c}
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(p, c.early)
		if c.early = c.early[n:]; len(c.early) == 0 {
			c.early = nil
		}
		return n, nil
	}
	return c.Conn.Read(p)
}

// ReadFrom lets net/http find the sendfile of a TCP connection.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	if f, ok := c.Conn.(io.ReaderFrom); ok {
		return f.ReadFrom(r)
	}
	return io.Copy(struct{ io.Writer }{c.Conn}, r)
}

// CloseWrite lets net/http send the end of an answer before it closes.
func (c *conn) CloseWrite() error {
	if inner, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return inner.CloseWrite()
	}
	return nil
}
