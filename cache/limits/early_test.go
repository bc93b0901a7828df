package limits

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// A refusal reaches who sends his body all the same, and costs no more than it may.
func TestEarly(t *testing.T) {
	refuse := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		Early(w, req, 300*time.Millisecond, func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Path == "/good" {
				n, err := io.Copy(io.Discard, req.Body)
				_, _ = fmt.Fprintln(w, n, err)
				return
			}
			w.Header().Set("Content-Length", "3")
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, "no\n")
		})
	})
	server := httptest.NewServer(refuse)
	defer server.Close()
	dial := func(t *testing.T, head string, args ...any) (net.Conn, *bufio.Reader) {
		t.Helper()
		c, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		_, _ = fmt.Fprintf(c, head+"\r\n", args...)
		return c, bufio.NewReader(c)
	}
	hear := func(t *testing.T, r *bufio.Reader, status int) (closes bool) {
		t.Helper()
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != status {
			t.Fatal(resp, err)
		}
		defer resp.Body.Close()
		if text, err := io.ReadAll(resp.Body); err != nil || status == 401 && string(text) != "no\n" {
			t.Fatalf("%q %v", text, err)
		}
		return resp.Close
	}
	put := func(size int, more string) string {
		return fmt.Sprintf("PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s", size, more)
	}
	chunk := strings.Repeat("x", 1<<20)

	t.Run("asked, and waits", func(t *testing.T) {
		start := time.Now()
		_, r := dial(t, put(500<<20, "Expect: 100-continue\r\n"))
		if !hear(t, r, 401) {
			t.Error("the connection is said to go on")
		}
		if _, err := r.ReadByte(); err != io.EOF {
			t.Error(err)
		}
		if took := time.Since(start); took > 250*time.Millisecond {
			t.Errorf("the answer and its end took %v", took)
		}
	})
	for name, more := range map[string]string{"asked, and sends": "Expect: 100-continue\r\n", "never asked": ""} {
		t.Run(name, func(t *testing.T) {
			c, r := dial(t, put(12<<20, more))
			hear(t, r, 401)
			for range 12 {
				if _, err := io.WriteString(c, chunk); err != nil {
					t.Fatal(err)
				}
			}
			if more == "" {
				_, _ = io.WriteString(c, "PUT /good HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
				hear(t, r, 200)
			}
		})
	}
	for _, more := range []string{"Expect: 100-continue\r\n", ""} {
		t.Run("by a proxy"+more, func(t *testing.T) {
			c, r := dial(t, put(6<<20, "X-Forwarded-For: 192.0.2.1\r\n"+more))
			for range 6 {
				if _, err := io.WriteString(c, chunk); err != nil {
					t.Fatal(err)
				}
			}
			if more != "" {
				hear(t, r, 100)
			}
			if hear(t, r, 401) && more == "" {
				t.Error("the connection does not go on")
			}
		})
	}
	for name, step := range map[string]time.Duration{"slowly for ever": 20 * time.Millisecond, "fast for ever": 0} {
		t.Run(name, func(t *testing.T) {
			c, r := dial(t, put(1<<40, ""))
			hear(t, r, 401)
			sent := 0
			for start := time.Now(); ; time.Sleep(step) {
				part := chunk
				if step > 0 {
					part = "x"
				}
				n, err := io.WriteString(c, part)
				if sent += n; err != nil {
					break
				}
				if time.Since(start) > 10*time.Second {
					t.Fatalf("it still reads after %d bytes", sent)
				}
			}
			if sent > 64<<20 { // 16 MiB and what is on the way
				t.Errorf("%d bytes were taken", sent)
			}
		})
	}
}
