//go:build linux

package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"narwharf/narinfo"
)

// A client is one connection that speaks as Nix does. What it sends from a
// file goes by sendfile.
type client struct {
	conn *net.TCPConn
	r    *bufio.Reader
	auth string // header line with its end, or ""
}

// patience is how long one request and its answer may take.
const patience = 5 * time.Minute

// dial opens a connection to addr; the token, if any, is sent unasked with
// every request, as Nix sends the password of a netrc.
func dial(addr, token string) (*client, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &client{conn: conn.(*net.TCPConn), r: bufio.NewReaderSize(conn, 64<<10)}
	if token != "" {
		c.auth = "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("bench:"+token)) + "\r\n"
	}
	return c, nil
}

func (c *client) close() { _ = c.conn.Close() }

// expectAbove is the size of a body above which Nix's curl asks before it
// sends (NIX-WIRE C1).
const expectAbove = 1 << 20

// ask sends one request and returns the answer, whose body must be read to its
// end before the next ask. A body of size bytes is sent if the server wants it.
func (c *client) ask(method, path, contentType string, body io.Reader, size int64) (*http.Response, error) {
	resp, err := c.exchange(method, path, contentType, body, size)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	return resp, nil
}

func (c *client) exchange(method, path, contentType string, body io.Reader, size int64) (*http.Response, error) {
	head := method + " " + path + " HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: curl/8.13.0 Nix/2.26.3\r\nAccept: */*\r\n" + c.auth
	expect := body != nil && size > expectAbove
	if body != nil {
		head += fmt.Sprintf("Content-Type: %s\r\nContent-Length: %d\r\n", contentType, size)
	}
	if expect {
		head += "Expect: 100-continue\r\n"
	}
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if _, err := c.conn.Write([]byte(head + "\r\n")); err != nil {
		return nil, err
	}
	req := &http.Request{Method: method}
	if expect {
		resp, err := http.ReadResponse(c.r, req)
		if err != nil || resp.StatusCode != http.StatusContinue {
			return resp, err
		}
	}
	if body != nil {
		n, err := c.conn.ReadFrom(io.LimitReader(body, size))
		if err == nil && n < size {
			err = fmt.Errorf("body ended after %d of %d bytes", n, size)
		}
		if err != nil {
			return nil, err
		}
	}
	return http.ReadResponse(c.r, req)
}

// status makes a request whose answer's body does not matter.
func (c *client) status(method, path string) (int, error) {
	resp, err := c.ask(method, path, "", nil, 0)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// put uploads size bytes; anything but 200, 201 or 204 is an error with the
// server's words.
func (c *client) put(path, contentType string, body io.Reader, size int64) error {
	resp, err := c.ask(http.MethodPut, path, contentType, body, size)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("PUT %s: %w", path, err)
	}
	switch resp.StatusCode {
	case http.StatusOK, http.StatusCreated, http.StatusNoContent:
		return nil
	}
	return fmt.Errorf("PUT %s: status %s: %s", path, resp.Status, bytes.TrimSpace(text))
}

// get reads a whole small file.
func (c *client) get(path string) ([]byte, error) {
	resp, err := c.ask(http.MethodGet, path, "", nil, 0)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s: %s", resp.Status, bytes.TrimSpace(text))
	}
	if err != nil {
		return nil, fmt.Errorf("GET %s: %w", path, err)
	}
	return text, nil
}

// check reads a whole file and compares its hash and size.
func (c *client) check(path string, want narinfo.Hash, size int64) error {
	resp, err := c.ask(http.MethodGet, path, "", nil, 0)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, resp.Body)
	switch got := narinfo.Hash(sum.Sum(nil)); {
	case err != nil:
	case resp.StatusCode != http.StatusOK:
		err = fmt.Errorf("status %s", resp.Status)
	case n != size || got != want:
		err = fmt.Errorf("%d bytes with hash %s, want %d with %s", n, got, size, want)
	default:
		return nil
	}
	return fmt.Errorf("GET %s: %w", path, err)
}

// narinfoPath is the URL path of a store path's narinfo.
func narinfoPath(p narinfo.Path) string { return "/" + p.Hash() + ".narinfo" }

// checkAll reads every narinfo and NAR of the closure from addr once and
// compares each NAR with its hash and each narinfo with what was uploaded;
// signatures may have been added. It returns the texts of the narinfos by file
// name.
func checkAll(addr string, c *closure) (map[string][]byte, error) {
	conn, err := dial(addr, "")
	if err != nil {
		return nil, err
	}
	defer conn.close()
	texts := make(map[string][]byte, len(c.paths))
	for _, p := range c.paths {
		name := narinfoPath(p.info.Path)
		text, err := conn.get(name)
		if err != nil {
			return nil, err
		}
		if err := sameInfo(text, p.info); err != nil {
			return nil, fmt.Errorf("GET %s: %w", name, err)
		}
		texts[strings.TrimPrefix(name, "/")] = text
		if err := conn.check("/"+p.info.URL, p.info.FileHash, p.info.FileSize); err != nil {
			return nil, err
		}
	}
	return texts, nil
}

func sameInfo(text []byte, want *narinfo.Info) error {
	got, err := narinfo.Parse(text)
	if err != nil {
		return err
	}
	got.Sigs = want.Sigs
	if a, b := got.Append(nil), want.Append(nil); !bytes.Equal(a, b) {
		return errors.New("the narinfo differs from what was uploaded:\n" + string(a) + "instead of\n" + string(b))
	}
	return nil
}
