package cache

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"narwharf/cache/narfile"
	"narwharf/cache/narfiletest"
	"narwharf/cache/refusal"
	"narwharf/cache/reply"
	"narwharf/cache/sidecar"
)

func unpack(t *testing.T, encoding, body string) string {
	t.Helper()
	var r io.Reader = strings.NewReader(body)
	switch encoding {
	case "gzip":
		z, err := gzip.NewReader(r)
		if err != nil {
			t.Fatal(err)
		}
		r = z
	case "zstd":
		z, err := zstd.NewReader(r)
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		r = z
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestLog(t *testing.T) {
	w := newWorld(t)
	long := strings.Repeat("building something, line by line\n", 2000)
	for _, encoding := range []string{"", "none", "zstd", "gzip", "br"} {
		text := long + "sent as " + encoding
		body := []byte(text)
		if encoding != "" && encoding != "none" {
			body = narfiletest.Compress(t, encoding, body)
		}
		w.must(w.put(examples["log"], body, "Content-Encoding", encoding), 201)
		for accept, want := range map[string]string{"": "", "br, deflate": "", "gzip": "gzip", "zstd": "zstd", "gzip, zstd;q=0.1": "zstd", "gzip, zstd;q=0": "gzip"} {
			a := w.must(w.get(examples["log"], "Accept-Encoding", accept), 200)
			if got := a.header.Get("Content-Encoding"); got != want || unpack(t, got, a.body) != text {
				t.Errorf("Accept-Encoding %q: got %q and %d bytes", accept, got, len(a.body))
			}
			if a.header.Get("Vary") != "Accept-Encoding" || a.header.Get("Content-Type") != "text/plain; charset=utf-8" || a.header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("headers %v", a.header)
			}
			etag := a.header.Get("Etag")
			w.must(w.get(examples["log"], "Accept-Encoding", accept, "If-None-Match", etag), 304)
			if want == "" {
				sameHead(t, a, w.head(examples["log"], "Accept-Encoding", accept))
			} else if h := w.must(w.head(examples["log"], "Accept-Encoding", accept), 200); h.header.Get("Content-Encoding") != want || h.header.Get("Etag") != etag {
				t.Errorf("HEAD has %v", h.header)
			}
		}
		if a := w.get(examples["log"], "Range", "bytes=5-9", "Accept-Encoding", "gzip"); a.status != 206 || a.body != text[5:10] {
			t.Errorf("a range: %v", a)
		}
	}
	// HTTP/1.0 has no chunks: what broke off would look whole.
	c := w.dial(t)
	c.say("GET %s HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n", examples["log"])
	if a := c.hear(http.MethodGet); a.header.Get("Content-Encoding") != "" || a.header.Get("Content-Length") != fmt.Sprint(len(a.body)) || len(a.body) < len(long) {
		t.Errorf("HTTP/1.0: %d bytes with %v", len(a.body), a.header)
	}
	w.must(w.put(examples["log"], nil), 201) // a builder that says nothing
	if a := w.must(w.get(examples["log"]), 200); a.body != "" {
		t.Errorf("the empty log is %q", a.body)
	}
	w.must(w.put(examples["log"], []byte("nonsense"), "Content-Encoding", "zstd"), 422)
	w.must(w.put(examples["log"], narfiletest.Compress(t, "gzip", []byte(long))[:50], "Content-Encoding", "gzip"), 422)
	w.must(w.put(examples["log"], []byte("x"), "Content-Encoding", "deflate"), 415)
	if a := w.get(examples["log"]); a.status != 200 || a.body != "" {
		t.Errorf("a refused log changed it: %v", a)
	}
	w.check()
}

// A log that fails while it is packed must be seen to be cut.
func TestPackedTextThatBreaks(t *testing.T) {
	w := newWorld(t)
	text := strings.Repeat("x", 5<<20)
	w.must(w.put(examples["log"], []byte(text)), 201)
	f, err := w.files.Open("log/" + strings.TrimPrefix(examples["log"], "/log/"))
	if err != nil {
		t.Fatal(err)
	}
	w.reads("log", func(rw *reply.Writer, req *http.Request) {
		defer f.Close()
		_ = reply.Stream(rw, req, f.Content, f.Size+1, "gzip", `"x"`) // it was longer when it was opened
	})
	if a := w.get(examples["log"]); a.cut == nil {
		t.Errorf("a whole answer of %d bytes", len(a.body))
	}
}

func TestDebuginfo(t *testing.T) {
	w := newWorld(t)
	id := strings.TrimSuffix(examples["debuginfo"], ".debug")
	doc := func(archive, member string) []byte {
		text, err := json.Marshal(map[string]string{"archive": archive, "member": member})
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	file := "../nar/" + someFile + ".nar.zst"
	good := doc(file, "lib/debug/.build-id/ab/cd.debug")
	w.must(w.put(id+".debug", good), 201)
	for _, path := range []string{id, id + ".debug"} { // one thing, two names
		if a := w.must(w.get(path), 200); a.body != string(good) || a.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %v %v", path, a, a.header)
		}
		w.must(w.head(path), 200)
	}
	again := doc("../nar/"+someFile+".nar", "lib/debug/x.debug")
	w.must(w.put(id, again), 201) // the latest stays
	if a := w.get(id + ".debug"); a.body != string(again) {
		t.Error(a)
	}
	for name, body := range map[string][]byte{
		"no JSON": []byte("x"), "nothing": nil, "null": []byte("null"), "a list": []byte("[]"), "no archive": doc("", "x"),
		"elsewhere": doc("http://elsewhere/x.nar", "x"), "climbs": doc("../nar/../../etc/passwd", "x"), "no member": doc(file, ""),
		"absolute": doc(file, "/etc/passwd"), "member climbs": doc(file, "../x"), "member climbs later": doc(file, "a/../../x"), "two": append(good, good...),
	} {
		if a := w.put(id, body); a.status != 422 {
			t.Errorf("%s: %v", name, a)
		}
	}
	w.check()
}

func TestRealisations(t *testing.T) {
	w := newWorld(t)
	sigs := signatures(t, 18)
	path, out := examples["realisation"], string(pathNamed("out"))
	doc := func(change func(map[string]any)) []byte {
		m := map[string]any{"id": someID, "outPath": out, "signatures": []string{}, "dependentRealisations": map[string]string{}}
		if change != nil {
			change(m)
		}
		text, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	signed := func(s ...string) []byte { return doc(func(m map[string]any) { m["signatures"] = s }) }
	stored := func() (m map[string]any) {
		t.Helper()
		a := w.must(w.get(path), 200)
		if err := json.Unmarshal([]byte(a.body), &m); err != nil {
			t.Fatal(err)
		}
		if b := w.get(strings.ReplaceAll(path, "!", "%21")); b.body != a.body {
			t.Error("! and %21 are two names")
		}
		return m
	}
	w.must(w.put(path, signed(sigs[1])), 201)
	w.must(w.put(strings.ReplaceAll(path, "!", "%21"), signed(sigs[0])), 201)
	w.must(w.put(path, doc(func(m map[string]any) {
		delete(m, "signatures")
		m["dependentRealisations"] = map[string]string{someID: out}
		m["later"] = "versions add fields"
	})), 201)
	w.must(w.put(path, doc(nil)), 201)
	m := stored()
	if got := fmt.Sprint(m["signatures"]); got != fmt.Sprint(sigs[:2]) {
		t.Errorf("signatures are %s", got)
	}
	if m["outPath"] != out || m["id"] != someID || m["later"] == nil || len(m["dependentRealisations"].(map[string]any)) != 1 {
		t.Errorf("stored %v", m)
	}
	w.must(w.put(path, doc(func(m map[string]any) { m["outPath"] = string(pathNamed("other")) })), 409, out, "first")
	w.must(w.put(path, signed(sigs[2:17]...)), 422, "16")
	for name, body := range map[string][]byte{
		"no JSON": []byte("x"), "null": []byte("null"), "a list": []byte("[]"), "nothing": nil, "another id": doc(func(m map[string]any) { m["id"] = "x" }),
		"no id": doc(func(m map[string]any) { delete(m, "id") }), "no outPath": doc(func(m map[string]any) { delete(m, "outPath") }),
		"outPath is a number": doc(func(m map[string]any) { m["outPath"] = 1 }), "outPath climbs": doc(func(m map[string]any) { m["outPath"] = "../" + out }),
		"signatures are a string":  doc(func(m map[string]any) { m["signatures"] = "x" }),
		"a signature is a number":  doc(func(m map[string]any) { m["signatures"] = []int{1} }),
		"a signature is corrupt":   signed("key:AAAA"),
		"a signature has no colon": signed("x"),
	} {
		if a := w.put(path, body); a.status != 422 {
			t.Errorf("%s: %v", name, a)
		}
	}
	if got := stored(); fmt.Sprint(got) != fmt.Sprint(m) {
		t.Errorf("a refused one changed it to %v", got)
	}
	w.check()
}

func TestRealisationDoesNotGrowForEver(t *testing.T) {
	w := newWorld(t)
	for i := range 2 {
		body := fmt.Sprintf(`{"id":%q,"outPath":%q,"field%d":%q}`, someID, pathNamed("out"), i, strings.Repeat("x", sidecar.MaxJSON*2/3))
		if a, want := w.put(examples["realisation"], []byte(body)), []int{201, 413}[i]; a.status != want {
			t.Errorf("%d: %v, want %d", i, a, want)
		}
	}
	w.must(w.put(examples["realisation"], fmt.Appendf(nil, `{"id":%q,"outPath":%q}`, someID, pathNamed("out"))), 201)
}

func TestBuildTrace(t *testing.T) {
	w := newWorld(t)
	path, out := examples["build-trace"], string(pathNamed("out"))
	sig := func(i int) string {
		name, data, _ := strings.Cut(signatures(t, 3)[i], ":")
		return fmt.Sprintf(`{"keyName":%q,"sig":%q}`, name, data)
	}
	doc := func(out string, sigs ...string) []byte {
		return fmt.Appendf(nil, `{"outPath":%q,"signatures":[%s]}`, out, strings.Join(sigs, ","))
	}
	w.must(w.put(path, doc(out, sig(1))), 201)
	w.must(w.put(path, doc(out, sig(0), sig(1))), 201)
	if a := w.must(w.get(path), 200); a.body != string(doc(out, sig(0), sig(1))) {
		t.Errorf("stored %s", a.body)
	}
	w.must(w.put(path, doc(string(pathNamed("other")))), 409, out)
	w.must(w.put(path, doc("nonsense")), 422)
	w.must(w.put(path, doc(out, `{"keyName":"k","sig":"AAAA"}`)), 422)
	w.must(w.put(path, doc(out, `{"sig":1}`)), 422)
	w.must(w.put(path, bytes.Repeat([]byte(" "), sidecar.MaxJSON+1)), 413)
	// A stored file that was damaged is our trouble, and not hidden.
	name := filepath.Join(w.dir, "cache", filepath.FromSlash(path))
	if err := os.WriteFile(name, []byte("rot"), 0o644); err != nil {
		t.Fatal(err)
	}
	w.must(w.put(path, doc(out)), 501, "log")
	w.check()
}

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
		if a.body != want || a.header.Get("Content-Type") != textType || a.header.Get("Content-Encoding") != "" {
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
