//go:build !linux

package fastpath

func (c *conn) writeHeld(p []byte) (int, error) { return c.tcp.Write(p) }

func (c *conn) watch(p []byte) (int, error) {
	n, err := c.tcp.Read(p)
	c.left -= int64(n)
	return n, err
}
