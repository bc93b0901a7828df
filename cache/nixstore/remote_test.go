package nixstore

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"testing"
)

// Without a database it is the daemon that is asked, and its states cannot be told apart.
func TestByDaemon(t *testing.T) {
	socket := shortDir(t) + "/socket"
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			var hello []byte // "dxio", version 1.21, and that the answer follows
			for _, n := range []uint64{0x6478696f, 1<<8 | 21, 0x616c7473} {
				hello = binary.LittleEndian.AppendUint64(hello, n)
			}
			_, _ = c.Write(hello)
			defer c.Close()
		}
	}()
	s, err := Open(Options{StateDir: "/nonexistent/state", DaemonSocket: socket})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	v1, err1 := s.Version(context.Background())
	v2, err2 := s.Version(context.Background())
	if v1 == v2 || err1 != nil || err2 != nil || s.Still(v2) {
		t.Errorf("versions %v, %v, %v, %v", v1, v2, err1, err2)
	}
	if s.Backend() != "daemon" {
		t.Error(s.Backend())
	}
}

func TestNeitherWay(t *testing.T) {
	_, err := Open(Options{StateDir: "/nonexistent/state", DaemonSocket: "/nonexistent/socket"})
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "nix-daemon does not answer on /nonexistent/socket: there is no such socket: start nix-daemon") {
		t.Error(err)
	}
}
