package fleet

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// on runs work on a thread that is in the machine's network. Sockets keep the network they were
// made in, so that work's can be used from anywhere.
func (m *machine) on(work func() error) error {
	done := make(chan error, 1)
	go func() {
		done <- func() error {
			runtime.LockOSThread()
			own, err := os.Open("/proc/thread-self/ns/net")
			if err != nil {
				runtime.UnlockOSThread()
				return err
			}
			defer func() { _ = own.Close() }()
			other, err := os.Open(fmt.Sprintf("/proc/%d/root/run/netns/%s", m.space.outer, m.name))
			if err != nil {
				runtime.UnlockOSThread()
				return err
			}
			defer func() { _ = other.Close() }()
			if err := unix.Setns(int(other.Fd()), unix.CLONE_NEWNET); err != nil {
				runtime.UnlockOSThread()
				return fmt.Errorf("enter the network of %s: %w", m.name, err)
			}
			err = work()
			if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back != nil {
				return fmt.Errorf("leave the network of %s: %w", m.name, back) // the thread ends, still locked
			}
			runtime.UnlockOSThread()
			return err
		}()
	}()
	return <-done
}

// DialContext connects from the machine to host:port, where host is an address or a machine's name.
// It is the test that connects, on the machine's network.
func (m Machine) DialContext(ctx context.Context, _, address string) (conn net.Conn, err error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if a, ok := m.m.names[host]; ok {
		host = a
	}
	err = m.m.on(func() error {
		conn, err = (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp4", net.JoinHostPort(host, port))
		return err
	})
	return conn, err
}

// Listen listens on a port of the machine, for servers and proxies that are part of a test.
func (m Machine) Listen(port int) (listener net.Listener, err error) {
	return m.ListenAt(fmt.Sprintf("%s:%d", m.m.address, port))
}

// ListenAt is Listen at another address that the machine has.
func (m Machine) ListenAt(address string) (listener net.Listener, err error) {
	err = m.m.on(func() error {
		listener, err = net.Listen("tcp4", address)
		return err
	})
	return listener, err
}

// HTTP is a client on the machine's network; URLs have machines' names for hosts. It keeps no
// connection open and has no time-out.
func (m Machine) HTTP() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: m.DialContext, DisableKeepAlives: true}}
}

// Reach says what a TCP connection from the machine to host:port meets within two seconds: "open",
// "refused" (somebody is there), or "nobody".
func (m Machine) Reach(address string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	conn, err := m.DialContext(ctx, "tcp", address)
	switch {
	case err == nil:
		_ = conn.Close()
		return "open"
	case strings.Contains(err.Error(), "connection refused"):
		return "refused"
	default:
		return "nobody"
	}
}
