package fleet

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// serveTLS serves the server as https://<name> on its own machine, and returns the private authority.
func serveTLS(f *Fleet, name string) string {
	f.T.Helper()
	certificate, authority := privateCA(f.T, name)
	listener, err := f.Server().Listen(443)
	if err != nil {
		f.T.Fatal(err)
	}
	back := &url.URL{Scheme: "http", Host: serverName}
	server := &http.Server{
		Handler: &httputil.ReverseProxy{
			Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(back) },
			Transport: &http.Transport{DialContext: f.Server().DialContext},
			ErrorLog:  log.New(io.Discard, "", 0),
		},
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}}, ErrorLog: log.New(io.Discard, "", 0),
	}
	go func() { _ = server.ServeTLS(listener, "", "") }()
	f.T.Cleanup(func() { _ = server.Close() })
	return authority
}

// A tunnelled is a connection that went through a proxy.
type tunnelled struct {
	host string // address of the client
	nix  bool   // it was the agent for Nix that asked
	to   string
	at   time.Time
}

// A tunnel is an HTTPS proxy: CONNECT and nothing else, with a password. It alone knows where its one
// name is.
type tunnel struct {
	address, credentials, name, to string

	machine  Machine
	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]bool
	seen     []tunnelled
	refused  []string
	bytes    map[string]int64 // that went to each client, since the last look
	nix      map[string]int64 // those of them that went to its Nix, since the last hold
	limit    int64            // after which Nix's are held; 0: never
	held     map[string]bool
	let      chan struct{} // closed when what is held goes on, or ends
}

// newTunnel opens a proxy on a machine, which leads name:443 to an address.
func newTunnel(m Machine, port int, credentials, name, to string) *tunnel {
	m.T.Helper()
	p := &tunnel{
		address: fmt.Sprintf("%s:%d", m.Address(), port), credentials: credentials, name: name, to: to, machine: m,
		conns: map[net.Conn]bool{}, bytes: map[string]int64{}, nix: map[string]int64{}, held: map[string]bool{}, let: make(chan struct{}),
	}
	p.comeBack(m.T, port)
	m.T.Cleanup(p.goAway)
	return p
}

// comeBack listens, again or for the first time.
func (p *tunnel) comeBack(t testing.TB, port int) {
	t.Helper()
	listener, err := p.machine.Listen(port)
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	p.listener = listener
	p.mu.Unlock()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go p.serve(conn)
		}
	}()
}

// goAway ends every connection, and takes no other.
func (p *tunnel) goAway() {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.listener.Close()
	for c := range p.conns {
		_ = c.Close()
	}
	p.letGo()
}

// letGo is for p.mu's holder.
func (p *tunnel) letGo() {
	p.limit = 0
	clear(p.held)
	close(p.let)
	p.let = make(chan struct{})
}

// hold stops what goes to each client's Nix after so many bytes.
func (p *tunnel) hold(limit int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limit = limit
	clear(p.nix)
}

// holds tells whether the downloads of all these clients stand still.
func (p *tunnel) holds(clients ...string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range clients {
		if !p.held[c] {
			return fmt.Errorf("%s has %d bytes", c, p.nix[c])
		}
	}
	return nil
}

// look is what went through since the last look: the connections, those that were refused, and the
// bytes to each client.
func (p *tunnel) look() (seen []tunnelled, refused []string, bytes map[string]int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen, refused, bytes = p.seen, p.refused, p.bytes
	p.seen, p.refused, p.bytes = nil, nil, map[string]int64{}
	return seen, refused, bytes
}

// of counts a client's connections: its agent's and its Nix's.
func of(seen []tunnelled, client string) (agent, nix int) {
	for _, c := range seen {
		switch {
		case c.host != client:
		case c.nix:
			nix++
		default:
			agent++
		}
	}
	return agent, nix
}

func (p *tunnel) keep(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[c] = true
}

func (p *tunnel) drop(c net.Conn) {
	_ = c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

func (p *tunnel) serve(in net.Conn) {
	p.keep(in)
	defer p.drop(in)
	reader := bufio.NewReader(in)
	r, err := http.ReadRequest(reader)
	if err != nil {
		return
	}
	host, _, _ := net.SplitHostPort(in.RemoteAddr().String())
	status := http.StatusOK
	switch {
	case r.Header.Get("Proxy-Authorization") != "Basic "+base64.StdEncoding.EncodeToString([]byte(p.credentials)):
		status = http.StatusProxyAuthRequired
	case r.Method != http.MethodConnect || r.Host != p.name+":443":
		status = http.StatusForbidden
	}
	p.mu.Lock()
	c := tunnelled{host: host, nix: strings.Contains(r.UserAgent(), "relay"), to: r.Host, at: time.Now()}
	if status == http.StatusOK {
		p.seen = append(p.seen, c)
	} else {
		p.refused = append(p.refused, fmt.Sprintf("%s %s by %s (%s): %d", r.Method, r.Host, host, r.UserAgent(), status))
	}
	p.mu.Unlock()
	if status != http.StatusOK {
		_, _ = fmt.Fprintf(in, "HTTP/1.1 %d %s\r\nProxy-Authenticate: Basic realm=\"proxy\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", status, http.StatusText(status))
		return
	}
	out, err := p.machine.DialContext(context.Background(), "tcp", p.to)
	if err != nil {
		_, _ = io.WriteString(in, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		return
	}
	p.keep(out)
	defer p.drop(out)
	_, _ = io.WriteString(in, "HTTP/1.1 200 Connection established\r\n\r\n")
	go func() {
		_, _ = io.Copy(out, reader)
		_ = out.Close()
	}()
	_, _ = io.Copy(&counted{in, p, host, c.nix}, out)
}

// counted counts what goes to a client, and holds up its Nix.
type counted struct {
	net.Conn
	p      *tunnel
	client string
	nix    bool
}

func (c *counted) Write(b []byte) (int, error) {
	p := c.p
	p.mu.Lock()
	p.bytes[c.client] += int64(len(b))
	let, wait := p.let, false
	if c.nix {
		p.nix[c.client] += int64(len(b))
		wait = p.limit > 0 && p.nix[c.client] > p.limit
	}
	if wait {
		p.held[c.client] = true
	}
	p.mu.Unlock()
	if wait {
		<-let
	}
	return c.Conn.Write(b)
}
