//go:build !linux

package fastpath

func (c *conn) writeHeld(p []byte) (int, error) { return c.TCPConn.Write(p) }
