//go:build linux

package load

import (
	"strings"
	"testing"
)

func TestParseHead(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 12\r\nAccept-Ranges: bytes\r\n\r\nbody"
	for i := range len(ok) - len("body") {
		if h, err := parseHead([]byte(ok[:i])); err != nil || h.size != 0 {
			t.Fatalf("%d bytes: %+v, %v; want an incomplete head", i, h, err)
		}
	}
	for text, want := range map[string]head{
		ok: {status: 200, length: 12, size: len(ok) - len("body")},
		"HTTP/1.1 404 Not Found\r\ncontent-LENGTH:0  \r\n\r\n":                 {404, 0, 46},
		"HTTP/1.1 204 No Content\r\n\r\n":                                      {204, -1, 27},
		"HTTP/1.1 200 \r\nConnection: keep-alive\r\nContent-Length: 7\r\n\r\n": {200, 7, 60},
	} {
		got, err := parseHead([]byte(text))
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", text, got, err, want)
		}
	}
}

func TestParseHeadRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"HTTP/1.0 200 OK\r\n\r\n":                               "want HTTP/1.1",
		"HTTP/1.1 2x0 OK\r\n\r\n":                               "status line",
		"HTTP/1.1\r\n\r\n":                                      "want HTTP/1.1",
		"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n":              "header line",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n": "chunked",
		"HTTP/1.1 200 OK\r\nconnection: CLOSE\r\n\r\n":          "close",
		"HTTP/1.1 200 OK\r\nContent-Length: 1x\r\n\r\n":         "Content-Length",
		"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n":            "Content-Length",
		"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("y", maxHead): "longer than",
	} {
		if _, err := parseHead([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: error %v, want one that says %q", text, err, want)
		}
	}
}

func BenchmarkParseHead(b *testing.B) {
	text := []byte("HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Thu, 20 Nov 2025 21:50:00 GMT\r\n" +
		"Content-Type: text/x-nix-narinfo\r\nContent-Length: 912\r\nLast-Modified: Thu, 20 Nov 2025 21:40:00 GMT\r\n" +
		"Connection: keep-alive\r\nETag: \"691f8d3e-390\"\r\nAccept-Ranges: bytes\r\n\r\n")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parseHead(text); err != nil {
			b.Fatal(err)
		}
	}
}
