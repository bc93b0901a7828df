package cache

import (
	"bytes"
	"context"
	"html"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"narwharf/cache/local/compress"
	"narwharf/cache/nar"
	"narwharf/cache/retention"
	"narwharf/cache/root"
	"narwharf/cache/state"
	"narwharf/cache/stored"
	"narwharf/cache/upstream"
	"narwharf/narinfo"
	"narwharf/signing"
)

// openUpstreams makes the upstreams that the setup has.
func (w *world) openUpstreams(log *slog.Logger) *upstream.Upstreams {
	w.t.Helper()
	if len(w.setup.upstreams) == 0 {
		return nil
	}
	o := upstream.Options{StoreDir: "/nix/store", Upstreams: w.setup.upstreams, State: w.state, Log: log}
	if w.setup.local != nil {
		o.Packed = w.setup.local.Compressed
	} else {
		packed, err := compress.Open(compress.Options{Dir: filepath.Join(w.dir, "packed"), Limit: 1 << 30, Log: log})
		if err != nil {
			w.t.Fatal(err)
		}
		o.Packed = packed
	}
	ups, err := upstream.New(o)
	if err != nil {
		w.t.Fatal(err)
	}
	return ups
}

func (w *world) closeUpstreams() {
	ups := w.channels.Upstreams
	if ups == nil {
		return
	}
	ups.Close()
	if w.setup.local == nil {
		if err := ups.Packed.Close(); err != nil {
			w.t.Error(err)
		}
	}
}

// stranger is a cache of somebody else: it sends what it is told to.
type stranger struct {
	*httptest.Server
	t   *testing.T
	key signing.SecretKey

	mu    sync.Mutex
	serve map[string]http.HandlerFunc
	asked []*http.Request
}

func newStranger(t *testing.T, name string) *stranger {
	t.Helper()
	s := &stranger{t: t, key: makeKey(t, name), serve: make(map[string]http.HandlerFunc)}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked = append(s.asked, r)
		fn := s.serve[r.URL.Path]
		s.mu.Unlock()
		if fn == nil {
			http.NotFound(w, r)
			return
		}
		fn(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func makeKey(t *testing.T, name string) signing.SecretKey {
	t.Helper()
	key, err := signing.GenerateKey(name)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (s *stranger) set(path string, fn http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serve[path] = fn
}

// count is how many requests there were for what ends so.
func (s *stranger) count(suffix string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.asked {
		if strings.HasSuffix(r.URL.Path, suffix) {
			n++
		}
	}
	return n
}

func (s *stranger) config() upstream.Config { return upstreamAt(s.t, s.URL, s.key.Public()) }

func upstreamAt(t *testing.T, at string, keys ...signing.PublicKey) upstream.Config {
	t.Helper()
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	return upstream.Config{URL: u, Keys: keys, PullThrough: true, Keep: true}
}

func text(b []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(b) }
}

func file(b []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	}
}

// has gives a stranger paths, signed by its key.
func (s *stranger) has(paths ...*testPath) {
	for _, p := range paths {
		p.info.Sigs = nil
		p.info.Sigs = signInfo(p.info, []signing.SecretKey{s.key})
		s.set(p.infoURL(), text(p.text()))
		s.set(p.narURL(), file(p.body))
	}
}

// large makes a path whose NAR file has some megabytes.
func large(t *testing.T, name string) *testPath {
	t.Helper()
	b := make([]byte, 3<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return packUpload(t, name, narOf(t, map[string]string{"file": string(b)}), "zstd")
}

func (w *world) asPusher() []string { return []string{"Authorization", "Bearer " + w.token} }

// behindOf is a world before upstreams, with a key of its own.
func behindOf(t *testing.T, ups ...upstream.Config) (*world, signing.SecretKey) {
	t.Helper()
	key := makeKey(t, "front-1")
	return newWorld(t, func(s *setup) {
		s.upstreams = ups
		s.keys = func() ([]signing.SecretKey, error) { return []signing.SecretKey{key}, nil }
	}), key
}

// signers are the names of the keys in a narinfo.
func signers(info *narinfo.Info) string {
	var names []string
	for _, s := range info.Sigs {
		name, _, _ := strings.Cut(s, ":")
		names = append(names, name)
	}
	return strings.Join(names, " ")
}

func (w *world) info(p *testPath, header ...string) *narinfo.Info {
	w.t.Helper()
	info, err := narinfo.Parse([]byte(w.must(w.get(p.infoURL(), header...), 200).body))
	if err != nil {
		w.t.Fatal(err)
	}
	return info
}

// What an upstream has goes out through us, under its key and not under ours, verified, pulled once, and as
// a file from then on.
func TestPullThrough(t *testing.T) {
	up := newStranger(t, "up-1")
	p, none, gzipped := large(t, "p"), newUpload(t, "none", "none"), newUpload(t, "gzipped", "gzip")
	up.has(p, none, gzipped)
	w, _ := behindOf(t, up.config())

	info := w.info(p)
	packed, plain := p.urls()
	if "/"+info.URL != packed || info.Compression != "zstd" || !info.FileHash.IsZero() || signers(info) != "up-1" {
		t.Errorf("before it was pulled:\n%s", info.Append(nil))
	}
	w.must(w.head(packed), 200)
	if n := up.count(p.narURL()); n != 0 {
		t.Errorf("a HEAD pulled it %d times", n)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if got := unzstd(t, w.must(w.get(packed), 200).body); !bytes.Equal(got, p.nar) {
				t.Error("another NAR")
			}
		})
	}
	all.Wait()
	if n := up.count(p.narURL()); n != 1 {
		t.Errorf("pulled %d times", n)
	}
	info = w.mustSubstitute(p)
	if info.FileHash.IsZero() || signers(info) != "up-1" {
		t.Errorf("when it was pulled:\n%s", info.Append(nil))
	}
	whole := w.must(w.get(packed), 200).body
	if a := w.must(w.get(packed, "Range", "bytes=1000-1999"), 206); a.body != whole[1000:2000] {
		t.Error("another range")
	}
	if a := w.must(w.get(plain), 200); a.body != string(p.nar) {
		t.Error("another plain NAR")
	}
	if a := w.must(w.get(plain, "Range", "bytes=100-199"), 206); a.body != string(p.nar[100:200]) {
		t.Error("another plain range")
	}
	w.mustSubstitute(none)
	w.mustSubstitute(gzipped)
	w.counted(`narwharf_http_requests_total{method="GET",route="plain-nar",status="200"}`, 1)
	for _, a := range []answer{w.get(p.narURL()), w.get("/serve/" + p.info.Path.Hash() + "/")} {
		w.must(a, 404)
	}
	// The listing is made of the NAR: the upstream has none, and is not asked for one.
	a := w.must(w.get("/"+p.info.Path.Hash()+".ls"), 200)
	root, err := nar.ParseListing([]byte(a.body))
	if err != nil || root.Lookup("file") == nil || root.Lookup("file").Size != 3<<20 || up.count(".ls") != 0 || up.count(p.narURL()) != 1 {
		t.Errorf("%v: listed as %s", err, a.body)
	}
	w.must(w.get("/"+p.info.Path.Hash()+".ls", "If-None-Match", a.header.Get("Etag")), 304)
	w.must(w.get("/"+strings.Repeat("0", 32)+".ls"), 404)

	// The upstream is gone. What is known is served; after a restart what was pulled is, by its URL.
	up.Server.Close()
	w.mustSubstitute(p)
	w.restart()
	w.must(w.get(p.infoURL()), 404)
	if w.must(w.get(packed), 200).body != whole {
		t.Error("another file than before")
	}
	w.must(w.get(plain), 404)
	w.check()
}

// With pull_through = false only uploaders are told, and the NAR is at the upstream's own URL.
func TestNoPullThrough(t *testing.T) {
	up := newStranger(t, "up-1")
	p := newUpload(t, "p", "zstd")
	up.has(p)
	c := up.config()
	c.PullThrough = false
	w, _ := behindOf(t, c)
	packed, plain := p.urls()
	for _, u := range []string{p.infoURL(), packed, plain} {
		w.must(w.get(u), 404)
	}
	info := w.info(p, w.asPusher()...)
	if info.URL != up.URL+p.narURL() || info.FileHash != p.info.FileHash || signers(info) != "up-1" {
		t.Errorf("to an uploader:\n%s", info.Append(nil))
	}
}

// An uploader who was told that a path is here is not let down: neither while the upstream is away, nor
// by a restart.
func TestLeaning(t *testing.T) {
	up := newStranger(t, "up-1")
	p, r := newUpload(t, "p", "zstd"), newUpload(t, "r", "zstd")
	up.has(p, r)
	q, s := newUpload(t, "q", "zstd", p), newUpload(t, "s", "zstd", r)
	w, _ := behindOf(t, up.config())

	w.must(w.get(r.infoURL()), 200) // by a stranger
	info := w.info(p, w.asPusher()...)
	if _, plain := p.urls(); "/"+info.URL != plain || info.FileHash != p.info.NarHash || info.FileSize != p.info.NarSize || info.Compression != "none" {
		t.Errorf("nix store sign could not work with\n%s", info.Append(nil))
	}
	if n := leaning(t, w); n != 1 {
		t.Errorf("leans on %d paths", n)
	}
	up.Server.Close()
	w.restart()
	if n := leaning(t, w); n != 1 {
		t.Errorf("leans on %d paths after a restart", n)
	}
	w.must(w.get(p.infoURL(), w.asPusher()...), 200)
	w.must(w.head(p.infoURL(), w.asPusher()...), 200)
	w.putAll(q)
	w.must(w.put(s.narURL(), s.body), 201)
	w.must(w.put(s.infoURL(), s.text()), 422, "refers to", "r", "--refresh")
	packed, plain := p.urls()
	w.must(w.get(packed), 502, "try again later")
	w.must(w.get(plain), 502)
	w.check()
}

func leaning(t *testing.T, w *world) (n int) {
	t.Helper()
	err := w.channels.Upstreams.Each(context.Background(), func(page []upstream.Leaning) error {
		n += len(page)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return n
}

// nix store sign sends the narinfo back that it got, with a signature more: the path becomes an upload for that.
func TestSignAPathOfAnUpstream(t *testing.T) {
	up := newStranger(t, "up-1")
	p := newUpload(t, "p", "zstd")
	up.has(p)
	w, _ := behindOf(t, up.config())
	info := w.info(p, w.asPusher()...)
	info.Sigs = signInfo(info, []signing.SecretKey{makeKey(t, "ci-1")})
	w.must(w.put(p.infoURL(), info.Append(nil)), 201)
	if got := signers(w.info(p)); got != "ci-1 up-1" {
		t.Errorf("signed by %s", got)
	}
	w.mustServe(p)
	w.check()
}

// What is kept because of it, and what leans, can be told.
func TestWhyAndUsageTellWhatLeans(t *testing.T) {
	up := newStranger(t, "up-1")
	p := newUpload(t, "p", "zstd")
	up.has(p)
	w, _ := behindOf(t, up.config())
	top := newUpload(t, "top", "zstd", p)
	w.putAll(top)
	err := w.state.Update(context.Background(), root.Locks([]narinfo.Path{top.info.Path}), func(tx state.Tx) error {
		return root.Set(tx, "pin:x", []narinfo.Path{top.info.Path})
	})
	if err != nil {
		t.Fatal(err)
	}
	c := retention.New(retention.Options{State: w.state, Index: w.index, Uploads: w.u, Leaning: stored.Leaning(w.channels.Upstreams), Log: slog.New(slog.DiscardHandler)})
	why, err := c.Why(context.Background(), p.info.Path)
	if err != nil || why.Leans != up.URL || why.Uploaded || len(why.Roots) != 1 || why.Roots[0].Owner != "pin:x" {
		t.Errorf("why: %+v, %v", why, err)
	}
	use, err := c.Usage(context.Background(), "")
	if err != nil || use.Leaning != (retention.Sum{Paths: 1, Bytes: p.info.NarSize}) || use.Uploads.Paths != 1 {
		t.Errorf("usage: %+v, %v", use, err)
	}
}

// A reference that nobody looked up is looked up when it is needed.
func TestReferenceAtAnUpstream(t *testing.T) {
	up := newStranger(t, "up-1")
	p := newUpload(t, "p", "zstd")
	up.has(p)
	q := newUpload(t, "q", "zstd", p)
	w, _ := behindOf(t, up.config())
	w.putAll(q)
	if leaning(t, w) != 1 {
		t.Error("and that is not kept")
	}
	w.check()
}

// Who may push cannot give a path of an upstream another content; the same is taken in, and is not
// signed by our key for that.
func TestNobodyRebindsAPathOfAnUpstream(t *testing.T) {
	up := newStranger(t, "up-1")
	glibc := newUpload(t, "glibc", "zstd")
	up.has(glibc)
	for _, sign := range []bool{false, true} {
		c := up.config()
		c.Sign = sign
		w, key := behindOf(t, c)
		evil := packUpload(t, "glibc", narOf(t, map[string]string{"file": "evil"}), "zstd")
		w.must(w.put(evil.narURL(), evil.body), 201)
		w.must(w.put(evil.infoURL(), evil.text()), 409, "upstream", "another content")
		unsigned := *glibc
		unsigned.info = glibc.info.Clone()
		unsigned.info.Sigs = nil
		want := "up-1"
		if sign {
			want = "front-1 up-1"
		}
		if got := signers(w.info(glibc)); got != want {
			t.Errorf("sign = %t: signed by %s", sign, got)
		}
		w.putAll(&unsigned)
		if got := signers(w.info(glibc)); got != want {
			t.Errorf("sign = %t: an upload is signed by %s", sign, got)
		}
		w.mustServe(glibc)
		own := newUpload(t, "own", "zstd")
		w.putAll(own)
		if got := signers(w.info(own)); got != key.Name() {
			t.Errorf("a path of nobody else is signed by %s", got)
		}
		page, keys := w.get("/").body, w.get("/pubkey").body
		if ups := strings.Contains(keys, up.key.Public().String()); ups == sign || strings.Contains(html.UnescapeString(page), up.key.Public().String()) != ups {
			t.Errorf("sign = %t: the keys are %q", sign, keys)
		}
	}
}

// What a promote needs of an upstream is complete, and kept from then on; what is in the local store is adopted
// beside it.
func TestPromoteKeepsWhatAnUpstreamHas(t *testing.T) {
	up := newStranger(t, "up-1")
	p, q := large(t, "p"), newUpload(t, "q", "zstd")
	q.info.References = []narinfo.Path{p.info.Path}
	up.has(p, q)
	m := newMachine(t)
	key := makeKey(t, "front-1")
	w := newWorld(t, m.serve, func(s *setup) {
		s.upstreams = []upstream.Config{up.config()}
		s.keys = func() ([]signing.SecretKey, error) { return []signing.SecretKey{key}, nil }
	})
	own := newUpload(t, "own", "zstd", q)
	here := m.build("here", map[string]string{"a": "b"})
	w.putAll(own)
	for _, path := range []*testPath{p, q, own, here} {
		info, _, _, err := w.channels.Info(path.info.Path.Hash())
		if err != nil || info.NarHash != path.info.NarHash || !w.hasBytes(info) {
			t.Errorf("%s is not complete: %v", path.info.Path, err)
		}
	}
	if files, err := w.channels.Peek(q.info.Path.Hash(), []string{"file", "none"}, 100<<10); err != nil || len(files) != 1 || !strings.HasPrefix(string(files["file"]), "I am q") {
		t.Errorf("peek: %q, %v", files, err)
	}
	paths := []narinfo.Path{p.info.Path, q.info.Path, own.info.Path, here.info.Path}
	if n, err := w.channels.Adopt(context.Background(), paths, "channel"); err != nil || n != 1 {
		t.Errorf("adopted %d: %v", n, err)
	}
	if _, err := w.channels.Adopt(context.Background(), append(paths, pathNamed("nowhere")), "channel"); err == nil || !strings.Contains(err.Error(), "not in this cache any more") {
		t.Errorf("a path that is nowhere: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		w.channels.Upstreams.Run(ctx, upstream.Tending{
			Held:     func(hash string) (bool, error) { _, err := w.index.Get(hash); return err == nil, nil },
			Referred: func(string) (bool, error) { return false, nil },
			Keep:     w.channels.Keep, Needs: func() (map[narinfo.Path][]string, error) { return nil, nil },
		})
	})
	defer running.Wait()
	defer cancel()
	for _, path := range []*testPath{p, q} {
		hash := path.info.Path.Hash()
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			if r, err := w.index.Get(hash); err == nil {
				if r.By != "kept from "+up.URL || signers(r.Info) != "up-1" {
					t.Errorf("kept by %q as\n%s", r.By, r.Info.Append(nil))
				}
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%s is not kept\n%s", path.info.Path, w.log)
			}
		}
	}
	cancel()
	running.Wait()
	up.Server.Close()
	w.restart()
	w.mustServe(p, q)
	if got := signers(w.info(p)); got != "up-1" {
		t.Errorf("a kept path is signed by %s", got)
	}
	packed, _ := p.urls() // which hosts remember
	if got := unzstd(t, w.must(w.get(packed), 200).body); !bytes.Equal(got, p.nar) {
		t.Error("the URL of before has another NAR")
	}
	w.check()
}
