package fleet

import (
	"net"
	"strings"
	"sync"
)

// A resolver is a DNS server (RFC 1035) that knows one name, and answers the way it is told to.
type resolver struct {
	name    string
	address net.IP
	conn    net.PacketConn

	mu      sync.Mutex
	code    byte // of its answers
	queries map[string]int
}

// Codes of answers; silence is none.
const (
	noError  byte = 0
	servFail byte = 2
	silence  byte = 255
)

// newResolver answers on port 53 of a machine.
func newResolver(m Machine, name, address string) *resolver {
	m.T.Helper()
	r := &resolver{name: name, address: net.ParseIP(address).To4(), queries: map[string]int{}}
	err := m.m.on(func() (err error) {
		r.conn, err = net.ListenPacket("udp4", m.Address()+":53")
		return err
	})
	if err != nil {
		m.T.Fatal(err)
	}
	m.T.Cleanup(func() { _ = r.conn.Close() })
	go r.serve()
	return r
}

// answer makes it answer so from now on.
func (r *resolver) answer(code byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.code = code
}

// asked is how often a client has asked since the last time.
func (r *resolver) asked(client string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.queries[client]
	r.queries[client] = 0
	return n
}

func (r *resolver) serve() {
	buf := make([]byte, 1500)
	for {
		n, from, err := r.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		client, _, _ := net.SplitHostPort(from.String())
		r.mu.Lock()
		r.queries[client]++
		code := r.code
		r.mu.Unlock()
		if text := r.reply(buf[:n], code); text != nil && code != silence {
			_, _ = r.conn.WriteTo(text, from)
		}
	}
}

// reply is the answer to a query: its first question, and an address if that is what it asks for.
func (r *resolver) reply(query []byte, code byte) []byte {
	const header = 12
	end := header
	var labels []string
	for end < len(query) && query[end] != 0 {
		next := end + 1 + int(query[end])
		if next >= len(query) {
			return nil
		}
		labels = append(labels, string(query[end+1:next]))
		end = next
	}
	if end += 5; end > len(query) { // the root label, type and class
		return nil
	}
	kind := int(query[end-4])<<8 | int(query[end-3])
	known := strings.EqualFold(strings.Join(labels, "."), r.name)
	if code == noError && !known {
		code = 3 // there is no such name
	}
	out := append([]byte(nil), query[:end]...)
	out[2], out[3] = 0x80|query[2]&0x01, 0x80|code // a response; recursion as desired, and available
	copy(out[4:header], []byte{0, 1, 0, 0, 0, 0, 0, 0})
	if code == noError && kind == 1 {
		out[7] = 1
		out = append(out, 0xc0, header, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4) // the question's name, A, IN, for no time, four bytes
		out = append(out, r.address...)
	}
	return out
}
