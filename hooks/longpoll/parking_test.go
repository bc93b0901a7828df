package longpoll

import (
	"io"
	"net"
	"strings"
	"testing"
)

// TestConnIsTransparent: net/http finds sendfile and the half-closing of a
// connection that was parked.
func TestConnIsTransparent(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	out, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	c := &conn{Conn: in, early: []byte("early")}
	if n, err := c.ReadFrom(strings.NewReader("text")); n != 4 || err != nil {
		t.Errorf("ReadFrom: %d, %v", n, err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Error(err)
	}
	if text, err := io.ReadAll(out); string(text) != "text" || err != nil {
		t.Errorf("the other end has %q, %v", text, err)
	}
	_, _ = io.WriteString(out, " late")
	_ = out.Close()
	if text, err := io.ReadAll(c); string(text) != "early late" || err != nil {
		t.Errorf("read %q, %v", text, err)
	}
	// Of a connection that can do neither.
	a, b := net.Pipe()
	defer a.Close()
	go func() {
		_, _ = io.ReadAll(b)
		_ = b.Close()
	}()
	c = &conn{Conn: a}
	if n, err := c.ReadFrom(strings.NewReader("text")); n != 4 || err != nil {
		t.Errorf("ReadFrom: %d, %v", n, err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Error(err)
	}
}
