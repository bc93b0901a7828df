package fastpath

import (
	"context"
	"io"
	"net"
	"time"
)

// What a connection is doing, for who closes it.
const (
	free    int32 = iota
	sending       // a file, from this goroutine
	closed
)

// fileStep is how much of a file is sent between two looks at the clock.
const fileStep = 512 << 10

// sendFile sends the head that is in c.out and the answer's file, and reports
// whether something may follow on the connection.
func (c *conn) sendFile(a *Answer) (more bool) {
	defer a.drop()
	c.l.sending.Add(1) // before state: who finds it sending may go on to Wait
	defer c.l.sending.Add(-1)
	if !c.state.CompareAndSwap(free, sending) {
		return false
	}
	defer func() { more = c.state.CompareAndSwap(sending, free) && more }() // after a panic too: net/http closes then
	c.hold = a.Size > 0
	_, err := c.Write(c.out)
	var sent int64
	for err == nil && sent < a.Size {
		// Between Pace and twice that for each step.
		if err = c.allow(time.Now(), c.l.Pace, 2*c.l.Pace); err != nil {
			break
		}
		var n int64
		n, err = c.ReadFrom(&io.LimitedReader{R: a.File, N: min(fileStep, a.Size-sent)}) // the bare file: sendfile(2)
		if sent += n; n == 0 {
			break // the file is shorter than it was
		}
	}
	c.l.Served(a, sent)
	return err == nil && sent == a.Size
}

func (a *Answer) drop() {
	if a.File != nil {
		_ = a.File.Close() // it was only to be read
	}
}

// Close implements net.Conn. A file that is being sent is sent to its end first:
// http.Server.Shutdown takes a connection on which net/http has seen no request
// for idle after five seconds (see Wait).
func (c *conn) Close() error {
	if c.state.Swap(closed) == sending {
		return nil
	}
	return c.tcp.Close()
}

// Wait waits until no file is being sent, which http.Server.Shutdown does not do.
func (l *Listener) Wait(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for l.sending.Load() > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

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
	return c.tcp.Write(p)
}
