package e2e

import (
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// A Direction is that of bytes through a Proxy.
type Direction int

// Down is from the server to the client, Up from the client to the server.
const (
	Down Direction = iota
	Up
)

// A Proxy forwards TCP connections to a server and does to them what networks do.
type Proxy struct {
	listener net.Listener
	target   string
	wg       sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]bool
	bytes  [2]int64
	pieces [2]int64
	faults []*fault
	delay  time.Duration
	thaw   chan struct{} // closed when it forwards again; nil: it does
}

// A fault strikes a connection once it carried `after` bytes in one direction, `times` times.
type fault struct {
	dir   Direction
	after int64
	times int
	stall bool // keep the connection open and forward nothing more; otherwise reset it
}

// NewProxy starts a proxy before target, host:port or a unix socket. It ends with the test.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{listener: ln, target: target, conns: map[net.Conn]bool{}}
	p.wg.Add(1)
	go p.accept()
	t.Cleanup(func() {
		_ = ln.Close()
		p.Freeze(false)
		p.CloseAll()
		p.wg.Wait()
	})
	return p
}

// URL is the base to give to a client.
func (p *Proxy) URL() string { return "http://" + p.Addr() }

// Addr is host:port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Cut resets the next `times` connections that carried `after` bytes in a direction.
func (p *Proxy) Cut(dir Direction, after int64, times int) {
	p.add(&fault{dir: dir, after: after, times: times})
}

// Stall stops forwarding in a direction on the next `times` connections that carried `after` bytes,
// without closing them.
func (p *Proxy) Stall(dir Direction, after int64, times int) {
	p.add(&fault{dir: dir, after: after, times: times, stall: true})
}

// Delay holds back every piece of data that long, in both directions.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Freeze has nothing come through any more, in either direction and without a word, as when packets are
// dropped on the way; or lets all go on.
func (p *Proxy) Freeze(freeze bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case freeze && p.thaw == nil:
		p.thaw = make(chan struct{})
	case !freeze && p.thaw != nil:
		close(p.thaw)
		p.thaw = nil
	}
}

// pass waits while nothing comes through.
func (p *Proxy) pass() {
	p.mu.Lock()
	thaw := p.thaw
	p.mu.Unlock()
	if thaw != nil {
		<-thaw
	}
}

func (p *Proxy) add(f *fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = append(p.faults, f)
}

// Bytes is how much went through in a direction.
func (p *Proxy) Bytes(dir Direction) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bytes[dir]
}

// Pieces is how many pieces of data went through in a direction: of a client that waits for each answer, how often
// it asked.
func (p *Proxy) Pieces(dir Direction) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pieces[dir]
}

// Left is how many faults have not struck yet.
func (p *Proxy) Left() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, f := range p.faults {
		n += f.times
	}
	return n
}

// CloseAll resets every open connection.
func (p *Proxy) CloseAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		reset(c)
	}
}

func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

func (p *Proxy) accept() {
	defer p.wg.Done()
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.pass()
		network := "tcp"
		if strings.HasPrefix(p.target, "/") {
			network = "unix"
		}
		server, err := net.Dial(network, p.target)
		if err != nil {
			reset(client)
			continue
		}
		p.mu.Lock()
		p.conns[client], p.conns[server] = true, true
		p.mu.Unlock()
		p.wg.Add(2)
		pair := &pair{client: client, server: server}
		go p.forward(pair, Up, server, client)
		go p.forward(pair, Down, client, server)
	}
}

// A pair is one proxied connection.
type pair struct {
	client, server net.Conn
	mu             sync.Mutex
	done           int
}

// finish is called by each direction; the second closes both ends.
func (p *Proxy) finish(c *pair) {
	c.mu.Lock()
	c.done++
	last := c.done == 2
	c.mu.Unlock()
	if last {
		_ = c.client.Close()
		_ = c.server.Close()
		p.mu.Lock()
		delete(p.conns, c.client)
		delete(p.conns, c.server)
		p.mu.Unlock()
	}
}

func (p *Proxy) forward(c *pair, dir Direction, to, from net.Conn) {
	defer p.wg.Done()
	defer p.finish(c)
	buf := make([]byte, 32<<10)
	var carried int64
	for {
		n, err := from.Read(buf)
		if n > 0 {
			allowed, struck, delay := p.account(dir, carried, n)
			if delay > 0 {
				time.Sleep(delay)
			}
			p.pass()
			if _, werr := to.Write(buf[:allowed]); werr != nil {
				reset(from)
				return
			}
			carried += int64(allowed)
			switch {
			case struck != nil && struck.stall:
				c.hold()
				return
			case struck != nil:
				reset(c.client)
				reset(c.server)
				return
			}
		}
		if err != nil {
			// The other direction goes on: a client may close its sending side and wait.
			if half, ok := to.(interface{ CloseWrite() error }); ok {
				_ = half.CloseWrite()
			}
			return
		}
	}
}

// account says how many of n further bytes may pass on a connection that carried some already, and
// which fault strikes after them.
func (p *Proxy) account(dir Direction, carried int64, n int) (allowed int, struck *fault, delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	allowed = n
	for _, f := range p.faults {
		if f.times > 0 && f.dir == dir && carried+int64(n) >= f.after {
			allowed = int(max(0, f.after-carried))
			f.times--
			struck = f
			break
		}
	}
	p.bytes[dir] += int64(allowed)
	p.pieces[dir]++
	return allowed, struck, p.delay
}

// hold forwards nothing more until the other direction has ended.
func (c *pair) hold() {
	for {
		c.mu.Lock()
		ended := c.done > 0
		c.mu.Unlock()
		if ended {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}
