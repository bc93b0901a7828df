package cache

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"narwharf/cache/narfile"
	"narwharf/cache/refusal"
	"narwharf/cache/sidecar"
)

// packedLog is what bzip2 makes of "building\n" a thousand times and "done\n":
// the standard library can only unpack.
const packedLog = "QlpoOTFBWSZTWUIucZ4AAfTBgAAQFqWCACAAUIAYCaqINPU67qQbqQe1INcUgypBypB9UgzVSDeVIPxdyRThQkEIucZ4"

var unpackedLog = strings.Repeat("building\n", 1000) + "done\n"

// leaveLog puts a build's log where Nix does.
func (m *machine) leaveLog(drv string, text []byte, suffix string) string {
	m.t.Helper()
	name := filepath.Join(m.root, "nix/var/log/nix/drvs", drv[:2], drv[2:]+suffix)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(name, text, 0o644); err != nil {
		m.t.Fatal(err)
	}
	return name
}

// TestLocalLogs: Nix's own logs, packed or not, come as text, in every encoding
// that a client may like; an uploaded one wins.
func TestLocalLogs(t *testing.T) {
	w, m := localWorld(t)
	want := unpackedLog
	plain, packed := someHash+"-plain.drv", someHash+"-packed.drv"
	m.leaveLog(plain, []byte(want), "")
	m.leaveLog(packed, bzip(t), ".bz2")
	for _, drv := range []string{plain, packed} {
		url := "/log/" + drv
		a := w.must(w.get(url), 200)
		if a.body != want || a.header.Get("Content-Type") != logType || a.header.Get("Content-Encoding") != "" {
			t.Errorf("%s: %d bytes, header %v", drv, len(a.body), a.header)
		}
		for _, enc := range []string{"zstd", "gzip"} {
			p := w.must(w.get(url, "Accept-Encoding", enc), 200)
			if p.header.Get("Content-Encoding") != enc || len(p.body) >= len(want) {
				t.Errorf("%s: %d bytes, header %v", drv, len(p.body), p.header)
			}
			r, err := narfile.Decode(strings.NewReader(p.body), enc, sidecar.MaxLog, "the log", refusal.Content)
			if err != nil {
				t.Fatal(err)
			}
			if text, err := io.ReadAll(r); err != nil || string(text) != want {
				t.Errorf("%s in %s: %d bytes, %v", drv, enc, len(text), err)
			}
			r.Close()
			w.must(w.get(url, "Accept-Encoding", enc, "If-None-Match", p.header.Get("Etag")), 304)
		}
		w.must(w.get(url, "If-None-Match", a.header.Get("Etag")), 304)
		if h := w.must(w.head(url), 200); h.body != "" || h.header.Get("Etag") != a.header.Get("Etag") {
			t.Errorf("HEAD %s: %v", drv, h)
		}

		conn, err := net.Dial("tcp", strings.TrimPrefix(w.http.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "GET %s HTTP/1.0\r\n\r\n", url)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		conn.Close()
		if err != nil || string(text) != want || resp.ContentLength != int64(len(want)) {
			t.Errorf("HTTP/1.0 %s: Content-Length %d, %d bytes, %v", drv, resp.ContentLength, len(text), err)
		}
	}
	w.must(w.put("/log/"+packed, []byte("uploaded\n")), 201)
	w.must(w.get("/log/"+packed), 200, "uploaded\n")
	w.must(w.get("/log/"+someHash+"-none.drv"), 404)
	w.must(w.get("/metrics"), 200, `narwharf_http_sent_bytes_total{route="log",source="local"}`)
}

// TestLocalLogsDamaged: half a log is never a whole answer.
func TestLocalLogsDamaged(t *testing.T) {
	w, m := localWorld(t)
	drv := someHash + "-x.drv"
	for _, text := range [][]byte{bzip(t)[:len(bzip(t))-9], bzip(t)[:20], []byte("no bzip2"), nil} {
		m.leaveLog(drv, text, ".bz2")
		for _, header := range [][]string{nil, {"Accept-Encoding", "gzip"}} {
			if a := w.attempt("/log/"+drv, header...); a.cut == nil && a.status == 200 {
				t.Errorf("%d bytes of a log with %q: %v", len(text), header, a)
			}
		}
	}
}

func bzip(t *testing.T) []byte {
	t.Helper()
	text, err := base64.StdEncoding.DecodeString(packedLog)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
