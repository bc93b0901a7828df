//go:build linux

package main

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"

	"narwharf/bench/load"
)

// testHosts are two hosts without a server.
func testHosts() *hosts {
	return &hosts{names: []string{"h00000", "h00001"}, etags: make([]string, 2), token: "secret", counter: 7}
}

func TestPollRequest(t *testing.T) {
	h := testHosts()
	for _, etag := range []string{"", `"x"`} {
		h.etags[1] = etag
		req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(h.poll(1, 45))))
		if err != nil {
			t.Fatal(err)
		}
		prefer := ""
		if etag != "" {
			prefer = "wait=45"
		}
		if req.URL.Path != "/api/v1/hosts/h00001/desired" || req.URL.Query().Get("target") != "h00001" || req.Header.Get("Authorization") != "Bearer secret" ||
			req.Header.Get("If-None-Match") != etag || req.Header.Get("Prefer") != prefer {
			t.Errorf("with the ETag %q: %s %v", etag, req.URL, req.Header)
		}
	}
}

func TestLearn(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nEtag: \"new\"\r\n\r\n"
	const body = `{"channel":"web","seq":3,"pointer":{"head":{}}}`
	h := testHosts()
	if err := h.learn(0, load.Reply{Status: 200, Head: []byte(head), Body: []byte(body)}, 3); err != nil || h.etags[0] != `"new"` {
		t.Errorf("ETag %q, %v", h.etags[0], err)
	}
	for what, r := range map[string]load.Reply{
		"another status":  {Status: 503, Head: []byte(head), Body: []byte(body)},
		"another seq":     {Status: 200, Head: []byte(head), Body: []byte(strings.Replace(body, "3", "2", 1))},
		"not in release":  {Status: 200, Head: []byte(head), Body: []byte(`{"channel":"web","seq":3,"pointer":null}`)},
		"without an ETag": {Status: 200, Head: []byte("HTTP/1.1 200 OK\r\n\r\n"), Body: []byte(body)},
	} {
		if err := h.learn(0, r, 3); err == nil || !strings.Contains(err.Error(), "h00000") {
			t.Errorf("%s: error %v, want one about h00000", what, err)
		}
	}
}
