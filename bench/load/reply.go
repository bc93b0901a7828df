//go:build linux

package load

import (
	"bytes"
	"errors"
	"fmt"
)

// maxHead bounds the status line and the header fields of a reply, and so the
// buffer of a connection.
const maxHead = 16 << 10

// head is what the generator needs to know of a reply before its body.
type head struct {
	status int
	length int64 // -1 when the reply does not say
	size   int   // bytes up to and including the empty line; 0 while incomplete
}

var (
	errChunked = errors.New("reply is chunked, want a Content-Length")
	errClosing = errors.New("server announced Connection: close")
)

// parseHead reads the head of a reply from the start of b. It returns a head
// of size 0 and no error while b holds too little.
func parseHead(b []byte) (head, error) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		if len(b) >= maxHead {
			return head{}, fmt.Errorf("reply head is longer than %d bytes", maxHead)
		}
		return head{}, nil
	}
	line, fields, _ := bytes.Cut(b[:end], []byte("\r\n"))
	status, err := parseStatus(line)
	if err != nil {
		return head{}, err
	}
	h := head{status: status, length: -1, size: end + 4}
	for len(fields) > 0 {
		line, fields, _ = bytes.Cut(fields, []byte("\r\n"))
		colon := bytes.IndexByte(line, ':')
		if colon < 0 {
			return head{}, fmt.Errorf("reply has the header line %q", line)
		}
		// The length of the name sorts out nearly every field at once.
		switch colon {
		case len("connection"):
			if isField(line, "connection") && bytes.EqualFold(value(line, colon), []byte("close")) {
				return head{}, errClosing
			}
		case len("content-length"):
			if isField(line, "content-length") {
				if h.length, err = parseLength(value(line, colon)); err != nil {
					return head{}, err
				}
			}
		case len("transfer-encoding"):
			if isField(line, "transfer-encoding") {
				return head{}, errChunked
			}
		}
	}
	return h, nil
}

func parseStatus(line []byte) (int, error) {
	const prefix = "HTTP/1.1 "
	if len(line) < len(prefix)+3 || string(line[:len(prefix)]) != prefix {
		return 0, fmt.Errorf("reply starts with %q, want HTTP/1.1", line)
	}
	status := 0
	for _, c := range line[len(prefix) : len(prefix)+3] {
		if c < '0' || c > '9' {
			return 0, fmt.Errorf("reply has the status line %q", line)
		}
		status = status*10 + int(c-'0')
	}
	return status, nil
}

func parseLength(v []byte) (int64, error) {
	if len(v) == 0 || len(v) > 18 {
		return 0, fmt.Errorf("reply has Content-Length %q", v)
	}
	var n int64
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, fmt.Errorf("reply has Content-Length %q", v)
		}
		n = n*10 + int64(c-'0')
	}
	return n, nil
}

// isField says whether the header line has the given name, in lower case; the
// caller knows that a colon stands behind it.
func isField(line []byte, name string) bool {
	return bytes.EqualFold(line[:len(name)], []byte(name))
}

func value(line []byte, colon int) []byte { return bytes.TrimSpace(line[colon+1:]) }
