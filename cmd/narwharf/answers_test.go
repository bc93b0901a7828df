package main

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"narwharf/cache"
	"narwharf/cache/local"
	"narwharf/cache/local/compress"
	"narwharf/cache/nixstore"
	"narwharf/cache/refusal"
	"narwharf/cache/signed"
	"narwharf/cache/stored"
	"narwharf/cmd/narwharf/server"
	"narwharf/hooks/closure"
	"narwharf/hooks/serverconfig"
	"narwharf/narinfo"
	"narwharf/signing"
	"narwharf/signing/access"
	"narwharf/signing/access/scope"
)

// Channels tell by its methods what a refusal of the cache means.
var _ closure.Refusal = (*refusal.Error)(nil)

// answers asks a real server for everything that docs/openapi.json describes,
// and compares each answer with it.
type answers struct {
	t             *testing.T
	doc           *openAPI
	seen          map[string]bool // "PUT narinfo 409"
	server        *httptest.Server
	private       *httptest.Server // the same without anonymous access
	dir           *server.DataDir
	cache         *stored.Cache
	push          string // tokens, by scope
	pull, metrics string
	operate       string // a scope with which one may not read
}

func newAnswers(t *testing.T) *answers {
	t.Helper()
	cfg := serverconfig.Default()
	cfg.DataDir = t.TempDir()
	cfg.Cache.MaxNarSize = 1 << 20
	log := slog.New(slog.DiscardHandler)
	d, err := server.Open(cfg, "", log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() }) // a test may have closed the database
	key, err := signing.GenerateKey("cache-1")
	if err != nil {
		t.Fatal(err)
	}
	packed, err := compress.Open(compress.Options{Dir: t.TempDir(), Limit: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = packed.Close() })
	own := local.New(emptyStore{}, packed, t.TempDir(), log)
	signer, err := signed.New(func() ([]signing.Signer, error) { return []signing.Signer{key}, nil }, true, own)
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.OpenCache(own, nil, signer)
	if err != nil {
		t.Fatal(err)
	}
	a := &answers{t: t, doc: readOpenAPI(t), seen: make(map[string]bool), dir: d, cache: c}
	serve := func(anonymous ...string) *httptest.Server {
		scopes, err := scope.ParseSet(anonymous)
		if err != nil {
			t.Fatal(err)
		}
		s := cache.NewServer(cache.Options{
			Cache:    c,
			Access:   access.NewAuthenticator(access.Options{Tokens: d.Tokens, Anonymous: scopes}),
			BodyIdle: patience,
			Log:      log,
		})
		srv := httptest.NewServer(s)
		t.Cleanup(srv.Close)
		return srv
	}
	a.private, a.server = serve(), serve("pull", "metrics")
	a.push, a.pull, a.operate, a.metrics = a.token("push"), a.token("pull"), a.token("operate"), a.token("metrics")
	return a
}

// emptyStore is a Nix store without paths: what a URL of a local path leads to
// is then an upload.
type emptyStore struct{}

func (emptyStore) StoreDir() string                                        { return "/nix/store" }
func (emptyStore) RealPath(narinfo.Path) string                            { return "/var/empty" }
func (emptyStore) Still(nixstore.Version) bool                             { return true }
func (emptyStore) Version(context.Context) (v nixstore.Version, err error) { return v, nil }

func (emptyStore) Hold(context.Context, narinfo.Path) error { return nixstore.ErrNotValid }
func (emptyStore) Release(time.Duration) (int, error)       { return 0, nil }

func (emptyStore) Read(context.Context, func(context.Context, *sql.DB) error) error {
	return nixstore.ErrNotValid
}

func (emptyStore) InfoByHash(context.Context, string) (*narinfo.Info, error) {
	return nil, nixstore.ErrNotValid
}

func (emptyStore) PathInfo(context.Context, narinfo.Path) (*nixstore.PathInfo, error) {
	return nil, nixstore.ErrNotValid
}

func (a *answers) token(word string) string {
	a.t.Helper()
	scopes, err := scope.ParseSet([]string{word})
	if err != nil {
		a.t.Fatal(err)
	}
	secret, token, err := access.New(word, "", scopes, time.Now(), time.Time{})
	if err == nil {
		err = a.dir.Tokens.Add(a.t.Context(), token)
	}
	if err != nil {
		a.t.Fatal(err)
	}
	return secret
}

// ask is a request; raw headers, since net/http would put some right.
type ask struct {
	route, method, path string
	headers             []string // "Name: value"
	body                string
	length              int64 // to announce; 0: that of body, -1: none
	private             bool
}

// want sends a request and expects a status that the document has.
func (a *answers) want(status int, q ask) (header http.Header, body string) {
	a.t.Helper()
	srv := a.server
	if q.private {
		srv = a.private
	}
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		a.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: cache\r\nConnection: close\r\n", q.method, q.path)
	for _, h := range q.headers {
		head += h + "\r\n"
	}
	if q.length == 0 {
		q.length = int64(len(q.body))
	}
	if q.length >= 0 && q.method == http.MethodPut {
		head += "Content-Length: " + strconv.FormatInt(q.length, 10) + "\r\n"
	}
	if _, err := io.WriteString(conn, head+"\r\n"+q.body); err != nil {
		a.t.Fatal(err)
	}
	if tcp, ok := conn.(*net.TCPConn); ok && q.length > int64(len(q.body)) && q.body != "" {
		_ = tcp.CloseWrite()
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: q.method})
	if err != nil {
		a.t.Fatalf("%s %s: %v", q.method, q.path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatalf("%s %s: %v", q.method, q.path, err)
	}
	if resp.StatusCode != status {
		a.t.Errorf("%s %s %q: status %d, want %d: %s", q.method, q.path, q.headers, resp.StatusCode, status, text)
	}
	a.compare(q, resp, string(text))
	return resp.Header, string(text)
}

// compare holds an answer against the document.
func (a *answers) compare(q ask, resp *http.Response, body string) {
	a.t.Helper()
	at := fmt.Sprintf("%s %s %d", q.method, q.route, resp.StatusCode)
	a.seen[at] = true
	i := slices.IndexFunc(cache.Routes, func(r cache.Route) bool { return r.Name == q.route })
	if i < 0 {
		a.t.Fatalf("%s: no such route", at)
	}
	op := a.doc.route(a.t, cache.Routes[i]).operation(q.method)
	documented, ok := op.Responses[strconv.Itoa(resp.StatusCode)]
	if !ok {
		a.t.Errorf("%s is not in docs/openapi.json: %s", at, body)
		return
	}
	for name := range documented.Headers {
		if name != "Vary" && name != "Content-Encoding" && resp.Header.Get(name) == "" {
			a.t.Errorf("%s lacks the header %s", at, name)
		}
	}
	if q.method == http.MethodHead || body == "" {
		if body != "" {
			a.t.Errorf("%s has a body: %q", at, body)
		}
	} else if len(documented.Content) > 0 {
		media := resp.Header.Get("Content-Type")
		if _, exact := documented.Content[media]; !exact {
			short, _, _ := strings.Cut(media, ";")
			if _, any := documented.Content["*/*"]; any {
				return
			}
			if _, ok := documented.Content[short]; !ok {
				a.t.Errorf("%s has the Content-Type %s", at, media)
			}
		}
	}
	if resp.StatusCode >= 400 && q.method != http.MethodHead {
		if len(body) > 1000 || strings.Count(body, "\n") != 1 || !strings.HasSuffix(body, "\n") || len(body) < 5 {
			a.t.Errorf("%s: not one line that Nix shows: %q", at, body)
		}
	}
}

// subject is a row of the table with names and bodies to try it with.
type subject struct {
	route               string
	good, absent, wrong string // paths: there, not there, outside the grammar
	body, other, junk   string // to upload: good, another content, nonsense
}

func (a *answers) subjects() []subject {
	info, file, err := samplePath("sample", "a file")
	if err != nil {
		a.t.Fatal(err)
	}
	otherInfo, otherFile, err := samplePath("sample", "another file")
	if err != nil {
		a.t.Fatal(err)
	}
	// The other NAR has to be there for its narinfo to be in conflict.
	a.want(201, ask{route: "nar", method: "PUT", path: "/" + otherInfo.URL, body: string(otherFile), headers: bearer(a.push)})
	hash, none := info.Path.Hash(), sampleHash("none")
	id := "sha256:" + strings.Repeat("ab", 32)
	trace := func(out string) string { return fmt.Sprintf(`{"outPath":"%s-out","signatures":[]}`, sampleHash(out)) }
	doi := func(out string) string { return fmt.Sprintf(`{"id":"%s!out",%s`, id, trace(out)[1:]) }
	return []subject{
		{route: "nix-cache-info", good: "/nix-cache-info", body: "StoreDir: /nix/store\n", junk: "StoreDir: /other\n"},
		{"nar", "/" + info.URL, "/nar/" + none + none[:20] + ".nar", "/nar/x.nar", string(file), "", "no NAR"},
		{"narinfo", "/" + hash + ".narinfo", "/" + none + ".narinfo", "/x.narinfo", string(info.Append(nil)), string(otherInfo.Append(nil)), "no narinfo"},
		{"ls", "/" + hash + ".ls", "/" + none + ".ls", "/x.ls", `{"version":1,"root":{"type":"regular","size":1}}`, "", "no listing"},
		{route: "packed-nar", good: "/nar/" + hash + "-" + info.NarHash.Base32() + ".nar.zst", absent: "/nar/" + hash + "-" + none + none[:20] + ".nar.zst", wrong: "/nar/x-y.nar.zst"},
		{route: "plain-nar", good: "/nar/" + hash + "-" + info.NarHash.Base32() + ".nar", absent: "/nar/" + hash + "-" + none + none[:20] + ".nar", wrong: "/nar/x-y.nar"},
		{route: "serve", good: "/serve/" + hash + "/", absent: "/serve/" + none + "/", wrong: "/serve/x/"},
		{"log", "/log/" + hash + "-x.drv", "/log/" + none + "-x.drv", "/log/x", strings.Repeat("a line\n", 300), "", ""},
		{"debuginfo", "/debuginfo/0123456789.debug", "/debuginfo/9876543210", "/debuginfo/x",
			`{"archive":"../` + info.URL + `","member":"lib/debug"}`, "", "no JSON"},
		{"realisation", "/realisations/" + id + "!out.doi", "/realisations/" + id + "%21none.doi", "/realisations/x.doi", doi("one"), doi("two"), "no JSON"},
		{"build-trace", "/build-trace-v2/" + hash + "-x.drv/out.doi", "/build-trace-v2/" + hash + "-x.drv/none.doi", "/build-trace-v2/x/out.doi", trace("one"), trace("two"), "no JSON"},
		{route: "landing", good: "/"},
		{route: "pubkey", good: "/pubkey"},
		{route: "version", good: "/version"},
		{route: "healthz", good: "/healthz"},
		{route: "readyz", good: "/readyz"},
		{route: "metrics", good: "/metrics"},
	}
}

func bearer(token string) []string { return []string{"Authorization: Bearer " + token} }

// writes tries every answer of a PUT.
func (a *answers) writes(s subject) {
	put := func(status int, path, body string, headers ...string) {
		a.t.Helper()
		a.want(status, ask{route: s.route, method: "PUT", path: path, body: body, headers: append(headers, bearer(a.push)...)})
	}
	a.want(401, ask{route: s.route, method: "PUT", path: s.good, body: s.body})
	a.want(403, ask{route: s.route, method: "PUT", path: s.good, body: s.body, headers: bearer(a.pull)})
	a.want(411, ask{route: s.route, method: "PUT", path: s.good, headers: bearer(a.push), length: -1})
	a.want(400, ask{route: s.route, method: "PUT", path: s.good, headers: bearer(a.push), body: s.body[:10], length: 100})
	if s.wrong != "" {
		put(404, s.wrong, s.body)
		put(415, s.good, s.body, "Content-Encoding: deflate")
		a.want(413, ask{route: s.route, method: "PUT", path: s.good, length: 1 << 40, headers: append(bearer(a.push), "Expect: 100-continue")})
	} else {
		put(413, s.good, strings.Repeat("x", 5000))
	}
	if s.junk != "" {
		put(422, s.good, s.junk)
	} else {
		put(422, s.good, s.body, "Content-Encoding: gzip")
	}
	put(201, s.good, s.body)
	put(201, s.good, s.body)
	if s.other != "" {
		put(409, s.good, s.other)
	}
}

// reads tries every answer of GET and HEAD, after writes.
func (a *answers) reads(s subject) {
	for _, method := range []string{"GET", "HEAD"} {
		get := func(status int, path string, headers ...string) http.Header {
			a.t.Helper()
			h, _ := a.want(status, ask{route: s.route, method: method, path: path, headers: headers})
			return h
		}
		get(200, s.good) // a listing is made now
		h := get(200, s.good)
		if etag := h.Get("Etag"); etag != "" {
			get(304, s.good, "If-None-Match: "+etag)
		}
		if strings.HasSuffix(s.route, "-nar") {
			get(412, s.good, `If-Match: "another"`)
		}
		if h.Get("Accept-Ranges") != "" && method == "GET" {
			get(206, s.good, "Range: bytes=0-0")
			get(416, s.good, "Range: bytes=1000000-")
		}
		if s.absent != "" {
			get(404, s.absent)
			get(404, s.wrong)
		}
		if op := a.operation(s.route, method); op.Scope != "" {
			a.want(401, ask{route: s.route, method: method, path: s.good, private: true})
			a.want(403, ask{route: s.route, method: method, path: s.good, private: true, headers: bearer(a.operate)})
			has := a.pull
			if op.Scope == "metrics" {
				has = a.metrics
			}
			a.want(200, ask{route: s.route, method: method, path: s.good, private: true, headers: bearer(has)})
		}
	}
}

func (a *answers) operation(route, method string) *apiOperation {
	i := slices.IndexFunc(cache.Routes, func(r cache.Route) bool { return r.Name == route })
	return a.doc.route(a.t, cache.Routes[i]).operation(method)
}

// exercise asks for everything.
func (a *answers) exercise() {
	subjects := a.subjects()
	for _, s := range subjects {
		if s.body != "" {
			a.writes(s)
		}
	}
	for _, s := range subjects {
		a.reads(s)
		a.refusesMethods(s)
	}
}

// refusesMethods sees that other methods get 405 with what would be right.
func (a *answers) refusesMethods(s subject) {
	methods, allow := []string{"POST", "DELETE", "PATCH", "OPTIONS"}, "GET, HEAD, PUT"
	if s.body == "" {
		methods, allow = append(methods, "PUT"), "GET, HEAD"
	}
	for _, method := range methods {
		req, err := http.NewRequest(method, a.server.URL+s.good, nil)
		if err != nil {
			a.t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+a.push)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			a.t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != allow {
			a.t.Errorf("%s %s: status %d with Allow %q, want 405 with %q", method, s.good, resp.StatusCode, resp.Header.Get("Allow"), allow)
		}
	}
}

// unprovoked are documented answers that need a broken disk or database.
func unprovoked(route, status string) bool {
	return status == "500" || status == "501" || status == "502" || status == "503" && route != "readyz"
}

func TestAnswersAreDocumented(t *testing.T) {
	a := newAnswers(t)
	a.exercise()
	if err := os.Remove(filepath.Join(a.dir.Config.DataDir, "cache", "nix-cache-info")); err != nil {
		t.Fatal(err)
	}
	a.want(503, ask{route: "readyz", method: "GET", path: "/readyz"})
	a.want(503, ask{route: "readyz", method: "HEAD", path: "/readyz"})
	info, file, err := samplePath("late", "too late")
	if err != nil {
		t.Fatal(err)
	}
	a.want(201, ask{route: "nar", method: "PUT", path: "/" + info.URL, body: string(file), headers: bearer(a.push)})
	if err := a.dir.State.Close(); err != nil {
		t.Fatal(err)
	}
	a.want(500, ask{route: "narinfo", method: "GET", path: "/" + sampleHash("never asked for") + ".narinfo"})
	a.want(501, ask{route: "narinfo", method: "PUT", path: "/" + info.Path.Hash() + ".narinfo", body: string(info.Append(nil)), headers: bearer(a.push)})

	for _, r := range cache.Routes {
		p := a.doc.route(t, r)
		for _, method := range []string{"GET", "HEAD", "PUT"} {
			op := p.operation(method)
			if op == nil {
				continue
			}
			for status := range op.Responses {
				if at := method + " " + r.Name + " " + status; !a.seen[at] && !unprovoked(r.Name, status) {
					t.Errorf("docs/openapi.json has %s, which no request of this test gets", at)
				}
			}
		}
	}
}
