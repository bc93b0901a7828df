//go:build linux

package load

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// discard is how much of a body one recv may throw away. Nothing is copied, so
// it only has to be larger than what a receive buffer can hold.
const discard = 64 << 20

// batch is how much of a long body must have come before the thread is woken
// for it (SO_RCVLOWAT). Measured with nginx on two cores: the generator's CPU
// time falls from 0.20 to 0.05 s/GB, a quarter of the server's.
const batch = 1 << 20

// stall is how long all connections together may stay silent.
const stall = 30 * time.Second

// Request is one GET and the reply it must get.
type Request struct {
	Text   []byte // as sent, from the request line to the empty line
	Name   string // for error messages
	Status int
	Length int64 // of the body
}

// Get is the request for path with Nix's usual header fields and a reply of
// status 200 with length bytes.
func Get(path string, length int64) Request {
	text := "GET " + path + " HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: curl/8.13.0 Nix/2.26.3\r\nAccept: */*\r\n\r\n"
	return Request{Text: []byte(text), Name: "GET " + path, Status: 200, Length: length}
}

// Limit ends a run: after Count replies, or, when Count is 0, with the first
// reply of each connection after Duration.
type Limit struct {
	Count    int
	Duration time.Duration
}

// Pool is a set of open connections to one server, driven by one thread. It
// keeps its place in the list of requests from run to run, so a warm-up and
// the run after it walk on through the list. Not for concurrent use.
type Pool struct {
	// Copies, if not 0, has bodies copied by reads of that many bytes, as programs do, and the thread woken for
	// whatever has come. Set it before Run.
	Copies int

	epoll  int
	conns  []*conn
	cursor int
	copied []byte // by reads
}

type conn struct {
	fd   int
	req  *Request
	sent time.Time
	head bool  // the head of the reply has been read
	rest int64 // of the body, once head is set
	low  int64 // SO_RCVLOWAT as set last; 0 is the kernel's default of 1
	fill int   // bytes of buf in use, until head is set
	buf  [maxHead]byte
}

// Dial opens n connections to addr, a numeric host and port.
func Dial(addr string, n int) (*Pool, error) {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make an epoll set: %w", err)
	}
	p := &Pool{epoll: epoll}
	for i := range n {
		fd, err := connect(ap)
		if err != nil {
			p.Close()
			return nil, fmt.Errorf("dial %s: %w", addr, err)
		}
		p.conns = append(p.conns, &conn{fd: fd})
		event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}
		if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
			p.Close()
			return nil, fmt.Errorf("watch a connection: %w", err)
		}
	}
	return p, nil
}

func connect(ap netip.AddrPort) (int, error) {
	family := unix.AF_INET
	var sa unix.Sockaddr = &unix.SockaddrInet4{Addr: ap.Addr().As4(), Port: int(ap.Port())}
	if !ap.Addr().Is4() {
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Addr: ap.Addr().As16(), Port: int(ap.Port())}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	err = errors.Join(
		unix.Connect(fd, sa),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetNonblock(fd, true),
	)
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// Close closes all connections.
func (p *Pool) Close() {
	for _, c := range p.conns {
		_ = unix.Close(c.fd)
	}
	_ = unix.Close(p.epoll)
}

// Run sends the requests round and round over all connections, each taking the
// next one as soon as its last reply is complete, until the limit. After an
// error the pool is good for nothing but Close.
func (p *Pool) Run(reqs []Request, limit Limit) (*Result, error) {
	if len(reqs) == 0 || limit.Count <= 0 && limit.Duration <= 0 {
		return nil, errors.New("run: no requests or no limit")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	if len(p.copied) != p.Copies {
		p.copied = make([]byte, p.Copies)
	}
	room := limit.Count
	if room == 0 {
		room = 1 << 20
	}
	res := &Result{Latencies: make([]time.Duration, 0, room)}
	start := time.Now()
	now := start
	issued, open := 0, 0
	next := func(c *conn) error {
		if limit.Count > 0 && issued == limit.Count || limit.Count == 0 && now.Sub(start) >= limit.Duration {
			return nil
		}
		issued++
		open++
		c.req = &reqs[p.cursor%len(reqs)]
		p.cursor++
		c.sent = now
		return c.send()
	}
	for _, c := range p.conns {
		if err := next(c); err != nil {
			return nil, err
		}
	}
	events := make([]unix.EpollEvent, len(p.conns))
	for open > 0 {
		n, err := unix.EpollWait(p.epoll, events, int(stall/time.Millisecond))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("wait for replies: %w", err)
		}
		if n == 0 {
			return nil, fmt.Errorf("wait for replies: nothing came for %s, %d requests open", stall, open)
		}
		for _, event := range events[:n] {
			c := p.conns[event.Fd]
			done, err := c.receive(p.copied)
			if err != nil {
				return nil, err
			}
			if !done {
				continue
			}
			now = time.Now()
			open--
			res.Latencies = append(res.Latencies, now.Sub(c.sent))
			res.Bytes += c.req.Length
			c.req = nil
			if err := next(c); err != nil {
				return nil, err
			}
		}
	}
	res.Elapsed = now.Sub(start)
	return res, nil
}

func (c *conn) send() error {
	c.head, c.fill = false, 0
	n, err := unix.Write(c.fd, c.req.Text)
	if err == nil && n < len(c.req.Text) {
		err = errors.New("short write")
	}
	if err != nil {
		return fmt.Errorf("%s: send: %w", c.req.Name, err)
	}
	return nil
}

// receive takes what the socket has and says whether the reply is complete. A body is read into buf, by one read,
// or thrown away if that is empty.
func (c *conn) receive(buf []byte) (done bool, err error) {
	if c.req == nil {
		return false, errors.New("server sent something, or closed the connection, unasked")
	}
	if c.head {
		done, err = c.drain(buf)
	} else {
		done, err = c.begin(len(buf) == 0)
	}
	if err != nil {
		return false, fmt.Errorf("%s: %w", c.req.Name, err)
	}
	return done, nil
}

func (c *conn) begin(discards bool) (bool, error) {
	n, err := unix.Read(c.fd, c.buf[c.fill:])
	if err != nil {
		return false, again(err)
	}
	if n == 0 {
		return false, errors.New("server closed the connection before its reply")
	}
	c.fill += n
	h, err := parseHead(c.buf[:c.fill])
	if err != nil || h.size == 0 {
		return false, err
	}
	if h.status != c.req.Status {
		return false, fmt.Errorf("status %d, want %d: %.200q", h.status, c.req.Status, c.buf[h.size:c.fill])
	}
	if h.length != c.req.Length {
		return false, fmt.Errorf("Content-Length %d, want %d", h.length, c.req.Length)
	}
	c.head = true
	c.rest = h.length - int64(c.fill-h.size)
	if c.rest < 0 {
		return false, fmt.Errorf("%d bytes follow the reply", -c.rest)
	}
	if !discards {
		return c.rest == 0, nil
	}
	return c.rest == 0, c.wakeAt(c.rest)
}

func (c *conn) drain(buf []byte) (bool, error) {
	n, err := 0, error(nil)
	if len(buf) > 0 {
		n, err = unix.Read(c.fd, buf[:min(c.rest, int64(len(buf)))])
	} else {
		n, err = c.discard()
	}
	if err != nil {
		return false, again(err)
	}
	if n == 0 {
		return false, fmt.Errorf("server closed the connection %d bytes before the end of the body", c.rest)
	}
	c.rest -= int64(n)
	if len(buf) > 0 {
		return c.rest == 0, nil
	}
	return c.rest == 0, c.wakeAt(c.rest)
}

// discard throws away what has come of a body.
func (c *conn) discard() (int, error) {
	want := min(c.rest, discard)
	// With MSG_TRUNC a TCP socket drops the bytes and never touches the buffer.
	n, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(c.fd), 0, uintptr(want), unix.MSG_TRUNC, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// wakeAt asks to be woken only when most of the rest of a body has come.
func (c *conn) wakeAt(rest int64) error {
	low := min(rest, batch)
	if low == c.low || rest < batch/16 && c.low <= 1 {
		return nil
	}
	c.low = low
	if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, int(max(low, 1))); err != nil {
		return fmt.Errorf("set SO_RCVLOWAT: %w", err)
	}
	return nil
}

// again takes the errors of a socket that has nothing yet for no error.
func again(err error) error {
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return nil
	}
	return err
}
