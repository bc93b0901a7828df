//go:build linux

package load

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

func newFleet(t *testing.T, addr string) *Fleet {
	t.Helper()
	f, err := NewFleet(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

func ask(path string) []byte { return []byte("GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n") }

func TestFleet(t *testing.T) {
	const n = 50
	wake := make(chan struct{})
	var waiting sync.WaitGroup
	waiting.Add(n)
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch kind, host, _ := strings.Cut(r.URL.Path[1:], "/"); kind {
		case "wait":
			waiting.Done()
			<-wake
			w.Header().Set("Etag", `"of `+host+`"`)
			_, _ = w.Write([]byte(host))
		case "large": // more than one read takes
			w.Header().Set("Content-Length", "300000")
			_, _ = w.Write(bytes.Repeat([]byte{'x'}, 300_000))
		case "nothing":
			w.WriteHeader(http.StatusNoContent)
		case "same":
			w.WriteHeader(http.StatusNotModified)
		}
	})
	f := newFleet(t, addr)
	for i := range n {
		if err := f.Join(ask("/wait/" + strconv.Itoa(i))); err != nil {
			t.Fatal(err)
		}
	}
	if f.Len() != n {
		t.Fatalf("%d connections, want %d", f.Len(), n)
	}
	if err := f.Send(0, ask("/same/0")); err == nil {
		t.Error("a second request was sent on a connection that waits")
	}
	waiting.Wait()
	woken := time.Now()
	close(wake)
	seen := make([]string, n)
	replies := 0
	next := map[string]string{"": "large", "200": "nothing", "204": "same"}
	err := f.Collect(20*time.Second, func() bool { return replies == 4*n }, func(i int, r Reply) ([]byte, error) {
		replies++
		if r.At.Before(woken) {
			t.Errorf("reply of %d came before the wake-up", i)
		}
		if seen[i] == "" {
			if id := strconv.Itoa(i); string(r.Body) != id || string(r.Field("etag")) != `"of `+id+`"` {
				t.Errorf("reply of %d: %q, %q", i, r.Head, r.Body)
			}
			seen[i] = " "
			return ask("/large/" + strconv.Itoa(i)), nil
		}
		seen[i] += strconv.Itoa(r.Status) + ":" + strconv.Itoa(len(r.Body)) + " "
		if kind := next[strconv.Itoa(r.Status)]; kind != "" {
			return ask("/" + kind + "/" + strconv.Itoa(i)), nil
		}
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range seen {
		if s != " 200:300000 204:0 304:0 " {
			t.Errorf("connection %d had the replies %q", i, s)
		}
	}
	begin := time.Now()
	if err := f.Collect(50*time.Millisecond, nil, nil); err != nil || time.Since(begin) < 50*time.Millisecond {
		t.Errorf("nothing is awaited, for a while: %v after %s", err, time.Since(begin))
	}
}

func TestFleetTimeOut(t *testing.T) {
	leave := make(chan struct{})
	addr := serve(t, func(http.ResponseWriter, *http.Request) { <-leave })
	t.Cleanup(func() { close(leave) }) // before serve's, which waits for the handler
	f := newFleet(t, addr)
	if err := f.Join(ask("/")); err != nil {
		t.Fatal(err)
	}
	err := f.Collect(50*time.Millisecond, func() bool { return false }, func(int, Reply) ([]byte, error) { return nil, nil })
	if err == nil || !strings.Contains(err.Error(), "not all come after 50ms") {
		t.Errorf("error %v, want one that says they have not all come", err)
	}
}

func TestFleetRefuses(t *testing.T) {
	for reply, want := range map[string]string{
		"":                        "closed the connection before its reply was whole",
		"HTTP/1.1 200 OK\r\n\r\n": "no Content-Length",
		"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234":          "closed the connection before its reply was whole",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n012":             "2 bytes follow the reply",
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n012":   "3 bytes follow the reply",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n":  "chunked",
		"HTTP/1.1 503 Stop\r\nConnection: close\r\n\r\n":              "Connection: close",
		"HTTP/1.1 200 OK\r\nContent-Length: 900000000000\r\n\r\n0123": "closed the connection before its reply was whole",
	} {
		f := newFleet(t, raw(t, reply))
		if err := f.Join(ask("/")); err != nil {
			t.Fatal(err)
		}
		err := f.Collect(10*time.Second, func() bool { return false }, func(int, Reply) ([]byte, error) { return nil, nil })
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "connection 0") {
			t.Errorf("reply %q: error %v, want one that says %q", reply, err, want)
		}
	}
}

func TestFleetDialFails(t *testing.T) {
	if _, err := NewFleet("localhost:80"); err == nil {
		t.Error("a fleet of a name")
	}
	f := newFleet(t, "127.0.0.1:1")
	if err := f.Join(ask("/")); err == nil || !strings.Contains(err.Error(), "connection 0") {
		t.Errorf("joined where nobody listens: %v", err)
	}
}

func TestRoomFor(t *testing.T) {
	if err := RoomFor(10); err != nil {
		t.Errorf("no room for 10 connections: %v", err)
	}
	err := RoomFor(1 << 40)
	if err == nil || !strings.Contains(err.Error(), "ulimit -Hn 1099511627976") {
		t.Errorf("error %v, want one that says which limit to raise", err)
	}
}
