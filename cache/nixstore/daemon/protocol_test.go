package daemon

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"narwharf/narinfo"
)

func TestProtocolVersions(t *testing.T) {
	all := oddities("/nix/store")
	for _, minor := range []uint64{21, 25, 26, 32, 33, 34, 35, 37, 38, 39, 255} {
		f := newFakeDaemon(t, minor, all...)
		s := f.client()
		for _, want := range all {
			same(t, mustInfo(t, s, want.Path), want)
			i, err := s.InfoByHash(context.Background(), want.Path.Hash())
			if err != nil || !reflect.DeepEqual(i.Info, want.Info) {
				t.Errorf("1.%d: by hash %+v, %v", minor, i, err)
			}
		}
		gone := pathInfo("/nix/store", "gone").Path
		if _, err := s.Info(context.Background(), gone); !errors.Is(err, ErrNotValid) {
			t.Errorf("1.%d: %v", minor, err)
		}
		if _, err := s.InfoByHash(context.Background(), gone.Hash()); !errors.Is(err, ErrNotValid) {
			t.Errorf("1.%d: %v", minor, err)
		}
		s.storeDir = "/another/store"
		_, err := s.Info(context.Background(), gone)
		if want := "nix-daemon says: error: path '/another/store/" + string(gone) + "' is not in the Nix store"; err == nil || !strings.HasSuffix(err.Error(), want) || errors.Is(err, ErrNoAnswer) {
			t.Errorf("1.%d: %v", minor, err)
		}
	}
}

func TestDaemonHashForms(t *testing.T) {
	i := pathInfo("/nix/store", "x")
	i.References = nil
	f := newFakeDaemon(t, 38, i)
	s := f.client()
	for _, form := range []func(narinfo.Hash) string{
		narinfo.Hash.Base32, narinfo.Hash.String,
		func(h narinfo.Hash) string { return "sha256-" + base64.StdEncoding.EncodeToString(h[:]) },
		func(h narinfo.Hash) string { return fmt.Sprintf("sha256:%x", h[:]) },
	} {
		f.mu.Lock()
		f.narHash = form
		f.mu.Unlock()
		same(t, mustInfo(t, s, i.Path), i)
	}
	f.mu.Lock()
	f.narHash = func(narinfo.Hash) string { return "md5:x" }
	f.mu.Unlock()
	if _, err := s.Info(context.Background(), i.Path); err == nil || !strings.Contains(err.Error(), `makes no sense: hash "md5:x"`) {
		t.Error(err)
	}
}

// answering is a daemon that sends what it is told, whatever it is asked.
func answering(t *testing.T, reply []byte) string {
	t.Helper()
	socket := shortDir(t) + "/socket"
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write(reply)
			_ = c.(*net.UnixConn).CloseWrite()
			_, _ = io.Copy(io.Discard, c)
			_ = c.Close()
		}
	}()
	return socket
}

// sent is what put writes.
func sent(put func(x *wire)) []byte {
	var b bytes.Buffer
	x := newWire(&b)
	put(x)
	x.flush()
	return b.Bytes()
}

func TestNotADaemon(t *testing.T) {
	hello := func(version uint64) []byte {
		return sent(func(x *wire) { x.putNumber(daemonMagic); x.putNumber(version) })
	}
	for _, c := range []struct {
		reply []byte
		want  string
	}{
		{nil, "it closed the connection at once; is this user among allowed-users in nix.conf?"},
		{[]byte("HTTP/1.1 400 Bad Request\r\n"), "it does not speak Nix's worker protocol"},
		{hello(1<<8 | 20), "it speaks version 1.20 of the worker protocol; 1.21 or a later 1 is needed"},
		{hello(2<<8 | 38), "it speaks version 2.38 of the worker protocol"},
		{append(hello(1<<8|30), sent(func(x *wire) { x.putNumber(99) })...), "it sent message 0x63, which is not known here"},
		{append(hello(1<<8|30), sent(func(x *wire) { x.putNumber(msgResult); x.putNumber(1); x.putNumber(1); x.putNumber(1); x.putNumber(7) })...), "it sent a field of kind 7"},
		{append(hello(1<<8|33), sent(func(x *wire) { x.putNumber(maxString + 1) })...), "a string of 1048577 bytes is more than"},
		{append(hello(1<<8|38), sent(func(x *wire) { x.putNumber(maxList + 1) })...), "a list of 1048577 is longer than"},
		{append(hello(1<<8|33), "\x01\x00\x00\x00\x00\x00\x00\x00a\x00\x00\x00\x00\x00\x00z"...), "a string is padded with something else"},
		{append(hello(1<<8|25), sent(func(x *wire) { x.putNumber(msgError); x.putText("no\nway"); x.putNumber(1) })...), "nix-daemon says: no way"},
	} {
		socket := answering(t, c.reply)
		err := New(socket, "/nix/store", time.Second).Ping(context.Background())
		if !errors.Is(err, ErrNoAnswer) || !strings.Contains(err.Error(), "nix-daemon does not answer on "+socket+": "+c.want) {
			t.Errorf("%q: %v", c.reply, err)
		}
	}
}

// stream is a connection that reads from b and takes all writes.
type stream struct{ io.Reader }

func (stream) Write(p []byte) (int, error) { return len(p), nil }

func FuzzPathInfo(f *testing.F) {
	i := pathInfo("/nix/store", "x", pathInfo("/nix/store", "y").Path)
	f.Add(sent(func(x *wire) {
		x.putNumber(msgNext)
		x.putText("log")
		x.putNumber(msgLast)
		x.putNumber(1)
		x.putText(i.Deriver.In("/nix/store"))
		x.putText(fmt.Sprintf("%x", i.NarHash[:]))
		x.putNumber(1)
		x.putText(i.References[0].In("/nix/store"))
		x.putNumber(1700000000)
		x.putNumber(100)
		x.putNumber(1)
		x.putNumber(1)
		x.putText(i.Sigs[0])
		x.putText("")
	}), uint8(38))
	f.Add(sent(func(x *wire) { x.putNumber(msgError); x.putText("m"); x.putNumber(1) }), uint8(21))
	f.Fuzz(func(t *testing.T, reply []byte, minor uint8) {
		x := newWire(stream{bytes.NewReader(reply)})
		got, err := x.pathInfo(uint64(minor), "/nix/store", i.Path)
		if (got == nil) == (err == nil) {
			t.Fatalf("%v, %v", got, err)
		}
		if got != nil {
			// What comes out is a narinfo but for where the NAR is.
			n := got.Clone()
			n.URL, n.Compression = "nar/x.nar", "none"
			n.CA = "" // Nix vouches for it
			again, err := narinfo.Parse(n.Append(nil))
			if err != nil || !reflect.DeepEqual(again, n) {
				t.Fatalf("%+v\n%+v\n%v", again, n, err)
			}
		}
		// A reply that is cut off is never an answer.
		for cut := 0; cut < min(len(reply), 400); cut += 8 {
			x := newWire(stream{bytes.NewReader(reply[:cut])})
			if p, err := x.pathInfo(uint64(minor), "/nix/store", i.Path); err == nil && got == nil {
				t.Fatalf("cut at %d: %+v", cut, p)
			}
		}
	})
}

func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"\x1b[31;1merror:\x1b[0m a\n\n  b\x00c": "error: a b c",
		"\x1b[":                                 "",
		"":                                      "",
		"ünïcode stays":                         "ünïcode stays",
	} {
		if got := plain(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}
