package longpoll

import (
	"io"
	"net"
)

// conn is a connection that was parked. What was read meanwhile is for net/http.
type conn struct {
	net.Conn
	early []byte
	one   [1]byte
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
