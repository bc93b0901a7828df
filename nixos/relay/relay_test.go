package relay

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"narwharf/narinfo"
	"narwharf/signing"
)

const storeDir = "/nix/store"

// A hostile cache serves what it is told to, and counts.
type hostile struct {
	*httptest.Server
	mu    sync.Mutex
	serve map[string]http.HandlerFunc
	asked []string // "path range authorization"
	sent  atomic.Int64
}

func newHostile(t *testing.T) *hostile {
	h := &hostile{serve: make(map[string]http.HandlerFunc)}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		h.asked = append(h.asked, strings.TrimRight(r.URL.String()+" "+r.Header.Get("Range")+" "+r.Header.Get("Authorization"), " "))
		f := h.serve[r.URL.Path]
		h.mu.Unlock()
		if f == nil {
			http.NotFound(w, r)
			return
		}
		f(w, r)
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *hostile) requests() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.asked)
}

func (h *hostile) cache(t *testing.T, path string) Cache {
	t.Helper()
	c, err := ParseCache(h.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// line is a line of a manifest, for a body of these bytes.
func line(name string, body []byte, refs ...narinfo.Path) signing.Line {
	var hash narinfo.Hash
	copy(hash[:], name+strings.Repeat("x", 32))
	return signing.Line{Path: narinfo.Path(strings.Repeat("0", 31) + "1-" + name), NarHash: hash, NarSize: int64(len(body)), References: refs}
}

// info is the narinfo that fits a line.
func info(l signing.Line, url, compression string) *narinfo.Info {
	return &narinfo.Info{
		StoreDir: storeDir, Path: l.Path, URL: url, Compression: compression, NarHash: l.NarHash, NarSize: l.NarSize, References: l.References,
		Sigs: []string{"ci-1:" + strings.Repeat("A", 86) + "=="},
	}
}

func text(i *narinfo.Info) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(i.Append(nil)) }
}

func file(body []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	}
}

func start(t *testing.T, o Options) *Relay {
	t.Helper()
	if o.Transport == nil {
		o.Transport = http.DefaultTransport.(*http.Transport).Clone()
		o.Transport.DisableCompression = true
	}
	o.StoreDir = storeDir
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(); o.Transport.CloseIdleConnections() })
	return r
}

// fetch gets a path of the relay's, as Nix does.
func fetch(t *testing.T, url string, header ...string) (status int, body []byte, err error) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.New(rand.NewSource(int64(n))).Read(b)
	return b
}

// packers pack with each compression that Nix knows and Go can make; xz and bzip2 are in TestRealNix.
var packers = map[string]func(w io.Writer) io.WriteCloser{
	"none": func(w io.Writer) io.WriteCloser { return struct{ io.WriteCloser }{nopCloser{w}} },
	"zstd": func(w io.Writer) io.WriteCloser { e, _ := zstd.NewWriter(w); return e },
	"gzip": func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
	"br":   func(w io.Writer) io.WriteCloser { return brotli.NewWriter(w) },
	"lz4":  func(w io.Writer) io.WriteCloser { return lz4.NewWriter(w) },
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

func pack(t *testing.T, compression string, body []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := packers[compression](&b)
	if _, err := w.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestHostileNarinfo: Nix is shown what the manifest has, or nothing.
func TestHostileNarinfo(t *testing.T) {
	l := line("a", random(1000), "00000000000000000000000000000002-lib")
	for name, change := range map[string]func(i *narinfo.Info){
		"as signed":    func(*narinfo.Info) {},
		"another hash": func(i *narinfo.Info) { i.NarHash[0]++ },
		"another size": func(i *narinfo.Info) { i.NarSize++ },
		"a reference more": func(i *narinfo.Info) {
			i.References = append(slices.Clone(i.References), "00000000000000000000000000000003-evil")
		},
		"a reference less":  func(i *narinfo.Info) { i.References = nil },
		"another path":      func(i *narinfo.Info) { i.Path = "00000000000000000000000000000001-b" },
		"another store":     func(i *narinfo.Info) { i.StoreDir = "/gnu/store" },
		"no narinfo at all": nil,
	} {
		h := newHostile(t)
		at := "/" + l.Path.Hash() + ".narinfo"
		h.serve[at] = func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }
		if change != nil {
			i := info(l, "nar/x.nar", "none")
			change(i)
			h.serve[at] = text(i)
		}
		r := start(t, Options{Lines: []signing.Line{l}, Caches: []Cache{h.cache(t, "")}})
		status, got, err := fetch(t, r.URL+at)
		if err != nil {
			t.Fatal(err)
		}
		if name == "as signed" {
			want := info(l, "nar/"+l.Path.Hash()+".nar", "none").Append(nil)
			if status != 200 || !bytes.Equal(got, want) {
				t.Errorf("%s: %d\n%s\nwant\n%s", name, status, got, want)
			}
			continue
		}
		if status != 404 {
			t.Errorf("%s: %d %s", name, status, got)
		}
		if why := r.Why(errors.New("nix-store: exit status 1")); !strings.Contains(why.Error(), "signed") && name != "no narinfo at all" {
			t.Errorf("%s: the reason is %v", name, why)
		}
	}
	// A path of no line is not even asked for.
	h := newHostile(t)
	r := start(t, Options{Lines: []signing.Line{l}, Caches: []Cache{h.cache(t, "")}})
	for _, path := range []string{"/00000000000000000000000000000009.narinfo", "/nar/00000000000000000000000000000009.nar", "/log/x", "/"} {
		if status, _, _ := fetch(t, r.URL+path); status != 404 || len(h.requests()) > 0 {
			t.Errorf("%s: %d, asked %q", path, status, h.requests())
		}
	}
	// Nobody without the secret.
	if status, _, _ := fetch(t, strings.Replace(r.URL, r.prefix, "/0123456789abcdef0123456789abcdef", 1)+"/nix-cache-info"); status != 404 {
		t.Errorf("without the secret: %d", status)
	}
	if status, got, _ := fetch(t, r.URL+"/nix-cache-info"); status != 200 || !strings.HasPrefix(string(got), "StoreDir: /nix/store\n") {
		t.Errorf("nix-cache-info: %d %s", status, got)
	}
}

// TestAnotherNarinfoMeanwhile: what was compared is what counts, whatever the cache says later.
func TestAnotherNarinfoMeanwhile(t *testing.T) {
	body := random(1000)
	l := line("a", body)
	h := newHostile(t)
	at := "/" + l.Path.Hash() + ".narinfo"
	h.serve[at] = text(info(l, "nar/good", "none"))
	h.serve["/nar/good"] = file(body)
	r := start(t, Options{Lines: []signing.Line{l}, Caches: []Cache{h.cache(t, "")}})
	_, before, _ := fetch(t, r.URL+at)
	evil := info(l, "nar/evil", "none")
	evil.References = []narinfo.Path{"00000000000000000000000000000003-evil"}
	h.mu.Lock()
	h.serve[at] = text(evil)
	h.mu.Unlock()
	_, after, _ := fetch(t, r.URL+at)
	if !bytes.Equal(before, after) {
		t.Errorf("first\n%s\nthen\n%s", before, after)
	}
	if status, got, err := fetch(t, r.URL+"/nar/"+l.Path.Hash()+".nar"); status != 200 || err != nil || !bytes.Equal(got, body) {
		t.Errorf("%d, %d bytes, %v", status, len(got), err)
	}
}

// TestSeveralCaches: one that is away, or lies, is passed over; each has its own token.
func TestSeveralCaches(t *testing.T) {
	body := random(5000)
	l := line("a", body)
	at := "/" + l.Path.Hash() + ".narinfo"
	lying, good := newHostile(t), newHostile(t)
	evil := info(l, "nar/x", "none")
	evil.NarHash[0]++
	lying.serve[at], good.serve[at], good.serve["/nar/x"] = text(evil), text(info(l, "nar/x", "none")), file(body)
	away := Cache{URL: &url.URL{Scheme: "http", Host: "nothing.invalid"}}
	first, second := lying.cache(t, ""), good.cache(t, "")
	first.Token, second.Token = "one", "two"
	r := start(t, Options{Lines: []signing.Line{l}, Caches: []Cache{away, first, second}})
	if status, got, err := fetch(t, r.URL+"/nar/"+l.Path.Hash()+".nar"); status != 200 || err != nil || !bytes.Equal(got, body) {
		t.Errorf("%d, %d bytes, %v", status, len(got), err)
	}
	for _, asked := range slices.Concat(lying.requests(), good.requests()) {
		if strings.Contains(asked, "Basic") != (strings.HasSuffix(asked, "Basic bmFyd2hhcmY6b25l") || strings.HasSuffix(asked, "Basic bmFyd2hhcmY6dHdv")) {
			t.Errorf("asked %q", asked)
		}
	}
	if lying.requests()[0] != at+"  Basic bmFyd2hhcmY6b25l" || good.requests()[0] != at+"  Basic bmFyd2hhcmY6dHdv" {
		t.Errorf("asked %q and %q", lying.requests(), good.requests())
	}
}

// TestRate: all transfers together keep to the rate, and arrive as they were sent.
func TestRate(t *testing.T) {
	const size, rate = 64 << 10, 256 << 10
	body := random(size)
	h := newHostile(t)
	var lines []signing.Line
	for i := range 4 {
		l := line("a", body)
		l.Path = narinfo.Path(fmt.Sprintf("%s%d-a", strings.Repeat("0", 31), i))
		lines = append(lines, l)
		h.serve["/"+l.Path.Hash()+".narinfo"] = text(info(l, "nar/x", "none"))
	}
	h.serve["/nar/x"] = file(body)
	r := start(t, Options{Lines: lines, Caches: []Cache{h.cache(t, "")}, Rate: rate})
	began := time.Now()
	var wg sync.WaitGroup
	for _, l := range lines {
		wg.Go(func() {
			if _, got, err := fetch(t, r.URL+"/nar/"+l.Path.Hash()+".nar"); err != nil || !bytes.Equal(got, body) {
				t.Errorf("%d bytes: %v", len(got), err)
			}
		})
	}
	wg.Wait()
	if took, least := time.Since(began), time.Duration(4*size)*time.Second/rate*9/10; took < least {
		t.Errorf("all came within %v, which should take %v", took, least)
	}
	if r.Why(nil) != nil || r.Why(io.EOF).Error() != "EOF" {
		t.Error("a reason where there is none")
	}
}

// TestTellsWhy: Nix sees a 502 or an end, the operator the reason, and nobody the secret.
func TestTellsWhy(t *testing.T) {
	l := line("a", random(100))
	h := newHostile(t)
	h.serve["/"+l.Path.Hash()+".narinfo"] = text(info(l, "nar/x", "none"))
	h.serve["/nar/x"] = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "half")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	away := Cache{URL: &url.URL{Scheme: "http", Host: "nothing.invalid"}}
	for _, c := range []struct {
		cache Cache
		says  string
	}{{h.cache(t, ""), "unexpected EOF"}, {away, "nothing.invalid"}} {
		r := start(t, Options{Lines: []signing.Line{l}, Caches: []Cache{c.cache}})
		status, _, err := fetch(t, r.URL+"/nar/"+l.Path.Hash()+".nar")
		if status == 200 && err == nil {
			t.Errorf("%s: no error", c.says)
		}
		why := r.Why(fmt.Errorf("unable to download '%s/nar/x'", r.URL)).Error()
		if !strings.Contains(why, c.says) || strings.Contains(why, r.prefix) {
			t.Errorf("the reason is %s", why)
		}
	}
}

func TestParseCache(t *testing.T) {
	for text, want := range map[string]string{
		"https://a.example/x/?trusted=1": "https://a.example/x narwharf ", "http://u:p@a.example:8080": "http://a.example:8080 u p",
		"file:///srv/cache": "file:///srv/cache narwharf ", "s3://bucket": "", "ssh://host": "", "/srv": "", "http://": "",
	} {
		c, err := ParseCache(text)
		if got := fmt.Sprintf("%s %s %s", c.URL, c.User, c.Token); (err != nil) != (want == "") || err == nil && got != want {
			t.Errorf("%s: %q, %v", text, got, err)
		}
	}
	for _, bad := range []string{"https://a.example", "a.example/x", "*.example", "", "a b"} {
		if CheckHosts([]string{bad}) == nil {
			t.Errorf("download.hosts takes %q", bad)
		}
	}
	if err := CheckHosts([]string{"a.example", "A.example:8080", "10.0.0.0/8", "::1", "[::1]:80", "192.0.2.1"}); err != nil {
		t.Error(err)
	}
}

func TestWithoutProxy(t *testing.T) {
	for _, c := range []struct{ lower, upper, want string }{
		{"", "", "127.0.0.1"}, {"", "a.example", "a.example,127.0.0.1"}, {"b.example", "a.example", "b.example,127.0.0.1"}, {"*", "", "*"},
	} {
		got := WithoutProxy(func(name string) string { return map[string]string{"no_proxy": c.lower, "NO_PROXY": c.upper}[name] })
		if !slices.Equal(got, []string{"no_proxy=" + c.want, "NO_PROXY=" + c.want}) {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

// TestNarinfoWithoutMeasure: signatures that a cache makes up are not kept: those of a whole closure would
// be in memory together.
func TestNarinfoWithoutMeasure(t *testing.T) {
	h := newHostile(t)
	l := line("long", []byte("x"))
	i := info(l, "nar/x.nar", "none")
	r := start(t, Options{Lines: []signing.Line{l}, Caches: []Cache{h.cache(t, "")}})
	for n, want := range map[int]int{16: 200, 10_000: 502} {
		sig := i.Sigs[0][strings.IndexByte(i.Sigs[0], ':'):]
		i.Sigs = nil
		for k := range n {
			i.Sigs = append(i.Sigs, fmt.Sprint("ci-", k, sig))
		}
		h.mu.Lock()
		h.serve["/"+l.Path.Hash()+".narinfo"] = text(i)
		h.mu.Unlock()
		r.mu.Lock()
		clear(r.offers)
		r.mu.Unlock()
		resp, err := http.Get(r.URL + "/" + l.Path.Hash() + ".narinfo")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%d signatures: %s, want %d", n, resp.Status, want)
		}
	}
}
