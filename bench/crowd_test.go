//go:build linux

package main

import (
	"net"
	"strings"
	"testing"
)

// A reply that is cut off must not be taken for a fast one.
func TestSwallow(t *testing.T) {
	for reply, want := range map[string]string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello":                                      "",
		"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n":                                           "",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n":           "",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n":                    "cut off after 10 bytes",
		"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello":                                      "5 bytes of \"6\"",
		"HTTP/1.1 200 OK\r\n\r\nhello":                                                           "5 bytes of \"\"",
		"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nhello":                     "not a reply of status 200",
		"HTTP/1.1 200 OK\r\nContent-Le":                                                          "0 bytes of",
		"HTTP/1.1 200 OK\r\nContent-Length: 600000\r\n\r\n" + strings.Repeat("x", 600_000):       "",
		"HTTP/1.1 200 OK\r\nContent-Length: 600000\r\n\r\n" + strings.Repeat("x", 600_000) + "y": "600001 bytes",
	} {
		client, server := net.Pipe()
		go func() {
			for part := reply; part != ""; { // in small pieces, the head too
				n := min(len(part), 7+len(reply)/20)
				if _, err := server.Write([]byte(part[:n])); err != nil {
					break
				}
				part = part[n:]
			}
			_ = server.Close()
		}()
		err := swallow(client)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v", reply, err)
		}
	}
}
