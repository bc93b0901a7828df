package fastpath

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// files is an http.Server behind a Listener that answers /x with a file.
type files struct {
	l       *Listener
	srv     *http.Server
	content []byte
	size    int64 // what the answers say

	accepted chan net.Conn // the first

	mu   sync.Mutex
	sent []int64 // what Served was told
	open []*os.File
}

// newFiles makes a file of size bytes, which answers take for one with more.
func newFiles(t *testing.T, size int, more int64, pace time.Duration) *files {
	t.Helper()
	f := &files{content: make([]byte, size), size: int64(size) + more, accepted: make(chan net.Conn, 1)}
	_, _ = rand.Read(f.content) // never fails
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, f.content, 0o644); err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.l = &Listener{
		Listener: tcp, Idle: time.Minute, HeaderTimeout: time.Minute, Pace: pace,
		Lookup: func(p []byte, _ bool) *Answer {
			if string(p) != "x" {
				return nil
			}
			file, err := os.Open(name)
			if err != nil {
				t.Error(err)
				return nil
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			f.open = append(f.open, file)
			return &Answer{Tail: fmt.Appendf(nil, "\r\nContent-Length: %d\r\n\r\n", f.size), File: file, Size: f.size}
		},
		Served: func(a *Answer, sent int64) {
			if _, err := a.File.Stat(); err != nil {
				t.Errorf("the file is closed already: %v", err)
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			f.sent = append(f.sent, sent)
		},
	}
	f.srv = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "slow") }),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			select {
			case f.accepted <- c:
			default:
			}
			return ctx
		},
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = f.srv.Serve(f.l)
	}()
	t.Cleanup(func() {
		f.srv.Close()
		<-done
	})
	return f
}

// ask sends a request for /x on a connection of its own.
func (f *files) ask(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", f.l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, get); err != nil {
		t.Fatal(err)
	}
	return c
}

// hear reads an answer and its body.
func hear(t *testing.T, r *bufio.Reader) ([]byte, error) {
	t.Helper()
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// served waits until Served was told n times and everything is closed.
func (f *files) served(t *testing.T, n int) []int64 {
	t.Helper()
	for begin := time.Now(); time.Since(begin) < 20*time.Second; time.Sleep(5 * time.Millisecond) {
		f.mu.Lock()
		sent, closed := f.sent, 0
		for _, file := range f.open {
			if _, err := file.Stat(); errors.Is(err, os.ErrClosed) {
				closed++
			}
		}
		f.mu.Unlock()
		if len(sent) == n && closed == n {
			return sent
		}
	}
	t.Fatalf("Served was told of %v, %d files were opened; want %d, all closed", f.sent, len(f.open), n)
	return nil
}

// TestFile: files of all sizes, several on a connection, which is net/http's for
// what follows.
func TestFile(t *testing.T) {
	for _, size := range []int{0, 1, 1000, fileStep, 3*fileStep + 7} {
		f := newFiles(t, size, 0, time.Minute)
		c := f.ask(t)
		r := bufio.NewReader(c)
		for i := range 3 {
			if i > 0 {
				if _, err := io.WriteString(c, get); err != nil {
					t.Fatal(err)
				}
			}
			body, err := hear(t, r)
			if err != nil || !bytes.Equal(body, f.content) {
				t.Fatalf("%d bytes of %d, %v", len(body), size, err)
			}
		}
		if _, err := io.WriteString(c, "GET /y HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if body, err := hear(t, r); err != nil || string(body) != "slow" {
			t.Errorf("%q, %v", body, err)
		}
		for _, n := range f.served(t, 3) {
			if n != int64(size) {
				t.Errorf("Served was told of %d bytes of %d", n, size)
			}
		}
	}
}

// TestFileThatShrinks: what is shorter than was said never looks whole. (net/http
// would fill it up with the text of a 400.)
func TestFileThatShrinks(t *testing.T) {
	f := newFiles(t, 2*fileStep, 100, time.Minute)
	body, err := hear(t, bufio.NewReader(f.ask(t)))
	if !errors.Is(err, io.ErrUnexpectedEOF) || !bytes.Equal(body, f.content) {
		t.Errorf("%d bytes, %v; their end is %q", len(body), err, body[max(0, len(body)-200):])
	}
	if sent := f.served(t, 1); sent[0] != 2*fileStep {
		t.Errorf("Served was told of %d bytes", sent[0])
	}
}

// TestFileNobodyTakes: a client that takes nothing is cut; so is one that leaves.
func TestFileNobodyTakes(t *testing.T) {
	f := newFiles(t, 24<<20, 0, 50*time.Millisecond)
	f.ask(t)
	if sent := f.served(t, 1); sent[0] >= f.size {
		t.Errorf("%d bytes fit in between", sent[0])
	}
	f = newFiles(t, 24<<20, 0, time.Minute)
	c := f.ask(t)
	if _, err := io.CopyN(io.Discard, c, 1000); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if sent := f.served(t, 1); sent[0] >= f.size {
		t.Errorf("%d bytes were sent to nobody", sent[0])
	}
}

// TestIdleAfterFile: the time that a client has for a file's steps is not the time
// between two requests.
func TestIdleAfterFile(t *testing.T) {
	const pace = time.Second
	f := newFiles(t, 1000, 0, pace)
	c := f.ask(t)
	r := bufio.NewReader(c)
	for i := range 2 {
		if i > 0 {
			time.Sleep(2*pace + pace/2)
			if _, err := io.WriteString(c, get); err != nil {
				t.Fatal(err)
			}
		}
		if body, err := hear(t, r); err != nil || !bytes.Equal(body, f.content) {
			t.Fatalf("request %d: %d bytes, %v", i, len(body), err)
		}
	}
}

// TestFilePanic: a panic while a file is sent ends its connection and no more.
func TestFilePanic(t *testing.T) {
	f := newFiles(t, 1000, 0, time.Minute)
	f.srv.ErrorLog = log.New(io.Discard, "", 0)
	f.l.Served = func(*Answer, int64) { panic("of a test") }
	c := f.ask(t)
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.Copy(io.Discard, c); err != nil { // ends when the server closes
		t.Errorf("the connection is open: %v", err)
	}
	if n := f.l.sending.Load(); n != 0 {
		t.Errorf("%d files under way", n)
	}
}

// TestFileAtShutdown: Shutdown knows of no request, so a file that is under way is
// sent to its end, which Wait waits for, and then the connection is closed.
func TestFileAtShutdown(t *testing.T) {
	f := newFiles(t, 24<<20, 0, time.Minute)
	c := f.ask(t)
	r := bufio.NewReader(c)
	if _, err := r.Peek(1); err != nil {
		t.Fatal(err)
	}
	if err := f.srv.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := f.l.Wait(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait does not wait: %v", err)
	}
	waited := make(chan error, 1)
	go func() { waited <- f.l.Wait(t.Context()) }()
	body, err := hear(t, r)
	if err != nil || !bytes.Equal(body, f.content) {
		t.Errorf("%d bytes, %v", len(body), err)
	}
	if err := <-waited; err != nil {
		t.Error(err)
	}
	if n, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the connection is open: %d, %v", n, err)
	}
}

// TestCloseTwice: who closes a connection again does not wait for its file.
func TestCloseTwice(t *testing.T) {
	f := newFiles(t, 24<<20, 0, time.Minute)
	r := bufio.NewReader(f.ask(t))
	if _, err := r.Peek(1); err != nil {
		t.Fatal(err)
	}
	server := <-f.accepted
	for range 2 {
		if err := server.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if body, err := hear(t, r); err == nil {
		t.Errorf("all %d bytes came", len(body))
	}
	f.served(t, 1)
}
