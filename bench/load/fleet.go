//go:build linux

package load

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Fleet is many connections that each send requests of their own and wait for
// the answers as long as it takes: hosts that follow a channel. Like a Pool it
// is one thread, and a connection is never reopened. Its replies are handed
// over whole, since each host is told something else. Not for concurrent use.
type Fleet struct {
	addr    netip.AddrPort
	epoll   int
	members []member
	buf     []byte // of the reply that is being read
}

type member struct {
	fd   int
	wait bool   // a request is open
	part []byte // of a reply that came in pieces
}

// maxReply bounds a reply with its head.
const maxReply = 1 << 20

// Reply is an answer. Its fields are valid until the function returns that it
// is handed to.
type Reply struct {
	At     time.Time // of its last byte
	Status int
	Head   []byte // with the status line, to the empty line
	Body   []byte
}

// Field is the value of a header field, by its name in lower case; nil if the
// reply has none.
func (r *Reply) Field(name string) []byte {
	_, fields, _ := bytes.Cut(r.Head, []byte("\r\n"))
	for len(fields) > 0 {
		var line []byte
		line, fields, _ = bytes.Cut(fields, []byte("\r\n"))
		if colon := bytes.IndexByte(line, ':'); colon == len(name) && isField(line, name) {
			return value(line, colon)
		}
	}
	return nil
}

// NewFleet is a fleet without connections to addr, a numeric host and port.
// RoomFor says beforehand whether the process may have so many.
func NewFleet(addr string) (*Fleet, error) {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make an epoll set: %w", err)
	}
	return &Fleet{addr: ap, epoll: epoll, buf: make([]byte, 64<<10)}, nil
}

// Join opens one more connection, whose number is the Len before, and sends
// its first request.
func (f *Fleet) Join(request []byte) error {
	i := len(f.members)
	fd, err := connect(f.addr)
	if err != nil {
		return fmt.Errorf("dial %s, connection %d: %w", f.addr, i, err)
	}
	f.members = append(f.members, member{fd: fd})
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}
	if err := unix.EpollCtl(f.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		return fmt.Errorf("watch a connection: %w", err)
	}
	return f.Send(i, request)
}

// Close closes all connections.
func (f *Fleet) Close() {
	for _, m := range f.members {
		_ = unix.Close(m.fd)
	}
	_ = unix.Close(f.epoll)
}

// Len is the number of connections.
func (f *Fleet) Len() int { return len(f.members) }

// Send sends a request on connection i, which has none open.
func (f *Fleet) Send(i int, request []byte) error {
	m := &f.members[i]
	if m.wait {
		return fmt.Errorf("connection %d waits for a reply already", i)
	}
	n, err := unix.Write(m.fd, request)
	if err == nil && n < len(request) {
		err = errors.New("short write")
	}
	if err != nil {
		return fmt.Errorf("connection %d: send: %w", i, err)
	}
	m.wait = true
	return nil
}

// Collect reads replies until done says so, which must be before limit is
// over; with no done, for the whole of limit. Each reply is handed to got, which
// returns the connection's next request, or nil; its error ends the run. After
// an error the fleet is good for nothing but Close.
func (f *Fleet) Collect(limit time.Duration, done func() bool, got func(i int, r Reply) (next []byte, err error)) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	events := make([]unix.EpollEvent, 512)
	for end := time.Now().Add(limit); done == nil || !done(); {
		left := time.Until(end)
		if left <= 0 && done == nil {
			return nil
		}
		if left <= 0 {
			return fmt.Errorf("wait for replies: they have not all come after %s", limit)
		}
		ready, err := unix.EpollWait(f.epoll, events, int(left/time.Millisecond)+1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("wait for replies: %w", err)
		}
		for _, event := range events[:ready] {
			i := int(event.Fd)
			if err := f.receive(i, got); err != nil {
				return fmt.Errorf("connection %d: %w", i, err)
			}
		}
	}
	return nil
}

// receive takes what connection i has, and hands it over once it is whole.
func (f *Fleet) receive(i int, got func(int, Reply) ([]byte, error)) error {
	m := &f.members[i]
	n, err := unix.Read(m.fd, f.buf)
	if err != nil {
		return again(err)
	}
	if !m.wait {
		return errors.New("server sent something, or closed the connection, unasked")
	}
	if n == 0 {
		return errors.New("server closed the connection before its reply was whole")
	}
	text := f.buf[:n]
	if m.part != nil {
		m.part = append(m.part, text...)
		text = m.part
	}
	r, whole, err := parseReply(text)
	if err != nil {
		return err
	}
	if !whole {
		if len(text) > maxReply {
			return fmt.Errorf("the reply is longer than %d bytes", maxReply)
		}
		if m.part == nil {
			m.part = bytes.Clone(text)
		}
		return nil
	}
	m.part, m.wait = nil, false
	r.At = time.Now()
	next, err := got(i, r)
	if err != nil || next == nil {
		return err
	}
	return f.Send(i, next)
}

// parseReply takes text for exactly one reply, whole or not yet.
func parseReply(text []byte) (r Reply, whole bool, err error) {
	h, err := parseHead(text)
	if err != nil || h.size == 0 {
		return r, false, err
	}
	length := h.length
	if h.status == 204 || h.status == 304 { // RFC 9110, 6.4.1: never a body
		length = 0
	}
	switch rest := int64(len(text) - h.size); {
	case length < 0:
		return r, false, fmt.Errorf("reply of status %d has no Content-Length", h.status)
	case rest < length:
		return r, false, nil
	case rest > length:
		return r, false, fmt.Errorf("%d bytes follow the reply", rest-length)
	}
	return Reply{Status: h.status, Head: text[:h.size], Body: text[h.size:]}, true, nil
}

// RoomFor raises the limit of open files of this process, and of those that it
// starts from now on, so that each may have n connections. What cannot be
// raised is an error that says what to do.
func RoomFor(n int) error {
	const besides = 200 // files that are open anyway
	want := uint64(n + besides)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	// Set even if it suffices: Go gives children the limit that this process
	// was started with, unless it was set since.
	next := unix.Rlimit{Cur: max(want, limit.Cur), Max: max(want, limit.Max)}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &next); err != nil {
		return fmt.Errorf("%d connections need %d open files and at most %d are allowed: raise the limit (ulimit -Hn %d, as root), or leave the section out: %w",
			n, want, limit.Max, want, err)
	}
	return nil
}
