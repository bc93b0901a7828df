package fastpath

import (
	"context"
	"net"
)

type connKey struct{}

// ConnContext is for an http.Server of a Listener, so that its handlers can Hold.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if c, ok := c.(*conn); ok {
		return context.WithValue(ctx, connKey{}, c)
	}
	return ctx
}

// Hold keeps back the next piece that is written to the connection of a request
// until another follows, so that the head of a reply and the begin of its body
// are one packet and wake the client once. It is for a handler that flushes the
// head and then sends a file; without the latter the head leaves 200 ms late
// (MSG_MORE, send(2)). It does nothing where there is no such connection.
func Hold(ctx context.Context) {
	if c, ok := ctx.Value(connKey{}).(*conn); ok {
		c.hold = true
	}
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (int, error) {
	if c.hold {
		c.hold = false
		return c.writeHeld(p)
	}
	return c.TCPConn.Write(p)
}
