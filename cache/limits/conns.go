package limits

import (
	"container/list"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Options of NewGate.
type Options struct {
	Total         int // connections at once
	PerAddress    int // of them, of one address (of IPv6 a /64) that have shown no credential
	PerCredential int // of them, of one credential
	// Trusted are proxies, which say in X-Forwarded-For for whom they ask. A unix socket
	// is one in any case.
	Trusted []netip.Prefix
	Log     *slog.Logger
}

// A Gate counts connections, also those that net/http does not see: parked polls, and what
// the fast path answers. One that makes room for a newer one is the oldest of its address
// that waits for something; when all are full it is one of the address that has most.
//
// A request of HTTP/2 counts as a connection, beside the one that it shares with others.
type Gate struct {
	o Options

	mu      sync.Mutex
	total   int
	groups  map[string]*group
	shown   map[*entry][]*x509.Certificate // of connections whose clients have shown one
	refused notice
	closed  notice
}

// group is the connections of an address without a credential, or of a credential.
type group struct {
	conns     list.List // of *entry, the oldest first
	anonymous bool
}

// entry is one connection, or a request of HTTP/2.
type entry struct {
	gate    *Gate
	address netip.Addr   // of the peer; not valid: of a unix socket
	trusted bool         // the peer is a proxy
	busy    atomic.Bool  // it has a request
	working atomic.Int32 // requests in their handlers
	parked  atomic.Int32 // those of them that wait for something
	outer   net.Conn     // as the server has it; nil: a request

	certified atomic.Bool // its client has shown a certificate

	authMu sync.Mutex
	auth   [2]string // the last credential, and whose it is

	// Guarded by gate.mu.
	in     *group
	name   string
	at     *list.Element
	ending bool // it was told to close
	left   bool // it is closed
}

// NewGate makes one.
func NewGate(o Options) *Gate {
	return &Gate{o: o, groups: make(map[string]*group), shown: make(map[*entry][]*x509.Certificate)}
}

// FromFiles is how many connections a process may have by the number of files that it may
// open: each may need a file for its answer.
func FromFiles() int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 512
	}
	return int(min(max((limit.Cur-min(limit.Cur, 64))*2/3, 16), 32768))
}

// Listener counts what l accepts.
func (g *Gate) Listener(l net.Listener) net.Listener { return &listener{l, g} }

type listener struct {
	net.Listener
	gate *Gate
}

// Accept implements net.Listener. It goes on where the process has no more files.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
			l.gate.full(err)
			continue
		}
		if err != nil {
			return nil, err
		}
		e := &entry{gate: l.gate}
		if tcp, ok := c.RemoteAddr().(*net.TCPAddr); ok {
			e.address = tcp.AddrPort().Addr().Unmap()
		}
		e.trusted = l.gate.trusts(e.address)
		switch k := c.(type) {
		case *net.TCPConn:
			e.outer = &tcpConn{k, e}
		case *net.UnixConn:
			e.outer = &unixConn{k, e}
		default:
			return c, nil
		}
		if l.gate.admit(e, "") {
			return e.outer, nil
		}
		refuse(c)
	}
}

// full makes room for files.
func (g *Gate) full(err error) {
	g.mu.Lock()
	var victim net.Conn
	if e := g.victim(nil); e != nil {
		e.ending, victim = true, e.outer
		e.leaveGroup()
	}
	g.refused.log(g.o.Log, "the process has no more files: connections wait; raise LimitNOFILE, or lower limits.connections", "error", err, "connections", g.total)
	g.mu.Unlock()
	end(victim)
	time.Sleep(20 * time.Millisecond)
}

// The connections embed those of package net, so that sendfile stays within reach.
type tcpConn struct {
	*net.TCPConn
	e *entry
}

func (c *tcpConn) limited() *entry { return c.e }

// Close implements net.Conn.
func (c *tcpConn) Close() error {
	c.e.leave()
	return c.TCPConn.Close()
}

type unixConn struct {
	*net.UnixConn
	e *entry
}

func (c *unixConn) limited() *entry { return c.e }

// Close implements net.Conn.
func (c *unixConn) Close() error {
	c.e.leave()
	return c.UnixConn.Close()
}

// entryOf is what is counted of a connection, nil if it did not come from a Listener.
func entryOf(c net.Conn) *entry {
	for {
		switch k := c.(type) {
		case interface{ limited() *entry }:
			return k.limited()
		case interface{ NetConn() net.Conn }:
			c = k.NetConn()
		default:
			return nil
		}
	}
}

type entryKey struct{}

// ConnContext is for an http.Server of a Listener.
func (g *Gate) ConnContext(ctx context.Context, c net.Conn) context.Context {
	if e := entryOf(c); e != nil {
		if _, ok := c.(*tls.Conn); !ok { // that one says goodbye to its client, who may take nothing
			g.mu.Lock()
			e.outer = c
			g.mu.Unlock()
		}
		return context.WithValue(ctx, entryKey{}, e)
	}
	return ctx
}

// idle reports whether a connection waits, with all of its requests.
func (e *entry) idle() bool {
	parked := e.parked.Load()
	return !e.busy.Load() || parked > 0 && parked == e.working.Load()
}

// ConnState is for an http.Server of a Listener. A connection without a request, or that
// is parked, may have to make room.
func (g *Gate) ConnState(c net.Conn, state http.ConnState) {
	if state == http.StateIdle {
		_ = c.SetWriteDeadline(time.Time{}) // of its last answer
	}
	if e := entryOf(c); e != nil {
		e.busy.Store(state == http.StateActive)
		if state == http.StateIdle && e.trusted {
			g.mu.Lock()
			e.leaveGroup() // its next request may be for another
			g.mu.Unlock()
		}
	}
}

// Park says that a request waits within net/http, until leave is called: its connection may
// have to make room meanwhile.
func Park(ctx context.Context) (leave func()) {
	e, ok := ctx.Value(entryKey{}).(*entry)
	if !ok {
		return func() {}
	}
	e.parked.Add(1)
	return func() { e.parked.Add(-1) }
}

func (g *Gate) trusts(a netip.Addr) bool {
	if !a.IsValid() {
		return true
	}
	for _, p := range g.o.Trusted {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// key is what an address counts as.
func key(a netip.Addr) string {
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.String()
		}
	}
	return a.String()
}

// Address is what a RemoteAddr counts as.
func Address(remote string) string {
	if a, err := netip.ParseAddrPort(remote); err == nil {
		return key(a.Addr().Unmap())
	}
	return remote
}

// admit counts a new connection, or a request of HTTP/2, unless it is one too many. Whoever shows a
// credential does not count for his address.
func (g *Gate) admit(e *entry, credential string) bool {
	g.mu.Lock()
	var victim net.Conn
	ok := true
	if !e.trusted && credential == "" {
		e.join("address "+key(e.address), true)
		if e.in.conns.Len() > g.o.PerAddress {
			victim, ok = g.makeRoom(e.in, "limits.connections_per_address", e)
		}
	}
	if ok && victim == nil && g.total >= g.o.Total {
		victim, ok = g.makeRoom(nil, "limits.connections", e)
	}
	if ok {
		g.total++
	} else {
		e.leaveGroup()
	}
	g.mu.Unlock()
	end(victim)
	return ok
}

// makeRoom finds a connection that makes room for e. It is for mu's holder.
func (g *Gate) makeRoom(in *group, limit string, e *entry) (outer net.Conn, ok bool) {
	// What was told to close may take a while, if it sends a file.
	victim := g.victim(in)
	if victim == nil || victim == e || g.total > g.o.Total+g.o.Total/20+4 {
		g.refused.log(g.o.Log, "connections were refused: all that there may be are at work", "limit", limit, "last_from", e.address.String(), "connections", g.total)
		return nil, false
	}
	g.closed.log(g.o.Log, "connections without a request were closed to make room for newer ones", "limit", limit, "last_of", victim.address.String(), "connections", g.total)
	victim.ending = true
	victim.leaveGroup()
	return victim.outer, true
}

// victim is the oldest connection of a group that waits for something, or of the largest
// group without a credential. It is for mu's holder.
func (g *Gate) victim(in *group) *entry {
	if in == nil {
		for _, other := range g.groups {
			if other.anonymous && (in == nil || other.conns.Len() > in.conns.Len()) {
				in = other
			}
		}
	}
	if in == nil {
		return nil
	}
	for at := in.conns.Front(); at != nil; at = at.Next() {
		if e, ok := at.Value.(*entry); ok && e.outer != nil && !e.ending && e.idle() {
			return e
		}
	}
	return nil
}

// end closes a connection, nil for none. Gate.mu is free: to close one is to leave.
func end(c net.Conn) {
	if c != nil {
		_ = c.Close() // it may be closed already
	}
}

// join is for gate.mu's holder.
func (e *entry) join(name string, anonymous bool) {
	if e.in != nil && e.name == name || e.ending || e.left {
		return
	}
	e.leaveGroup()
	in := e.gate.groups[name]
	if in == nil {
		in = &group{anonymous: anonymous}
		e.gate.groups[name] = in
	}
	e.in, e.name, e.at = in, name, in.conns.PushBack(e)
}

// leaveGroup is for gate.mu's holder.
func (e *entry) leaveGroup() {
	if e.in == nil {
		return
	}
	if e.in.conns.Remove(e.at); e.in.conns.Len() == 0 {
		delete(e.gate.groups, e.name)
	}
	e.in, e.at, e.name = nil, nil, ""
}

func (e *entry) leave() {
	e.gate.mu.Lock()
	defer e.gate.mu.Unlock()
	if !e.left {
		e.left = true
		delete(e.gate.shown, e)
		e.leaveGroup()
		e.gate.total--
	}
}

// show notes which certificate the client of a connection has shown, if any.
func (e *entry) show(state *tls.ConnectionState) {
	if state == nil || len(state.PeerCertificates) == 0 || e.certified.Swap(true) {
		return
	}
	e.gate.mu.Lock()
	defer e.gate.mu.Unlock()
	if !e.left {
		e.gate.shown[e] = state.PeerCertificates
	}
}

// EndShown closes the connections whose clients have shown a certificate that keep says no to, with
// all that is under way on them, parked or not, and says how many they were.
func (g *Gate) EndShown(keep func(chain []*x509.Certificate) bool) int {
	g.mu.Lock()
	shown := maps.Clone(g.shown)
	g.mu.Unlock()
	n := 0
	for e, chain := range shown {
		if !keep(chain) {
			g.mu.Lock()
			outer := e.outer
			g.mu.Unlock()
			end(outer)
			n++
		}
	}
	return n
}

// Connections is how many there are.
func (g *Gate) Connections() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.total
}

// notice is a line of the log that comes once in a while, with how often it was meant.
type notice struct {
	last  time.Time
	times int
}

const noticeEvery = 10 * time.Second

func (n *notice) log(log *slog.Logger, text string, args ...any) {
	n.times++
	if now := time.Now(); now.Sub(n.last) >= noticeEvery {
		log.Warn(text, append([]any{"times", n.times}, args...)...)
		n.last, n.times = now, 0
	}
}

// words are what one is told for whom there is no room.
const words = "this server has as many connections as it may have: try again in a moment\n"

// refuse tells a client in words; what he has sent is not read.
func refuse(c net.Conn) {
	_ = c.SetDeadline(time.Now().Add(time.Second)) // it is closed either way
	_, _ = fmt.Fprintf(c, "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 5\r\nAccept-Ranges: bytes\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n\r\n%s", len(words), words)
	_ = c.Close()
}
