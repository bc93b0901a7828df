package e2e

import (
	"fmt"
	"html"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// A shelf is a server with one of everything that can be read.
type shelf struct {
	server *Server
	path   *Path
	doc    Doc
	file   []byte
	urls   map[string]string // path to the content type it has
}

func newShelf(t *testing.T) *shelf {
	t.Helper()
	s := NewServer(t, func(c *Config) { c.Anonymous = []string{"pull", "metrics"} })
	u := NewUploader(t, s.URL(), s.Token("ci", "push"))
	u.Compression, u.Listing = "none", true
	p := NewPath("shelf", NAR(File{Body: string(noise(30, 100_000))}))
	ls := fmt.Sprintf(`{"root":{"narOffset":96,"size":%d,"type":"regular"},"version":1}`, 100_000)
	if r := u.Do("PUT", "/"+p.Hash()+".ls", "application/json", []byte(ls)); !r.OK() {
		t.Fatal(r)
	}
	u.Listing = false
	u.Upload(p)
	doc, file := u.Describe(p)
	drv := NewPath("shelf.drv", nil).Base
	put := func(path, kind, body string) {
		t.Helper()
		if r := u.Do("PUT", path, kind, []byte(body)); !r.OK() {
			t.Fatal(r)
		}
	}
	id := "sha256:" + strings.Repeat("ab", 32) + "!out"
	put("/log/"+drv, "text/plain; charset=utf-8", "built\n")
	put("/realisations/"+id+".doi", "application/json", `{"dependentRealisations":{},"id":"`+id+`","outPath":"`+p.Base+`","signatures":[]}`)
	put("/build-trace-v2/"+drv+"/out.doi", "application/json", `{"outPath":"`+p.Base+`","signatures":[]}`)
	debug := "/debuginfo/" + strings.Repeat("ab", 20) + ".debug"
	put(debug, "application/json", `{"archive":"../`+doc.URL+`","member":"lib/debug/x"}`)
	return &shelf{server: s, path: p, doc: doc, file: file, urls: map[string]string{
		"/nix-cache-info": "text/x-nix-cache-info", "/" + p.Hash() + ".narinfo": "text/x-nix-narinfo", "/" + doc.URL: "application/x-nix-nar",
		"/" + p.Hash() + ".ls": "application/json", "/log/" + drv: "text/plain", "/realisations/" + id + ".doi": "application/json",
		"/build-trace-v2/" + drv + "/out.doi": "application/json", debug: "application/json",
		"/": "text/html", "/pubkey": "text/plain", "/version": "", "/healthz": "", "/readyz": "", "/metrics": "text/plain",
	}}
}

// Every GET route answers HEAD with the same status, type and length, and no body.
func TestHeadOnEveryRoute(t *testing.T) {
	t.Parallel()
	sh := newShelf(t)
	addr := sh.server.Addr()
	for path, kind := range sh.urls {
		get, head := Ask(t, addr, "GET", path), Ask(t, addr, "HEAD", path)
		if get.Status != 200 || head.Status != 200 {
			t.Errorf("%v, %v", get, head)
			continue
		}
		got, _, _ := mime.ParseMediaType(get.Header.Get("Content-Type"))
		if kind != "" && got != kind {
			t.Errorf("%s is %q, want %q", path, get.Header.Get("Content-Type"), kind)
		}
		if a, b := get.Header.Get("Content-Type"), head.Header.Get("Content-Type"); a != b {
			t.Errorf("%s is %q to GET and %q to HEAD", path, a, b)
		}
		if l := head.Header.Get("Content-Length"); l != "" && path != "/metrics" && l != strconv.Itoa(len(get.Body)) {
			t.Errorf("%s has Content-Length %s to HEAD and %d bytes to GET", path, l, len(get.Body))
		}
		if get.Header.Get("Content-Encoding") != "" {
			t.Errorf("%s is encoded and nobody asked", path)
		}
		// No browser guesses that what somebody uploaded is a page.
		uploaded := strings.HasPrefix(path, "/log/") || kind == "application/json"
		if uploaded && get.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s may be sniffed: %v", path, get.Header)
		}
	}
	zero := strings.Repeat("0", 32)
	for _, path := range []string{"/" + zero + ".narinfo", "/" + zero + ".ls", "/nar/" + strings.Repeat("0", 52) + ".nar.xz",
		"/log/" + zero + "-x.drv", "/realisations/sha256:" + strings.Repeat("0", 64) + "!out.doi", "/build-trace-v2/" + zero + "-x.drv/out.doi",
		"/debuginfo/" + strings.Repeat("0", 40) + ".debug", "/no/such/place", "/nar/nonsense", "/x.narinfo"} {
		for _, method := range []string{"GET", "HEAD"} {
			r := Ask(t, addr, method, path)
			if r.Status != 404 {
				t.Errorf("%v: want 404", r)
			}
			if method == "GET" {
				checkRefusalText(t, r, "")
			}
		}
	}
	for _, method := range []string{"DELETE", "POST", "PATCH"} {
		if r := Ask(t, addr, method, "/"+sh.doc.URL, "Content-Length: 0"); r.Status != 405 || r.Header.Get("Allow") == "" {
			t.Errorf("%v, Allow %q: want 405 with Allow", r, r.Header.Get("Allow"))
		}
	}
}

// A stored NAR has a strong ETag and byte ranges, as RFC 9110 says and as clients resume.
func TestRanges(t *testing.T) {
	t.Parallel()
	sh := newShelf(t)
	addr, url, body := sh.server.Addr(), "/"+sh.doc.URL, string(sh.file)
	size := len(body)
	whole := Ask(t, addr, "GET", url)
	etag := whole.Header.Get("ETag")
	if whole.Body != body || whole.Header.Get("Accept-Ranges") != "bytes" || whole.Header.Get("Content-Length") != strconv.Itoa(size) {
		t.Fatalf("GET: %d %v", whole.Status, whole.Header)
	}
	if len(etag) < 4 || etag[0] != '"' {
		t.Fatalf("ETag %q is not a strong one", etag)
	}
	if h := Ask(t, addr, "HEAD", url); h.Header.Get("ETag") != etag || h.Header.Get("Accept-Ranges") != "bytes" || h.Header.Get("Content-Length") != strconv.Itoa(size) {
		t.Errorf("HEAD: %v", h.Header)
	}
	for _, c := range []struct {
		header   []string
		from, to int // of a 206, to is exclusive
	}{
		{[]string{"Range: bytes=0-0"}, 0, 1},
		{[]string{"Range: bytes=100-199"}, 100, 200},
		{[]string{"Range: bytes=50000-"}, 50000, size},
		{[]string{"Range: bytes=-100"}, size - 100, size},
		{[]string{fmt.Sprintf("Range: bytes=%d-", size-1)}, size - 1, size},
		{[]string{"Range: bytes=100-99999999"}, 100, size},
		{[]string{"Range: bytes=100-199", "If-Range: " + etag}, 100, 200},
		{[]string{"Range: bytes=100-", "Accept-Encoding: zstd, br, gzip, deflate, bzip2, xz"}, 100, size},
	} {
		r := Ask(t, addr, "GET", url, c.header...)
		want := fmt.Sprintf("bytes %d-%d/%d", c.from, c.to-1, size)
		if r.Status != 206 || r.Body != body[c.from:c.to] || r.Header.Get("Content-Range") != want || r.Header.Get("ETag") != etag {
			t.Errorf("%s: %d, %d bytes, %v", r.Request, r.Status, len(r.Body), r.Header)
		}
	}
	for _, c := range []struct {
		header string
		want   int
	}{
		{fmt.Sprintf("Range: bytes=%d-", size), 416},
		{"Range: bytes=999999999-", 416},
		{"Range: bytes=200-100", 200}, // invalid: RFC 9110 says to ignore it
		{"Range: lines=1-2", 200},
		{"Range: bytes=", 200},
		{"If-None-Match: " + etag, 304},
		{"If-None-Match: *", 304},
		{`If-None-Match: "x", ` + etag, 304},
		{"If-None-Match: W/" + etag, 304},
		{`If-None-Match: "x"`, 200},
		{`If-Match: "x"`, 412},
	} {
		r := Ask(t, addr, "GET", url, c.header)
		if r.Status != c.want && (c.want != 200 || r.Status != 416) { // a server may also refuse an invalid one
			t.Errorf("%s: %d, want %d", r.Request, r.Status, c.want)
		}
		if r.Header.Get("Accept-Ranges") != "bytes" && r.Status != 304 && r.Status != 412 {
			t.Errorf("%s: %d without Accept-Ranges", r.Request, r.Status)
		}
		if c.want == 416 && r.Header.Get("Content-Range") != fmt.Sprintf("bytes */%d", size) {
			t.Errorf("%s: Content-Range %q", r.Request, r.Header.Get("Content-Range"))
		}
		if r.Status == 200 && r.Body != body {
			t.Errorf("%s: another body", r.Request)
		}
	}
	if r := Ask(t, addr, "GET", url, "Range: bytes=100-199", `If-Range: "x"`); r.Status != 200 || r.Body != body {
		t.Errorf("If-Range of other bytes: %d", r.Status)
	}
	// On errors too: Nix resumes after an error only with it.
	if r := Ask(t, addr, "GET", "/nar/"+strings.Repeat("0", 52)+".nar", "Range: bytes=5-"); r.Status != 404 || r.Header.Get("Accept-Ranges") != "bytes" {
		t.Errorf("%v %v", r, r.Header)
	}
	// What never changes may be kept for ever, what does may not.
	if cc := whole.Header.Get("Cache-Control"); cc != "" && !strings.Contains(cc, "immutable") && !strings.Contains(cc, "max-age") {
		t.Errorf("Cache-Control of a NAR: %q", cc)
	}
}

// Several requests on one connection, also after a refused upload whose body was sent.
func TestKeepAlive(t *testing.T) {
	t.Parallel()
	sh := newShelf(t)
	r := DialRaw(t, sh.server.Addr())
	for range 3 {
		r.Send("GET /nix-cache-info HTTP/1.1\nHost: x\n\nHEAD /" + sh.doc.URL + " HTTP/1.1\nHost: x\n\n") // pipelined
		if reply, _ := r.Answer("GET"); reply.Status != 200 || !strings.Contains(reply.Body, "StoreDir: /nix/store\n") {
			t.Fatal(reply)
		}
		if reply, _ := r.Answer("HEAD"); reply.Status != 200 {
			t.Fatal(reply)
		}
	}
	r.Send("PUT /" + strings.Repeat("0", 32) + ".narinfo HTTP/1.1\nHost: localhost\nContent-Length: 5\n\nwrong")
	reply, _ := r.Answer("PUT")
	if reply.Status != 401 {
		t.Fatal(reply)
	}
	if reply.Header.Get("Connection") == "close" {
		if rest, err := io.ReadAll(r.r); err != nil || len(rest) > 0 {
			t.Errorf("after Connection: close: %q %v", rest, err)
		}
		return
	}
	r.Send("GET /nix-cache-info HTTP/1.1\nHost: x\n\n")
	if reply, _ := r.Answer("GET"); reply.Status != 200 {
		t.Fatal(reply)
	}
}

// HTTP/1.0, as simple proxies speak it.
func TestHTTP10(t *testing.T) {
	t.Parallel()
	sh := newShelf(t)
	for path := range sh.urls {
		r := DialRaw(t, sh.server.Addr())
		r.Send("GET " + path + " HTTP/1.0\n\n")
		want := http.StatusOK
		if path == "/metrics" { // more than pull, of a request that names no host
			want = http.StatusMisdirectedRequest
		}
		if reply, _ := r.Answer("GET"); reply.Status != want {
			t.Errorf("HTTP/1.0: %s: %v", path, reply)
		}
	}
}

// The text endpoints say what a person and a program need.
func TestTexts(t *testing.T) {
	t.Parallel()
	sh := newShelf(t)
	u := NewUploader(t, sh.server.URL(), "")
	info := u.Get("/nix-cache-info").Body
	for _, line := range []string{"StoreDir: /nix/store\n", "WantMassQuery: 1\n", "Priority: 30\n"} {
		if !strings.Contains(info, line) {
			t.Errorf("nix-cache-info does not say %q:\n%s", line, info)
		}
	}
	if r := u.Get("/pubkey"); r.Body != sh.server.Key.Public()+"\n" {
		t.Errorf("/pubkey: %q", r.Body)
	}
	landing := html.UnescapeString(u.Get("/").Body)
	for _, text := range []string{sh.server.Key.Public(), "substituters", "trusted-public-keys"} {
		if !strings.Contains(landing, text) {
			t.Errorf("the landing page does not hold %q", text)
		}
	}
	metrics := u.Get("/metrics").Body
	for _, text := range []string{"narwharf_", "go_goroutines"} {
		if !strings.Contains(metrics, text) {
			t.Errorf("/metrics does not hold %q", text)
		}
	}
	doc := ParseDoc(t, u.Get("/"+sh.path.Hash()+".narinfo").Body)
	if doc.SignedBy(sh.server.Key) != 1 || len(doc.Sigs) != 1 || doc.NarHash != sh.doc.NarHash || doc.URL != sh.doc.URL {
		t.Errorf("narinfo\n%v", doc)
	}
}
