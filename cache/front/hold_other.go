//go:build !linux

package front

func (c *conn) writeHeld(p []byte) (int, error) { return c.TCPConn.Write(p) }
