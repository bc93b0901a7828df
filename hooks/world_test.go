package hooks

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"narwharf/cache/state"
	"narwharf/cache/state/bolt"
	"narwharf/hooks/api"
	"narwharf/hooks/channel"
	"narwharf/hooks/host"
	"narwharf/hooks/identity"
	"narwharf/hooks/reboot"
	"narwharf/hooks/retain"
	"narwharf/hooks/rollout/check"
	"narwharf/narinfo"
	"narwharf/signing"
	"narwharf/signing/access"
	"narwharf/signing/access/scope"
	"narwharf/signing/access/shortlived"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeCache is a cache in memory.
type fakeCache struct {
	mu    sync.Mutex
	infos map[string]*narinfo.Info
	lost  map[narinfo.Path]bool // the narinfo is there and the NAR is not
	files map[narinfo.Path]map[string][]byte

	held      []string // hash parts, by Use
	using     error    // of Use
	adopting  func(context.Context) error
	adopted   []narinfo.Path
	adoptedBy string
}

func (f *fakeCache) Info(hash string) (*narinfo.Info, time.Time, string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.infos[hash]
	if i == nil {
		return nil, time.Time{}, "", fs.ErrNotExist
	}
	return i, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), "ci-7", nil
}

func (f *fakeCache) HasBytes(i *narinfo.Info) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.lost[i.Path], nil
}

func (f *fakeCache) Peek(hash string, names []string, _ int64) (map[string][]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	found := make(map[string][]byte)
	for p, files := range f.files {
		if p.Hash() == hash {
			for _, n := range names {
				if text, ok := files[n]; ok {
					found[n] = text
				}
			}
		}
	}
	return found, nil
}

// Use notes what is held, and fails as using says.
func (f *fakeCache) Use(_ context.Context, hashes []string) (missing []string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, h := range hashes {
		if f.infos[h] == nil {
			missing = append(missing, h)
		}
		f.held = append(f.held, h)
	}
	return missing, f.using
}

// Adopt fails as adopting says; the paths that it was given are in adopted.
func (f *fakeCache) Adopt(ctx context.Context, paths []narinfo.Path, by string) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.adopting != nil {
		if err := f.adopting(ctx); err != nil {
			return 0, err
		}
	}
	f.adopted, f.adoptedBy = append(f.adopted, paths...), by
	return len(paths), nil
}

// memFiles are content files in memory; fail makes writes fail.
type memFiles struct {
	mu    sync.Mutex
	files map[string][]byte
	fail  error
}

func (m *memFiles) Write(name string, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	m.files[name] = bytes.Clone(data)
	return nil
}

func (m *memFiles) Read(name string, limit int64) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.files[name]
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is too large", name)
	}
	return bytes.Clone(data), nil
}

func (m *memFiles) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	delete(m.files, name)
	return nil
}

func (m *memFiles) Stream(name string) (io.ReadCloser, int64, error) {
	data, err := m.Read(name, 1<<30)
	return io.NopCloser(bytes.NewReader(data)), int64(len(data)), err
}

func (m *memFiles) List(dir string, fn func(string) error) error {
	m.mu.Lock()
	var names []string
	for n := range m.files {
		if rest, ok := strings.CutPrefix(n, dir+"/"); ok && !strings.Contains(rest, "/") {
			names = append(names, n)
		}
	}
	m.mu.Unlock()
	slices.Sort(names)
	for _, n := range names {
		if err := fn(n); err != nil {
			return err
		}
	}
	return nil
}

func (m *memFiles) Folders(dir string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	set := make(map[string]bool)
	for n := range m.files {
		if rest, ok := strings.CutPrefix(n, dir+"/"); ok {
			if folder, _, ok := strings.Cut(rest, "/"); ok {
				set[folder] = true
			}
		}
	}
	var names []string
	for n := range set {
		names = append(names, n)
	}
	return names, nil
}

// world is a server of channels over a cache in memory.
type world struct {
	t             testing.TB
	cache         *fakeCache
	files         *memFiles
	db            *bolt.Store
	path          string
	tokens        *access.Tokens
	log           *slog.Logger
	metrics       *prometheus.Registry
	hostMetrics   bool
	s             *Server
	http          *httptest.Server
	parking       net.Listener // of polls that are parked outside of http
	key           signing.SecretKey
	admin         string
	ci            string // push, promote:web
	op            string // operate
	host          string // follow:web
	client        *http.Client
	served        chan struct{}                     // closed when the listener is not served any more
	time          *atomic.Pointer[func() time.Time] // by which the server goes
	collector     retain.Collector
	perCredential int              // hosts; 0: as the server has it
	identity      identity.Options // how machines join without a token
	groups        map[string]int   // of machines that are no hosts
	checks        *check.Set
	short         *shortlived.Store
	replicas      bool // of State there may be others
	pipes         bool // no TCP: connections are pipes, which time in a bubble can wait for
}

// As package host has them.
const (
	goneAfter  = 12 * time.Second
	claimPause = time.Hour
	maxClaims  = 8
	maxLog     = 256 << 10
)

// record is what is stored of a host, nil if nothing is.
func (w *world) record(name string) *host.Record { return w.s.hosts.Record(name) }

// slot is the reboot slot that a host holds, nil if it holds none.
func (w *world) slot(name string) *reboot.Slot { return w.slots()[name] }

func (w *world) slots() map[string]*reboot.Slot { return w.s.slots.All() }

func newWorld(t testing.TB) *world { return makeWorld(t, false) }

func makeWorld(t testing.TB, pipes bool) *world {
	t.Helper()
	w := &world{
		t: t, pipes: pipes,
		cache: &fakeCache{infos: make(map[string]*narinfo.Info), lost: make(map[narinfo.Path]bool), files: make(map[narinfo.Path]map[string][]byte)},
		files: &memFiles{files: make(map[string][]byte)},
		path:  filepath.Join(t.TempDir(), "narwharf.db"), collector: new(fakeCollector),
	}
	w.log, w.time = slog.New(slog.DiscardHandler), new(atomic.Pointer[func() time.Time])
	w.setClock(time.Now)
	w.key = newKey(t, "deploy-1")
	w.start()
	t.Cleanup(w.stop)
	w.admin = w.token("admin", "admin")
	w.ci = w.token("ci", "push", "promote:web")
	w.op = w.token("op", "operate", "pull")
	w.host = w.token("host", "follow:web")
	return w
}

func newKey(t testing.TB, name string) signing.SecretKey {
	t.Helper()
	k, err := signing.GenerateKey(name)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (w *world) token(name string, scopes ...string) string {
	w.t.Helper()
	sc, err := scope.ParseSet(scopes)
	if err != nil {
		w.t.Fatal(err)
	}
	secret, tok, err := access.New(name, "", sc, time.Now(), time.Time{})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.tokens.Add(context.Background(), tok); err != nil {
		w.t.Fatal(err)
	}
	return secret
}

func (w *world) start() {
	w.t.Helper()
	var err error
	if w.db, err = bolt.Open(w.path, bolt.Options{NoSync: true, Clock: w.now}); err != nil {
		w.t.Fatal(err)
	}
	if w.tokens, _, err = access.Open(context.Background(), w.db, filepath.Join(filepath.Dir(w.path), "tokens")); err != nil {
		w.t.Fatal(err)
	}
	w.serve(w.db)
}

func (w *world) now() time.Time                { return (*w.time.Load())() }
func (w *world) setClock(now func() time.Time) { w.time.Store(&now) }

// standing stops the clock; later moves it on.
func (w *world) standing() (later func(time.Duration)) {
	at := w.now()
	set := func() { now := at; w.setClock(func() time.Time { return now }) }
	set()
	return func(d time.Duration) {
		at = at.Add(d)
		set()
	}
}

// serve starts a server of a state.
func (w *world) serve(store state.Store) {
	w.t.Helper()
	var err error
	anonymous := scope.Set{{Kind: scope.Pull}}
	w.metrics = prometheus.NewRegistry()
	if w.short, err = shortlived.Open(w.db, w.log); err != nil { // as the tokens
		w.t.Fatal(err)
	}
	w.s, err = New(Options{
		State: store, Cache: w.cache, Files: w.files, Access: access.NewAuthenticator(access.Options{Tokens: w.tokens, Short: w.short, Anonymous: anonymous, Clock: w.now}), Tokens: w.tokens,
		Short: w.short, Identity: w.identity, RebootGroups: w.groups, Checks: w.checks,
		Log: w.log, Metrics: w.metrics, HostMetrics: w.hostMetrics, Clock: w.now, HostsPerCredential: w.perCredential, Collector: w.collector, Replicas: w.replicas,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 100}
	w.http = httptest.NewUnstartedServer(w.s)
	if w.pipes {
		_ = w.http.Listener.Close()
		l := newPipes()
		w.http.Listener, transport.DialContext = l, l.dial
	}
	w.http.Start()
	w.parking = w.s.Returned(time.Minute)
	w.served = make(chan struct{})
	go func(served chan<- struct{}) {
		defer close(served)
		_ = w.http.Config.Serve(w.parking)
	}(w.served)
	w.client = &http.Client{Transport: transport}
}

// halt ends what serve started.
func (w *world) halt() {
	w.s.Stop()
	w.client.CloseIdleConnections()
	_ = w.parking.Close()
	<-w.served
	w.http.Close()
}

func (w *world) stop() {
	w.halt()
	if err := w.db.Close(); err != nil {
		w.t.Error(err)
	}
}

func (w *world) restart() {
	w.t.Helper()
	w.stop()
	w.start()
}

// ---- systems

// put makes a path in the cache and returns it.
func (w *world) put(name string, refs ...narinfo.Path) narinfo.Path {
	w.t.Helper()
	sum := narinfo.Hash(sha256.Sum256([]byte(name)))
	p := narinfo.Path(sum.Base32()[20:] + "-" + name)
	slices.Sort(refs)
	w.cache.infos[p.Hash()] = &narinfo.Info{
		StoreDir: "/nix/store", Path: p, URL: "nar/" + sum.Base32() + ".nar", Compression: "none", FileHash: sum, FileSize: 100,
		NarHash: sum, NarSize: 100, References: refs,
	}
	return p
}

// system makes a NixOS system with two references.
func (w *world) system(name string) narinfo.Path {
	w.t.Helper()
	lib := w.put(name + "-lib")
	etc := w.put(name+"-etc", lib)
	p := w.put("nixos-system-"+name, lib, etc)
	w.cache.files[p] = map[string][]byte{"nixos-version": []byte("26.05"), "system": []byte("x86_64-linux"), "bin/switch-to-configuration": nil}
	return p
}

// closureOf is the manifest of what the cache holds.
func (w *world) closureOf(root narinfo.Path) *signing.Manifest {
	w.t.Helper()
	seen := map[narinfo.Path]bool{}
	var infos []*narinfo.Info
	var walk func(p narinfo.Path)
	walk = func(p narinfo.Path) {
		if seen[p] {
			return
		}
		seen[p] = true
		i := w.cache.infos[p.Hash()]
		infos = append(infos, i)
		for _, r := range i.References {
			walk(r)
		}
	}
	walk(root)
	m, err := signing.NewManifest(infos)
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

func (w *world) entry(target string, p narinfo.Path) signing.Entry {
	w.t.Helper()
	return signing.Entry{Target: target, StorePath: p.In("/nix/store"), Closure: w.closureOf(p).Digest(), System: "x86_64-linux", Action: signing.Auto}
}

func (w *world) head(seq int64) signing.Head {
	return signing.Head{Origin: "cache.example.org/web", Channel: "web", Seq: seq, Created: time.Now().UTC().Truncate(time.Second)}
}

func (w *world) release(h signing.Head, entries ...signing.Entry) *signing.Release {
	w.t.Helper()
	r, err := signing.NewRelease(h, entries, w.key)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// ---- requests

type answer struct {
	status int
	header http.Header
	body   string
	err    api.Error
}

func (a answer) String() string { return fmt.Sprintf("%d %s", a.status, a.body) }

func (w *world) do(method, path, token string, body any, header ...string) answer {
	w.t.Helper()
	a, err := w.try(method, path, token, body, header...)
	if err != nil {
		w.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

func (w *world) try(method, path, token string, body any, header ...string) (answer, error) {
	var text []byte
	switch b := body.(type) {
	case nil:
	case []byte:
		text = b
	default:
		var err error
		if text, err = json.Marshal(b); err != nil {
			return answer{}, err
		}
	}
	req, err := http.NewRequest(method, w.http.URL+path, bytes.NewReader(text))
	if err != nil {
		return answer{}, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	a := answer{status: resp.StatusCode, header: resp.Header, body: string(raw)}
	if a.status >= 400 {
		_ = json.Unmarshal(raw, &a.err)
	}
	return a, err
}

// must fails unless the answer has the status and, from 400 on, the kind.
func (w *world) must(a answer, status int, kind api.Kind, words ...string) answer {
	w.t.Helper()
	if a.status != status || a.err.Kind != kind {
		w.t.Fatalf("answer %s, want %d %s", a, status, kind)
	}
	for _, word := range words {
		if !strings.Contains(a.body, word) {
			w.t.Errorf("answer %s does not say %q", a, word)
		}
	}
	return a
}

func (w *world) promoteAs(token string, seq int64, r *signing.Release, header ...string) answer {
	w.t.Helper()
	body := api.Promotion{Release: *r, Keys: []string{w.key.Public().String()}, Threshold: 1}
	return w.do("PUT", "/api/v1/channels/web", token, body, append([]string{"If-Match", channel.ETag(seq)}, header...)...)
}

// promote sends the next release of web and fails if it is refused.
func (w *world) promote(seq int64, entries ...signing.Entry) answer {
	w.t.Helper()
	return w.must(w.promoteAs(w.ci, seq-1, w.release(w.head(seq), entries...)), 200, "")
}

func decode[T any](t testing.TB, a answer) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(a.body), &v); err != nil {
		t.Fatalf("%s: %v", a, err)
	}
	return v
}
