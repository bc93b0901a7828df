package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"narwharf/cache/nar"
	"narwharf/narinfo"
)

// samplePath is a store path that is one file, as a client would upload it.
func samplePath(name, text string) (info *narinfo.Info, file []byte, err error) {
	for _, word := range []string{"nix-archive-1", "(", "type", "regular", "contents", text, ")"} {
		file = nar.AppendString(file, word)
	}
	path, err := narinfo.ParseBase(sampleHash(name) + "-" + name)
	if err != nil {
		return nil, nil, err
	}
	sum := narinfo.Hash(sha256.Sum256(file))
	return &narinfo.Info{
		StoreDir: "/nix/store", Path: path, URL: "nar/" + sum.Base32() + ".nar", Compression: "none",
		FileHash: sum, FileSize: int64(len(file)), NarHash: sum, NarSize: int64(len(file)),
	}, file, nil
}

// sampleHash is a hash part made from a name: any will do, since no program
// can tell what a path was made from.
func sampleHash(name string) string {
	sum := narinfo.Hash(sha256.Sum256([]byte(name)))
	return sum.Base32()[:32]
}

// cmdUpload: upload [-auth FILE] NAME TEXT uploads a path that is one file,
// and sets $NARINFO and $NAR to the two URLs, without the first slash, and
// $UPLOADED to the store path.
func cmdUpload(ts *testscript.TestScript, _ bool, args []string) {
	auth := ""
	if args[0] == "-auth" {
		auth, args = args[1], args[2:]
	}
	info, file, err := samplePath(args[0], args[1])
	ts.Check(err)
	name := info.Path.Hash() + ".narinfo"
	for _, put := range []struct {
		path string
		body []byte
	}{{info.URL, file}, {name, info.Append(nil)}} {
		status, text, err := request(ts, "", auth, "", http.MethodPut, "/"+put.path, put.body)
		ts.Check(err)
		if status != http.StatusCreated {
			ts.Fatalf("PUT %s: %d %s", put.path, status, text)
		}
	}
	ts.Setenv("NARINFO", name)
	ts.Setenv("NAR", info.URL)
	ts.Setenv("UPLOADED", info.Path.In("/nix/store"))
}

// slowUpload is a PUT of which half the body was sent.
type slowUpload struct {
	conn net.Conn
	rest []byte
}

// cmdUploadBegin: upload-begin -auth FILE NAME TEXT sends half of a NAR.
func cmdUploadBegin(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 4 || args[0] != "-auth" {
		ts.Fatalf("usage: upload-begin -auth FILE NAME TEXT")
	}
	info, file, err := samplePath(args[2], args[3])
	ts.Check(err)
	u, err := url.Parse(ts.Getenv("URL"))
	ts.Check(err)
	conn, err := net.Dial("tcp", u.Host)
	ts.Check(err)
	ts.Defer(func() { conn.Close() })
	half := len(file) / 2
	_, err = fmt.Fprintf(conn, "PUT /%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s",
		info.URL, strings.TrimSpace(ts.ReadFile(args[1])), len(file), file[:half])
	ts.Check(err)
	theServer(ts).slow = &slowUpload{conn, file[half:]}
	// The server has to have begun to read, or stopping would be right.
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		_, text, err := request(ts, "", "", "", http.MethodGet, "/metrics", nil)
		ts.Check(err)
		if bytes.Contains(text, []byte("\nnarwharf_uploads_in_flight 1\n")) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("the server never counts an upload in flight")
		}
	}
}

// cmdUploadEnd: upload-end sends the other half and expects 201.
func cmdUploadEnd(ts *testscript.TestScript, _ bool, _ []string) {
	up := theServer(ts).slow
	_, err := up.conn.Write(up.rest)
	ts.Check(err)
	_ = up.conn.SetReadDeadline(time.Now().Add(patience))
	resp, err := http.ReadResponse(bufio.NewReader(up.conn), nil)
	ts.Check(err)
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		text, _ := io.ReadAll(resp.Body)
		ts.Fatalf("the upload got %s: %s", resp.Status, text)
	}
}
