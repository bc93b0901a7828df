// Package daemon asks nix-daemon about the paths of its store, in Nix's worker protocol from
// version 1.21 (Nix 2.1) on. It only asks. Idle connections, each of which is a process of the
// daemon's, are closed within twenty seconds.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"narwharf/narinfo"
)

const (
	idleTime = 10 * time.Second // then a connection, and the daemon's process for it, goes
	maxIdle  = 2                // connections kept
)

// ErrNoAnswer is for a daemon that cannot be reached or does not answer as one.
var ErrNoAnswer = errors.New("nix-daemon does not answer")

// Client asks nix-daemon, which has a process for each connection. Connections
// are kept for a while: a new one costs as much as a hundred questions.
type Client struct {
	Socket   string
	Newest   uint64 // minor version to offer
	storeDir string
	timeout  time.Duration

	mu     sync.Mutex
	idle   []*session // the latest used is the last
	timer  *time.Timer
	closed bool
}

// session is one connection, for one user at a time.
type session struct {
	conn  net.Conn
	wire  *wire
	minor uint64
	used  time.Time
}

// New gives a client of the daemon behind a socket, for the paths of storeDir. timeout is the
// longest that it waits for one answer. Nothing is dialled yet.
func New(socket, storeDir string, timeout time.Duration) *Client {
	return &Client{Socket: socket, Newest: newestMinor, storeDir: storeDir, timeout: timeout}
}

// Ping sees whether the daemon can be spoken to.
func (d *Client) Ping(ctx context.Context) error {
	return d.with(ctx, func(*session) error { return nil })
}

// Info is what Nix knows about p; ErrNotValid if nothing.
func (d *Client) Info(ctx context.Context, p narinfo.Path) (i *PathInfo, err error) {
	err = d.with(ctx, func(c *session) (err error) {
		i, err = d.query(ctx, c, p)
		return err
	})
	return i, err
}

// InfoByHash is Info for the one path whose name starts with hashPart.
func (d *Client) InfoByHash(ctx context.Context, hashPart string) (*PathInfo, error) {
	var p narinfo.Path
	err := d.with(ctx, func(c *session) (err error) {
		return c.do(ctx, d.timeout, func() error {
			p, err = c.wire.pathByHash(c.minor, d.storeDir, hashPart)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return d.Info(ctx, p)
}

// Closure is the Info of roots and of everything they refer to, sorted by path.
func (d *Client) Closure(ctx context.Context, roots ...narinfo.Path) (all []*narinfo.Info, err error) {
	err = d.with(ctx, func(c *session) error {
		all = nil
		seen := map[narinfo.Path]narinfo.Path{} // to who refers to it
		var todo []narinfo.Path
		add := func(ps []narinfo.Path, from narinfo.Path) {
			for _, p := range ps {
				if _, ok := seen[p]; !ok {
					seen[p] = from
					todo = append(todo, p)
				}
			}
		}
		add(roots, "")
		for len(todo) > 0 {
			p := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			i, err := d.query(ctx, c, p)
			if errors.Is(err, ErrNotValid) {
				err = fmt.Errorf("%s %w", p.In(d.storeDir), ErrNotValid)
				if from := seen[p]; from != "" {
					err = fmt.Errorf("%w any more, and %s refers to it", err, from.In(d.storeDir))
				}
			}
			if err != nil {
				return err
			}
			all = append(all, i.Info)
			add(i.References, p)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	Sort(all)
	return all, nil
}

func (d *Client) query(ctx context.Context, c *session, p narinfo.Path) (i *PathInfo, err error) {
	err = c.do(ctx, d.timeout, func() error {
		i, err = c.wire.pathInfo(c.minor, d.storeDir, p)
		return err
	})
	return i, err
}

// with runs f with a connection of its own, an idle one or a new one. An idle
// one may be dead, because the daemon was started anew: then f runs a second
// time.
func (d *Client) with(ctx context.Context, f func(*session) error) (err error) {
	c := d.take()
	idle := c != nil
	if !idle {
		if c, err = d.dial(ctx); err != nil {
			return err
		}
	}
	err = f(c)
	if c.wire.err == nil {
		d.put(c)
		return err
	}
	_ = c.conn.Close()
	switch {
	case final(ctx, err):
		return err
	case idle && !isTimeout(c.wire.err):
		return d.with(ctx, f)
	}
	return fmt.Errorf("%w on %s: %w", ErrNoAnswer, d.Socket, err)
}

// final reports whether err, on a connection that is given up, is the answer
// all the same: the daemon said no, or nobody wants to know any more.
func final(ctx context.Context, err error) bool {
	var said *daemonSaid
	return err == nil || errors.As(err, &said) || ctx.Err() != nil
}

func (d *Client) dial(ctx context.Context) (*session, error) {
	limit, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(limit, "unix", d.Socket)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%w on %s: %w", ErrNoAnswer, d.Socket, dialWords(d.Socket, err))
	}
	c := &session{conn: conn, wire: newWire(conn)}
	err = c.do(ctx, d.timeout, func() (err error) {
		c.minor, err = c.wire.hello(d.Newest)
		return err
	})
	if err != nil {
		_ = conn.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%w on %s: %w", ErrNoAnswer, d.Socket, helloWords(err))
	}
	return c, nil
}

// do runs one exchange and ends it when ctx ends or the daemon takes too long.
func (c *session) do(ctx context.Context, timeout time.Duration, exchange func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	_ = c.conn.SetDeadline(time.Now().Add(timeout))
	stop := context.AfterFunc(ctx, func() {
		_ = c.conn.SetDeadline(time.Unix(1, 0))
	})
	err := exchange()
	if !stop() && c.wire.err == nil {
		c.wire.fail(ctx.Err()) // the deadline may be set at any time now
	}
	switch {
	case c.wire.err != nil && ctx.Err() != nil:
		return ctx.Err()
	case isTimeout(err):
		return fmt.Errorf("no answer for %s", timeout)
	}
	return err
}

func (d *Client) take() *session {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := len(d.idle)
	if n == 0 {
		return nil
	}
	c := d.idle[n-1]
	d.idle = d.idle[:n-1]
	return c
}

func (d *Client) put(c *session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		_ = c.conn.Close()
		return
	}
	c.used = time.Now()
	d.idle = append(d.idle, c)
	if len(d.idle) > maxIdle {
		_ = d.idle[0].conn.Close()
		d.idle = append(d.idle[:0], d.idle[1:]...)
	}
	if d.timer == nil {
		d.timer = time.AfterFunc(idleTime, d.sweep)
	}
}

// sweep closes what has been idle for long and comes again while there is more.
func (d *Client) sweep() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.idle) > 0 && time.Since(d.idle[0].used) >= idleTime {
		_ = d.idle[0].conn.Close()
		d.idle = append(d.idle[:0], d.idle[1:]...)
	}
	d.timer = nil
	if len(d.idle) > 0 {
		d.timer = time.AfterFunc(idleTime, d.sweep)
	}
}

// Close closes the connections that are idle; others go when they are not needed.
func (d *Client) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	for _, c := range d.idle {
		_ = c.conn.Close()
	}
	d.idle = nil
	if d.timer != nil {
		d.timer.Stop()
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// dialWords says what a failed connect means.
func dialWords(socket string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOENT):
		return errors.New("there is no such socket")
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("nobody listens on it")
	case errors.Is(err, syscall.EACCES):
		return errors.New("this user may not connect to it")
	case errors.Is(err, syscall.EINVAL) && len(socket) > 107:
		return errors.New("its path is longer than the 107 bytes that a socket can have")
	case isTimeout(err):
		return errors.New("it does not accept connections")
	}
	return err
}

// helloWords says what a failed handshake means. Nix closes the connection of
// a user who is not among allowed-users without a word.
func helloWords(err error) error {
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("it closed the connection at once; is this user among allowed-users in nix.conf?")
	}
	return err
}

// Root keeps p from the garbage collector, also from one at work, while link is called,
// and then for as long as there is the symbolic link to p that it has made at name.
func (d *Client) Root(ctx context.Context, p narinfo.Path, name string, link func() error) error {
	return d.with(ctx, func(c *session) error {
		add := func(op uint64, arg string) error {
			return c.do(ctx, d.timeout, func() error {
				c.wire.putNumber(op)
				c.wire.putText(arg)
				c.wire.flush()
				c.wire.work(c.minor)
				c.wire.number() // 1
				return c.wire.err
			})
		}
		err := add(opAddTempRoot, p.In(d.storeDir))
		if err == nil {
			err = link()
		}
		if err == nil {
			err = add(opAddIndirectRoot, name)
		}
		return err
	})
}
