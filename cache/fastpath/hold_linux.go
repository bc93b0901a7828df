package fastpath

import (
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// writeHeld is Write, of what the kernel does not send by itself until more comes.
func (c *conn) writeHeld(p []byte) (n int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		for n < len(p) && failed == nil {
			m, err := unix.SendmsgN(int(fd), p[n:], nil, nil, unix.MSG_MORE|unix.MSG_NOSIGNAL)
			switch err {
			case nil:
				n += m
			case unix.EINTR:
			case unix.EAGAIN:
				return false // called again when there is room, or the deadline has passed
			default:
				failed = &net.OpError{Op: "write", Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: os.NewSyscallError("sendmsg", err)}
			}
		}
		return true
	})
	if err == nil {
		err = failed
	}
	return n, err
}
