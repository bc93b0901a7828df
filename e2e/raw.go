package e2e

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A Raw is one TCP connection on which a test writes HTTP by hand.
type Raw struct {
	T    testing.TB
	Conn net.Conn
	r    *bufio.Reader
}

// DialRaw connects to host:port. Reads and writes fail after a minute.
func DialRaw(t testing.TB, addr string) *Raw {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	t.Cleanup(func() { _ = conn.Close() })
	return &Raw{T: t, Conn: conn, r: bufio.NewReader(conn)}
}

// Send writes text; "\n" stands for CRLF.
func (r *Raw) Send(text string) {
	r.T.Helper()
	r.SendBytes([]byte(strings.ReplaceAll(text, "\n", "\r\n")))
}

// SendBytes writes bytes as they are.
func (r *Raw) SendBytes(b []byte) {
	r.T.Helper()
	if _, err := r.Conn.Write(b); err != nil {
		r.T.Fatalf("write to the server: %v", err)
	}
}

// Answer reads one final answer to a request of a method; interim reports whether a 100 came first.
// A connection that ends within the body is an error of the test.
func (r *Raw) Answer(method string) (reply Reply, interim bool) {
	r.T.Helper()
	for {
		res, err := http.ReadResponse(r.r, &http.Request{Method: method})
		if err != nil {
			r.T.Fatalf("read an answer: %v", err)
		}
		if res.StatusCode == http.StatusContinue {
			interim = true
			continue
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil {
			r.T.Fatalf("read the body of an answer: %v", err)
		}
		return Reply{Request: method, Status: res.StatusCode, Header: res.Header, Body: string(body)}, interim
	}
}

// Ask sends a GET or HEAD with further header lines on a connection of its own.
func Ask(t testing.TB, addr, method, path string, header ...string) Reply {
	t.Helper()
	r := DialRaw(t, addr)
	r.Send(method + " " + path + " HTTP/1.1\nHost: " + addr + "\nConnection: close\n")
	for _, h := range header {
		r.Send(h + "\n")
	}
	r.Send("\n")
	reply, _ := r.Answer(method)
	reply.Request = method + " " + path + " " + strings.Join(header, "; ")
	return reply
}

// unixTransport sends every request to a unix socket.
func unixTransport(socket string) *http.Transport {
	var d net.Dialer
	return &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return d.DialContext(ctx, "unix", socket)
	}}
}
