package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"narwharf/narinfo"
)

// fakeDaemon is the other end of the worker protocol, for versions and
// misbehaviour that no real daemon at hand has.
type fakeDaemon struct {
	t       *testing.T
	minor   uint64
	socket  string
	listen  net.Listener
	dialled atomic.Int32
	asked   atomic.Int32

	mu    sync.Mutex
	roots []string // operations on roots, in order
	infos map[narinfo.Path]*PathInfo
	conns []net.Conn
	// before is called before each answer and may take its place.
	before func(x *wire, conn net.Conn) (done bool)
	// narHash prints the hash as this daemon does.
	narHash func(h narinfo.Hash) string
}

func newFakeDaemon(t *testing.T, minor uint64, infos ...*PathInfo) *fakeDaemon {
	t.Helper()
	f := &fakeDaemon{t: t, minor: minor, socket: shortDir(t) + "/socket", infos: map[narinfo.Path]*PathInfo{},
		narHash: func(h narinfo.Hash) string { return fmt.Sprintf("%x", h[:]) }}
	for _, i := range infos {
		f.infos[i.Path] = i
	}
	f.start()
	t.Cleanup(f.stop)
	return f
}

func (f *fakeDaemon) start() {
	f.t.Helper()
	l, err := net.Listen("unix", f.socket)
	if err != nil {
		f.t.Fatal(err)
	}
	f.listen = l
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.dialled.Add(1)
			f.mu.Lock()
			f.conns = append(f.conns, c)
			f.mu.Unlock()
			go f.serve(c)
		}
	}()
}

func (f *fakeDaemon) stop() {
	_ = f.listen.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns {
		_ = c.Close()
	}
	f.conns = nil
}

// client is one of this daemon.
func (f *fakeDaemon) client() *Client {
	f.t.Helper()
	c := New(f.socket, "/nix/store", 2*time.Second)
	f.t.Cleanup(c.Close)
	if err := c.Ping(context.Background()); err != nil { // it leaves an idle connection
		f.t.Fatal(err)
	}
	return c
}

func (f *fakeDaemon) set(i *PathInfo) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.infos[i.Path] = i
}

func (f *fakeDaemon) serve(c net.Conn) {
	defer c.Close()
	x := newWire(c)
	if x.number() != clientMagic {
		return
	}
	x.putNumber(daemonMagic)
	x.putNumber(1<<8 | f.minor)
	x.flush()
	minor := min(x.number()&0xff, f.minor)
	if minor >= 38 {
		if len(x.texts()) > 0 {
			x.fail(errors.New("the client has features"))
		}
		x.putNumber(2)
		x.putText("one-feature")
		x.putText("another")
		x.flush()
	}
	x.number()
	x.number()
	if minor >= 33 {
		x.putText("2.99 of the tests")
	}
	if minor >= 35 {
		x.putNumber(2)
	}
	x.putNumber(msgLast)
	x.flush()
	for x.err == nil {
		op := x.number()
		arg := x.text()
		if x.err != nil {
			return
		}
		f.asked.Add(1)
		f.mu.Lock()
		before := f.before
		f.mu.Unlock()
		if before != nil && before(x, c) {
			x.flush()
			continue
		}
		f.answer(x, minor, op, arg)
		x.flush()
	}
}

func (f *fakeDaemon) answer(x *wire, minor, op uint64, arg string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch op {
	case opQueryPathInfo:
		p, err := narinfo.ParsePath("/nix/store", arg)
		if err != nil {
			f.say(x, minor, "\x1b[31;1merror:\x1b[0m path '"+arg+"'\n  is not in the Nix store")
			return
		}
		i := f.infos[p]
		f.chatter(x)
		x.putNumber(msgLast)
		if i == nil {
			x.putNumber(0)
			return
		}
		x.putNumber(1)
		if i.Deriver != "" {
			x.putText(i.Deriver.In("/nix/store"))
		} else {
			x.putText("")
		}
		x.putText(f.narHash(i.NarHash))
		x.putNumber(uint64(len(i.References)))
		for _, r := range slices.Backward(i.References) {
			x.putText(r.In("/nix/store"))
		}
		x.putNumber(uint64(i.Registered.Unix()))
		x.putNumber(uint64(i.NarSize))
		if i.Ultimate {
			x.putNumber(1)
		} else {
			x.putNumber(0)
		}
		x.putNumber(uint64(len(i.Sigs)))
		for _, s := range i.Sigs {
			x.putText(s)
		}
		x.putText(i.CA)
	case opQueryPathFromHashPart:
		x.putNumber(msgLast)
		for p := range f.infos {
			if p.Hash() == arg {
				x.putText(p.In("/nix/store"))
				return
			}
		}
		x.putText("")
	case opAddTempRoot, opAddIndirectRoot:
		f.roots = append(f.roots, fmt.Sprint(op, " ", arg))
		f.chatter(x)
		x.putNumber(msgLast)
		x.putNumber(1)
	default:
		f.t.Errorf("the client sent operation %d", op)
	}
}

// chatter is one of each message of a daemon's log.
func (f *fakeDaemon) chatter(x *wire) {
	x.putNumber(msgNext)
	x.putText("a line of the log\n")
	x.putNumber(msgStartActivity)
	for n := range uint64(3) {
		x.putNumber(n)
	}
	x.putText("doing")
	fields := func() {
		x.putNumber(2)
		x.putNumber(0)
		x.putNumber(77)
		x.putNumber(1)
		x.putText("field")
	}
	fields()
	x.putNumber(0)
	x.putNumber(msgResult)
	x.putNumber(0)
	x.putNumber(101)
	fields()
	x.putNumber(msgStopActivity)
	x.putNumber(0)
}

// say sends an error in the way of the version.
func (f *fakeDaemon) say(x *wire, minor uint64, message string) {
	x.putNumber(msgError)
	if minor < 26 {
		x.putText(message)
		x.putNumber(1)
		return
	}
	x.putText("Error")
	x.putNumber(0)
	x.putText("")
	x.putText(message)
	x.putNumber(0)
	x.putNumber(1)
	x.putNumber(0)
	x.putText("while testing")
}
