//go:build !linux

package fastpath

func (c *conn) writeHeld(p []byte) (int, error) { return c.TCPConn.Write(p) }

func (c *conn) watch(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	c.left -= int64(n)
	return n, err
}
