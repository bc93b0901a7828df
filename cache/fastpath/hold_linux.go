package fastpath

import (
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// watch is the read of one byte by which net/http sees a client leave while it
// answers him. It takes nothing: a client that is quick sends his next request, as
// soon as he has the answer, before net/http has ended this.
func (c *conn) watch(p []byte) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var n int
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		n, _, failed = unix.Recvfrom(int(fd), p, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		// Else it waits for more to happen, or for the deadline that net/http sets.
		return failed == nil && n == 0 || failed != nil && failed != unix.EAGAIN && failed != unix.EINTR
	})
	if err == nil && failed != nil {
		err = &net.OpError{Op: "read", Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: os.NewSyscallError("recvfrom", failed)}
	}
	if err == nil {
		err = io.EOF
	}
	return 0, err
}

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
