package cache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"narwharf/cache/blob"
	"narwharf/cache/fastpath"
	"narwharf/cache/index"
	"narwharf/cache/local"
	"narwharf/cache/nar"
	"narwharf/cache/narfiletest"
	"narwharf/cache/reply"
	"narwharf/cache/signed"
	"narwharf/cache/state/bolt"
	"narwharf/cache/state/memory"
	"narwharf/cache/stored"
	"narwharf/cache/upload"
	"narwharf/cache/upload/adopt"
	"narwharf/cache/upload/fsck"
	"narwharf/cache/upload/recovery"
	"narwharf/cache/upstream"
	"narwharf/narinfo"
	"narwharf/signing"
	"narwharf/signing/access"
	"narwharf/signing/access/scope"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// setup is what a test may choose of a world.
type setup struct {
	Options
	uploads     upload.Options
	signUploads bool
	local       *local.Store
	upstreams   []upstream.Config
	pause       time.Duration // of the adopter
	anonymous   scope.Set
	keys        func() ([]signing.SecretKey, error)
	wrap        func(index.Index) index.Index // between uploads and index
	listen      func(*httptest.Server)        // before it starts
	content     func() blob.Store             // nil: the files of the world
}

// world is a whole cache: a server on a real socket over real files and a real
// database, with all that a test can break and look at.
type world struct {
	t     testing.TB
	setup setup
	dir   string
	fault atomic.Pointer[func(op, name string) error]

	files    *blob.FS
	state    *bolt.Store
	index    *index.Table
	u        *upload.Store
	adopter  *adopt.Adopter
	channels *stored.Cache
	s        *Server
	http     *httptest.Server
	log      *logBuffer
	behind   struct{ files, bytes int64 } // what the server does not know to be gone

	client     *http.Client
	token      string // with the scope push; sent by put and by nothing else
	prometheus string // a token with the scope metrics
}

var (
	pull = scope.Scope{Kind: scope.Pull}
	push = scope.Scope{Kind: scope.Push}
)

func newWorld(t testing.TB, choose ...func(*setup)) *world {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "narwharf-test-") // these tests sync a lot
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return openWorld(t, dir, choose...)
}

// onConnections serves as narwharf does: on the connections, unless
// NARWHARF_FAST_PATH is false.
func onConnections(h *httptest.Server) {
	if s, ok := h.Config.Handler.(*Server); ok && os.Getenv("NARWHARF_FAST_PATH") != "false" {
		h.Listener = s.FastPath(h.Listener, time.Minute, time.Minute)
		h.Config.ConnState, h.Config.ConnContext = fastpath.ConnState, fastpath.ConnContext
	}
}

// viaNetHTTP serves as with fast_path = false.
func viaNetHTTP(s *setup) { s.listen = func(*httptest.Server) {} }

// openWorld starts a cache over what lies in dir, as after a kill.
func openWorld(t testing.TB, dir string, choose ...func(*setup)) *world {
	t.Helper()
	w := &world{t: t, dir: dir, log: new(logBuffer)}
	w.setup = setup{
		Options:     Options{Priority: 30, BodyIdle: 10 * time.Second, Version: "test"},
		uploads:     upload.Options{StoreDir: "/nix/store", MaxNarSize: 64 << 20, NarGrace: 24 * time.Hour},
		signUploads: true,
		anonymous:   scope.Set{pull, {Kind: scope.Metrics}},
		keys:        func() ([]signing.SecretKey, error) { return nil, nil },
		wrap:        func(i index.Index) index.Index { return i },
		listen:      onConnections,
	}
	for _, c := range choose {
		c(&w.setup)
	}
	w.start()
	t.Cleanup(w.stop)
	return w
}

func (w *world) start() {
	w.t.Helper()
	fatal := func(err error) {
		if err != nil {
			w.t.Helper()
			w.t.Fatal(err)
		}
	}
	var err error
	w.files, err = blob.NewFS(filepath.Join(w.dir, "cache"), filepath.Join(w.dir, "tmp"))
	fatal(err)
	fatal(w.files.Clean())
	w.files.Fault = func(op, name string) error {
		if f := w.fault.Load(); f != nil {
			return (*f)(op, name)
		}
		return nil
	}
	w.state, err = bolt.Open(filepath.Join(w.dir, "narwharf.db"), bolt.Options{NoSync: true})
	fatal(err)
	w.index, err = index.Open(w.state, index.Options{})
	fatal(err)
	log := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	ups := w.openUpstreams(log)
	signer, err := signed.New(func() (list []signing.Signer, err error) {
		keys, err := w.setup.keys()
		for _, k := range keys {
			list = append(list, k)
		}
		return list, err
	}, w.setup.signUploads, w.setup.local, ups.Keys()...)
	fatal(err)
	opts := w.setup.uploads
	opts.Changed = signer.Forget
	adoption := adopt.Options{Sign: signer.Signatures, Pause: w.setup.pause, Log: log}
	if own := w.setup.local; own != nil {
		adoption.Local = own
	}
	if w.setup.local != nil || ups != nil {
		opts.Local = stored.Behind(w.setup.local, ups)
	}
	w.u, err = upload.New(w.content(), w.setup.wrap(w.index), opts, log)
	fatal(err)
	adoption.Uploads = w.u
	w.adopter = adopt.New(adoption)
	w.behind.files, w.behind.bytes = 0, 0
	w.channels = stored.New(w.adopter, w.u, signer, w.setup.local, ups, log)
	if w.index.Dirty() {
		_, _, err := recovery.Recover(w.u)
		fatal(err)
		fatal(recovery.FindUnnamed(context.Background(), w.u)) // as recovery.Check does beside everything else
	}

	tokens, _, err := access.Open(context.Background(), memory.New(nil), "")
	fatal(err)
	secret, token, err := access.New("ci", "", scope.Set{push}, time.Now(), time.Time{})
	fatal(err)
	fatal(tokens.Add(context.Background(), token))
	w.token = secret
	w.prometheus, token, err = access.New("prometheus", "", scope.Set{{Kind: scope.Metrics}}, time.Now(), time.Time{})
	fatal(err)
	fatal(tokens.Add(context.Background(), token))
	w.setup.Access = access.NewAuthenticator(access.Options{Tokens: tokens, Anonymous: w.setup.anonymous})
	w.setup.Log, w.setup.Cache = log, w.channels
	w.s = NewServer(w.setup.Options)
	w.http = httptest.NewUnstartedServer(w.s)
	w.http.Config.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelError)
	w.setup.listen(w.http)
	w.http.Start()
	w.client = &http.Client{
		Transport:     &http.Transport{DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// reads replaces what answers a route.
func (w *world) reads(route string, read func(*reply.Writer, *http.Request)) {
	w.s.endpoints[route] = endpoints{read: func(rw *reply.Writer, req *http.Request, _ string) error {
		read(rw, req)
		return nil
	}}
}

// kill ends the server and closes the database without a word to the index.
func (w *world) stop() {
	if w.http == nil {
		return
	}
	w.client.CloseIdleConnections()
	w.http.Close()
	w.closeUpstreams()
	if err := w.state.Close(); err != nil {
		w.t.Error(err)
	}
	w.http = nil
}

// restart is a kill and a new start.
func (w *world) restart() {
	w.t.Helper()
	w.stop()
	w.fault.Store(nil)
	w.start()
}

// breakAt sets what is asked before each step on the disk, one step at a time; nil for nothing.
func (w *world) breakAt(f func(op, name string) error) {
	if f == nil {
		w.fault.Store(nil)
		return
	}
	var mu sync.Mutex // a NAR settles beside the next request
	one := func(op, name string) error {
		mu.Lock()
		defer mu.Unlock()
		return f(op, name)
	}
	w.fault.Store(&one)
}

type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// ---- requests

// answer is a whole answer. cut says why its body was not.
type answer struct {
	status int
	header http.Header
	body   string
	cut    error
}

func (a answer) String() string { return fmt.Sprintf("%d %q", a.status, a.body) }

// do sends a request; header is a list of names and values in turn.
func (w *world) do(method, path string, body []byte, header ...string) answer {
	w.t.Helper()
	req, err := http.NewRequest(method, w.http.URL+path, bytes.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if body == nil {
		req.Body = nil
		req.ContentLength = 0
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	return w.send(req)
}

func (w *world) send(req *http.Request) answer {
	w.t.Helper()
	resp, err := w.client.Do(req)
	if err != nil {
		w.t.Fatalf("%s %s: %v\n%s", req.Method, req.URL.Path, err, w.log)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(text), err}
}

func (w *world) get(path string, header ...string) answer {
	w.t.Helper()
	return w.do(http.MethodGet, path, nil, header...)
}

func (w *world) head(path string, header ...string) answer {
	w.t.Helper()
	return w.do(http.MethodHead, path, nil, header...)
}

// final are the answers to a PUT that every Nix takes as the last word; see
// NIX-WIRE, C1a.
var final = []int{201, 400, 401, 403, 404, 405, 409, 411, 413, 415, 422, 501}

// must fails unless the answer has the status, and says all of words if it is
// a refusal, as Nix will show it.
func (w *world) must(a answer, status int, words ...string) answer {
	w.t.Helper()
	if a.status != status || a.cut != nil {
		w.t.Errorf("answered %v (%v), want %d\n%s", a, a.cut, status, w.log)
	}
	if status >= 400 && a.body != "" {
		if n := strings.Count(a.body, "\n"); n != 1 || !strings.HasSuffix(a.body, "\n") || len(a.body) > 1000 {
			w.t.Errorf("%d is not one line of at most 1000 bytes: %q", a.status, a.body)
		}
		if ct := a.header.Get("Content-Type"); ct != "text/plain; charset=utf-8" {
			w.t.Errorf("%d has the type %q", a.status, ct)
		}
	}
	for _, word := range words {
		if !strings.Contains(a.body, word) {
			w.t.Errorf("%d says %q, without %q", a.status, a.body, word)
		}
	}
	return a
}

// ---- the invariant

// check holds everything to what must be true whenever no request is at work.
func (w *world) check() {
	w.t.Helper()
	w.u.Rest()
	w.consistent()
	lines, r := w.fsck(false)
	if r.Damage != 0 {
		w.t.Errorf("fsck: %s\n%s", strings.Join(lines, "\n      "), w.log)
	}
}

func (w *world) fsck(repair bool) (lines []string, r fsck.Result) {
	w.t.Helper()
	r, err := fsck.Run(context.Background(), w.u, fsck.Options{Repair: repair, Report: func(l string) { lines = append(lines, l) }})
	if err != nil {
		w.t.Errorf("fsck: %v", err)
	}
	return lines, r
}

// consistent compares files, index and numbers by other means than Fsck.
func (w *world) consistent() {
	w.t.Helper()
	if left, err := os.ReadDir(filepath.Join(w.dir, "tmp")); err != nil || len(left) > 0 {
		w.t.Errorf("temporary files are left: %v, %v", left, err)
	}
	onDisk := make(map[string]string)
	names, err := filepath.Glob(filepath.Join(w.dir, "cache", "*.narinfo"))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			w.t.Fatal(err)
		}
		onDisk[strings.TrimSuffix(filepath.Base(name), ".narinfo")] = string(text)
	}
	going, err := w.index.Going(context.Background()) // what a collection could not remove yet
	if err != nil {
		w.t.Error(err)
	}
	for _, g := range going {
		delete(onDisk, g.Hash)
	}
	known, claimed := 0, make(map[string]bool)
	err = w.index.Each(func(hash string, r *index.Record, err error) error {
		if err != nil {
			return err
		}
		known++
		if text := string(r.Info.Append(nil)); onDisk[hash] != text {
			w.t.Errorf("the index has\n%s and the file has\n%s", text, onDisk[hash])
		}
		for _, f := range r.Files() {
			claimed[f] = true
		}
		if slices.Contains(r.Alternates, r.Info.URL) {
			w.t.Errorf("%s is an alternate of itself", r.Info.URL)
		}
		return nil
	})
	if err != nil {
		w.t.Error(err)
	}
	if known != len(onDisk) {
		w.t.Errorf("%d paths in the index, %d narinfo files", known, len(onDisk))
	}
	files, size := w.narFiles()
	if c := w.u.Counts(); c.NarFiles-w.behind.files != files || c.NarBytes-w.behind.bytes != size {
		w.t.Errorf("counted %d NAR files of %d bytes, of which %+v are known to be gone; there are %d of %d", c.NarFiles, c.NarBytes, w.behind, files, size)
	}
	inside := reflect.ValueOf(w.u).Elem()
	mutex := func(of reflect.Value) *sync.Mutex { return (*sync.Mutex)(of.FieldByName("mu").Addr().UnsafePointer()) }
	verified, locks := inside.FieldByName("verified"), inside.FieldByName("locks")
	mutex(verified).Lock()
	for _, name := range verified.FieldByName("facts").MapKeys() {
		if _, err := w.files.Stat(name.String()); claimed[name.String()] || errors.Is(err, fs.ErrNotExist) {
			w.t.Errorf("facts of %s are still held in memory", name)
		}
	}
	mutex(verified).Unlock()
	mutex(locks).Lock()
	if n := locks.FieldByName("held").Len(); n > 0 {
		w.t.Errorf("%d locks are held", n)
	}
	mutex(locks).Unlock()
	if n := w.s.UploadsInFlight(); n != 0 {
		w.t.Errorf("%d uploads in flight", n)
	}
}

// narFiles counts what lies on the disk.
func (w *world) narFiles() (files, size int64) {
	w.t.Helper()
	err := w.files.List("nar", func(i blob.Info) error {
		files++
		size += i.Size
		return nil
	})
	if err != nil {
		w.t.Error(err)
	}
	return files, size
}

// changedBehind is called when a test has changed files behind the server's back,
// which counts what it changes itself.
func (w *world) changedBehind() {
	w.t.Helper()
	files, size := w.narFiles()
	c := w.u.Counts()
	w.behind.files, w.behind.bytes = c.NarFiles-files, c.NarBytes-size
}

// ---- things to upload

// testPath is a store path as a client has it.
type testPath struct {
	info *narinfo.Info
	file string // "<hash>.nar.zst"
	body []byte // what lies at the URL
	nar  []byte
}

func (p *testPath) narURL() string  { return "/" + p.info.URL }
func (p *testPath) infoURL() string { return "/" + p.info.Path.Hash() + ".narinfo" }
func (p *testPath) text() []byte    { return p.info.Append(nil) }

// edited is the narinfo's text with something else in it.
func (p *testPath) edited(change func(*narinfo.Info)) []byte {
	i := p.info.Clone()
	change(i)
	return i.Append(nil)
}

// narOf makes a NAR of a folder with the given files; one of the text "-> to" is a link.
func narOf(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var b []byte
	spell := func(words ...string) {
		for _, w := range words {
			b = nar.AppendString(b, w)
		}
	}
	spell("nix-archive-1", "(", "type", "directory")
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if to, link := strings.CutPrefix(files[name], "-> "); link {
			spell("entry", "(", "name", name, "node", "(", "type", "symlink", "target", to, ")", ")")
			continue
		}
		spell("entry", "(", "name", name, "node", "(", "type", "regular", "contents", files[name], ")", ")")
	}
	spell(")")
	return b
}

// newUpload makes a store path of that name, with one file in it.
func newUpload(t testing.TB, name, compression string, refs ...*testPath) *testPath {
	t.Helper()
	return packUpload(t, name, narOf(t, map[string]string{"file": "I am " + name + strings.Repeat(".", 2000)}), compression, refs...)
}

func packUpload(t testing.TB, name string, archive []byte, compression string, refs ...*testPath) *testPath {
	t.Helper()
	return rawUpload(t, name, archive, compression, narfiletest.Compress(t, compression, archive), refs...)
}

// rawUpload makes a store path whose NAR is packed already.
func rawUpload(t testing.TB, name string, archive []byte, compression string, body []byte, refs ...*testPath) *testPath {
	t.Helper()
	p := &testPath{nar: archive, body: body}
	fileHash := narinfo.Hash(sha256.Sum256(body))
	p.file = fileHash.Base32() + ".nar" + narfiletest.Suffix(compression)
	p.info = &narinfo.Info{
		StoreDir: "/nix/store", Path: pathNamed(name), URL: "nar/" + p.file, Compression: compression,
		FileHash: fileHash, FileSize: int64(len(body)),
		NarHash: sha256.Sum256(archive), NarSize: int64(len(archive)),
	}
	for _, r := range refs {
		p.info.References = append(p.info.References, r.info.Path)
	}
	slices.Sort(p.info.References)
	return p
}

// pathNamed makes a store path from a name alone.
func pathNamed(name string) narinfo.Path {
	return narinfo.Path(narinfo.Hash(sha256.Sum256([]byte(name))).Base32()[20:] + "-" + name)
}

// repacked is the same path with its NAR in another compression.
func (p *testPath) repacked(t testing.TB, compression string) *testPath {
	t.Helper()
	q := packUpload(t, p.info.Path.Name(), p.nar, compression)
	q.info.Path, q.info.References = p.info.Path, p.info.References
	return q
}

// putAll uploads paths as Nix does.
func (w *world) putAll(paths ...*testPath) {
	w.t.Helper()
	for _, p := range paths {
		w.must(w.put(p.narURL(), p.body), 201)
		w.must(w.put(p.infoURL(), p.text()), 201)
	}
}

// mustServe fails unless a path comes back as it was sent.
func (w *world) mustServe(paths ...*testPath) {
	w.t.Helper()
	for _, p := range paths {
		a := w.must(w.get(p.infoURL()), 200)
		info, err := narinfo.Parse([]byte(a.body))
		if err != nil || info.Path != p.info.Path || info.NarHash != p.info.NarHash || !slices.Equal(info.References, p.info.References) {
			w.t.Errorf("%s came back as %v (%v)", p.info.Path, a, err)
			continue
		}
		file := w.must(w.get("/"+info.URL), 200)
		if hash := narinfo.Hash(sha256.Sum256([]byte(file.body))); hash != info.FileHash || int64(len(file.body)) != info.FileSize {
			w.t.Errorf("%s came back with %d bytes and hash %s", info.URL, len(file.body), hash)
		}
	}
}

// mustLack fails if anything of a path is there.
func (w *world) mustLack(paths ...*testPath) {
	w.t.Helper()
	for _, p := range paths {
		w.must(w.get(p.infoURL()), 404)
		w.must(w.get(p.narURL()), 404)
	}
}

// signInfo is signing.SignInfo by keys that are here.
func signInfo(i *narinfo.Info, keys []signing.SecretKey) []string {
	sigs, err := signing.SignInfo(i, keys)
	if err != nil {
		panic(err)
	}
	return sigs
}
