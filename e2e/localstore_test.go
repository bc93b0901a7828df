package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// aMachine is a Nix with some of the closures in its own store, whose database can be read: Nix
// before 2.22 takes the -wal file away when its last process ends, later ones leave it.
func aMachine(t *testing.T, suite string, c *Closures, names ...string) *Nix {
	t.Helper()
	m := NewNix(t, suite)
	m.Must("nix", append([]string{"copy", "--no-check-sigs", "--from", "local?root=" + c.Root}, c.Paths(names...)...)...)
	keepOpen(t, m)
	return m
}

// keepOpen lets a Nix that leaves the -wal file touch the store.
func keepOpen(t *testing.T, m *Nix) {
	t.Helper()
	NewNix(t, newest()).In(m.Root).Must("nix-store", "--verify")
}

// serveStore is a server of a machine's own store, with a recorder before it.
func serveStore(t *testing.T, m *Nix) (*Server, *Recorder) {
	t.Helper()
	s := NewServer(t, func(c *Config) { c.ServeStore, c.StoreRoot = true, m.Root })
	return s, NewRecorder(t, s.URL(), "")
}

// Story 1: a machine serves its own store; another substitutes from it with signatures checked, has
// the same files then, and resumes a download that breaks.
func TestLocalStore(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		names := []string{"a", "wide", "zoo", "multi_dev", "selfref", "singleLink", "singleExe", "dbg_debug"}
		m := aMachine(t, suite, c, append(names, "medium")...)
		s, rec := serveStore(t, m)

		// The first has narinfos without FileHash, the second has them with it.
		for _, known := range []bool{false, true} {
			doc := ParseDoc(t, NewUploader(t, s.URL(), "").Get("/"+hashOf(c.Path("zoo"))+".narinfo").Body)
			if (doc.FileHash != "" && doc.FileSize != "") != known || doc.SignedBy(s.Key) != 1 {
				t.Errorf("narinfo, packed: %t\n%v", known, doc)
			}
			down := NewNix(t, suite).Trust(rec.URL(), s.Key)
			down.Must("nix-store", append([]string{"--realise"}, c.Paths(names...)...)...)
			down.Verify()
			for _, name := range names {
				if out, err := exec.Command("diff", "-r", "--no-dereference", m.Real(c.Path(name)), down.Real(c.Path(name))).CombinedOutput(); err != nil {
					t.Errorf("%s differs: %v\n%s", name, err, out)
				}
			}
		}
		newPromoter(s, s.bin, s.Token("op", "operate"), NewKey("deploy-1")).must(0, "of packed copies, which make way", "du")
		NewNix(t, suite).Trust(rec.URL(), NewKey(s.Key.Name)).Fails([]string{c.Path("a")}, "nix-store", "--realise", c.Path("a"))

		for i := range 2 { // while it is encoded, and as a file
			rec.Reset()
			net := NewProxy(t, rec.Addr())
			net.Cut(Down, 20<<20, 2)
			down := NewNix(t, suite).Trust(net.URL(), s.Key)
			down.Must("nix-store", "--realise", c.Path("medium"))
			down.Verify()
			resumed := 0
			for _, r := range rec.Select(http.MethodGet, ".nar.zst") {
				if r.Status == http.StatusPartialContent {
					resumed++
				}
			}
			if net.Left() != 0 || resumed != 2 || net.Bytes(Down) > 80<<20 {
				t.Errorf("download %d: %d of 2 cuts left, %d resumed, %d MB: %v", i, net.Left(), resumed, net.Bytes(Down)>>20, rec.Select("", "/nar/"))
			}
		}

		client := NewNix(t, suite)
		want, err := os.ReadFile(m.Real(c.Path("singleExe")))
		if err != nil {
			t.Fatal(err)
		}
		if out := client.Must("nix", "store", "cat", "--store", s.URL(), c.Path("singleExe")); out.Stdout != string(want) {
			t.Errorf("nix store cat: %v", out)
		}
		if out := client.Must("nix", "store", "ls", "-R", "--store", s.URL(), c.Path("multi_dev")); out.Stdout == "" {
			t.Errorf("nix store ls: %v", out)
		}
		if a := NewUploader(t, s.URL(), "").Get("/" + hashOf(c.Path("zoo")) + ".ls"); a.Status != 200 || !strings.Contains(a.Body, `"narOffset":`) {
			t.Errorf("listing: %v", a)
		}
	})
}

// Below /lan/ a real Nix gets NARs as they are, resumes them, and takes what was packed packed.
func TestLAN(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		m := aMachine(t, suite, c, "wide", "zoo", "selfref", "medium")
		s, rec := serveStore(t, m)
		down := NewNix(t, suite).Trust(rec.URL()+"/lan", s.Key)
		down.Must("nix-store", "--realise", c.Path("wide"), c.Path("selfref"))
		net := NewProxy(t, rec.Addr())
		net.Cut(Down, 20<<20, 2)
		NewNix(t, suite).Trust(net.URL()+"/lan", s.Key).Must("nix-store", "--realise", c.Path("medium"))
		resumed := 0
		for _, r := range rec.Select(http.MethodGet, "/nar/") {
			if !strings.HasPrefix(r.Path, "/lan/nar/") || !strings.HasSuffix(r.Path, ".nar") {
				t.Errorf("asked for %s", r.Path)
			}
			if r.Status == http.StatusPartialContent {
				resumed++
			}
		}
		if net.Left() != 0 || resumed != 2 {
			t.Errorf("%d of 2 cuts left, %d resumed", net.Left(), resumed)
		}
		down.Verify()

		NewNix(t, suite).Trust(rec.URL(), s.Key).Must("nix-store", "--realise", c.Path("zoo"))
		rec.Reset()
		NewNix(t, suite).Trust(rec.URL()+"/lan", s.Key).Must("nix-store", "--realise", c.Path("zoo"))
		if got := rec.Select(http.MethodGet, "/lan/nar/"); len(got) == 0 || !strings.HasSuffix(got[0].Path, ".nar.zst") {
			t.Errorf("packed before: %v", got)
		}
	})
}

// What Nix adds or deletes while the server runs is there or gone in the next answer, also on a
// connection that was asked before; and a path that comes back is served again.
func TestLocalStoreChanges(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		m := aMachine(t, suite, c, "a")
		s, _ := serveStore(t, m)
		u := NewUploader(t, s.URL(), "")
		ask := func(path string, status int) {
			t.Helper()
			for range 2 {
				if a := u.Get("/" + hashOf(path) + ".narinfo"); a.Status != status {
					t.Errorf("%s is %d, want %d: %s", path, a.Status, status, a.Body)
				}
			}
		}
		ask(c.Path("a"), 200)
		for i := range 3 {
			file := m.write(fmt.Sprintf("new-%d", i/2), "text") // the third is the second again
			path := m.Must("nix-store", "--add", file).Line()
			ask(path, 200)
			down := NewNix(t, suite).Trust(s.URL(), s.Key)
			down.Must("nix-store", "--realise", path)
			m.Must("nix-store", "--delete", path)
			ask(path, 404)
			ask(c.Path("a"), 200)
		}
	})
}

// A channel's paths survive the garbage collection of the machine that serves them.
func TestLocalStorePromoteAndCollect(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		m := aMachine(t, suite, c, "a", "zoo", "wide")
		no := false
		s := NewServer(t, func(cfg *Config) { cfg.ServeStore, cfg.StoreRoot, cfg.SignUploads = true, m.Root, &no })
		u := NewUploader(t, s.URL(), "")
		local := ParseDoc(t, u.Get("/"+hashOf(c.Path("a"))+".narinfo").Body)
		before := u.Get("/" + local.URL)

		key, token := NewKey("promoter-1"), s.Token("promoter", "promote:web")
		args := func(more ...string) []string {
			return append(append([]string{s.bin, "promote", "web"}, more...), c.Path("a"), "--kind", "path", "--system", "x86_64-linux",
				"--server", s.URL(), "--key", m.write("promoter.sec", key.Secret()), "--token-file", m.write("token", token),
				"--store-root", m.Root, "--origin", "cache.example.org/web", "--client-config", "/dev/null")
		}
		if out := run(t, program{argv: args("--dry-run")}); out.Code != 0 {
			t.Fatalf("a dry run\n%v", out)
		}
		if files, err := filepath.Glob(filepath.Join(s.Data, "cache", "*.narinfo")); err != nil || len(files) > 0 {
			t.Errorf("a dry run adopted %v (%v)", files, err)
		}
		if out := run(t, program{argv: args()}); out.Code != 0 {
			t.Fatalf("promote\n%v\n%s", out, s.LogTail())
		}
		m.Must("nix-collect-garbage")
		if m.Has(c.Path("a")) || m.Has(c.Path("c")) {
			t.Fatal("the garbage collector left the channel's paths")
		}
		down := NewNix(t, suite).Trust(s.URL(), s.Key)
		down.Must("nix-store", "--realise", c.Path("a"))
		down.Verify()
		if a := u.Get("/" + hashOf(c.Path("zoo")) + ".narinfo"); a.Status != 404 {
			t.Errorf("what no channel needs is still served: %v", a)
		}
		if a := u.Get("/" + local.URL); a.Status != 200 || a.Body != before.Body {
			t.Errorf("the URL that clients remember: %d, %d bytes and not %d", a.Status, len(a.Body), len(before.Body))
		}
		if out := run(t, program{argv: args("--if-seq=1")}); out.Code != 0 && !strings.Contains(out.Stderr, "is not in the local store") {
			t.Errorf("promote again\n%v", out)
		}
	})
}

// Two hosts that want the same path at once cost one encode.
func TestLocalStoreTwoAtOnce(t *testing.T) {
	t.Parallel()
	suite := newest()
	c := NeedClosures(t, suite)
	s, _ := serveStore(t, aMachine(t, suite, c, "medium"))
	var group sync.WaitGroup
	for range 2 {
		down := NewNix(t, suite).Trust(s.URL(), s.Key)
		group.Go(func() {
			if out := down.Run("nix-store", "--realise", c.Path("medium")); out.Code != 0 {
				t.Errorf("%v", out)
				return
			}
			down.Verify()
		})
	}
	group.Wait()
	if page := s.Metrics(); !strings.Contains(page, `narwharf_pack_encodes_total{result="ok"} 1`+"\n") {
		t.Errorf("not one encode:\n%s", grep(page, "narwharf_pack"))
	}
}

func grep(text, part string) string {
	var found []string
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			found = append(found, line)
		}
	}
	return strings.Join(found, "")
}

// A path that is not on the disk what the database says gives no host wrong files, and the server's
// log says which path it is and what mends it.
func TestLocalStoreDamaged(t *testing.T) {
	t.Parallel()
	suite := newest()
	c := NeedClosures(t, suite)
	m := aMachine(t, suite, c, "a", "zoo", "wide", "medium", "multi")
	s, _ := serveStore(t, m)
	writable := func(path string) string {
		t.Helper()
		real := m.Real(path)
		if out, err := exec.Command("chmod", "-R", "u+w", real).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return real
	}
	// Another content of the same size, one file less, and all of it gone.
	altered := writable(c.Path("medium"))
	f, err := os.OpenFile(largest(t, altered), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("not what it was"), 12345); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(largest(t, writable(c.Path("zoo")))); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(writable(c.Path("multi"))); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"medium", "zoo", "multi"} {
		down := NewNix(t, suite).Trust(s.URL(), s.Key)
		down.Fails(nil, "nix-store", "--realise", c.Path(name))
		if down.Has(c.Path(name)) {
			t.Errorf("a host has the damaged %s", name)
		}
		log, err := os.ReadFile(s.Log)
		if err != nil {
			t.Fatal(err)
		}
		if line := grep(string(log), m.Real(c.Path(name))); !strings.Contains(line, "nix store verify --repair") {
			t.Errorf("the log on %s: %q", name, line)
		}
	}
	good := NewNix(t, suite).Trust(s.URL(), s.Key)
	good.Must("nix-store", "--realise", c.Path("a"))
}

// largest is the largest file below dir, or dir itself if it is one.
func largest(t *testing.T, dir string) (name string) {
	t.Helper()
	most := int64(-1)
	err := filepath.Walk(dir, func(file string, st os.FileInfo, err error) error {
		if err == nil && st.Mode().IsRegular() && st.Size() > most {
			name, most = file, st.Size()
		}
		return err
	})
	if err != nil || most < 0 {
		t.Fatalf("no file in %s: %v", dir, err)
	}
	return name
}

// The build logs of the machine's own Nix are served as text to every client.
func TestLocalStoreLogs(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		m := aMachine(t, suite, c, "a")
		logs := filepath.Join(c.Root, "nix/var/log")
		drv := filepath.Base(c.Path("c_drv")) // the one whose builder says something
		packed := filepath.Join(logs, "nix/drvs", drv[:2], drv[2:]+".bz2")
		if _, err := os.Stat(packed); err != nil {
			t.Fatalf("the build left no log: %v", err)
		}
		if out, err := exec.Command("cp", "-r", logs, filepath.Join(m.Root, "nix/var/")).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		want, err := exec.Command("bzip2", "-dc", packed).Output()
		if err != nil || len(want) == 0 {
			t.Fatalf("a log of %d bytes, %v", len(want), err)
		}
		s, _ := serveStore(t, m)
		if a := NewUploader(t, s.URL(), "").Get("/log/" + drv); a.Status != 200 || a.Body != string(want) {
			t.Errorf("%d, %d bytes, want %d", a.Status, len(a.Body), len(want))
		}
		if out := NewNix(t, suite).Must("nix", "log", "--store", s.URL(), c.Path("c")); out.Stdout != string(want) {
			t.Errorf("nix log\n%v\nwant %q", out, want)
		}
	})
}

// A store whose database cannot be read keeps the server from starting, with words on what to do;
// one that goes away later keeps nobody from what was uploaded.
func TestLocalStoreUnreadable(t *testing.T) {
	t.Parallel()
	suite := newest()
	c := NeedClosures(t, suite)
	m := aMachine(t, suite, c, "a")
	s := NewServer(t, nil)
	token := s.Token("ci", "push")
	NewNix(t, suite).In(c.Root).Netrc(token).Push(s.URL(), "?compression=zstd", c.Path("zoo"))
	s.Stop()

	s.Reconfigure(func(cfg *Config) { cfg.ServeStore, cfg.StoreRoot = true, filepath.Join(m.Root, "nowhere") })
	out := s.CLI("serve")
	for _, words := range []string{"cache.serve_store is true", "nowhere/nix/var/nix/db/db.sqlite is not there", "start nix-daemon", "serve_store = false"} {
		if out.Code == 0 || !strings.Contains(out.Stderr, words) {
			t.Errorf("the server does not say %q\n%v", words, out)
		}
	}
	s.Reconfigure(func(cfg *Config) { cfg.StoreRoot = m.Root })
	s.Start()
	down := NewNix(t, suite).Trust(s.URL(), s.Key)
	down.Must("nix-store", "--realise", c.Path("a"))
	db := filepath.Join(m.Root, "nix/var/nix/db")
	if err := os.Rename(db, db+".away"); err != nil {
		t.Fatal(err)
	}
	u := NewUploader(t, s.URL(), "")
	if a := u.Get("/" + hashOf(c.Path("a")) + ".narinfo"); a.Status != 503 || !strings.Contains(a.Body, "cannot read its own Nix store") {
		t.Errorf("%v", a)
	}
	NewNix(t, suite).Trust(s.URL(), s.Key).Must("nix-store", "--realise", c.Path("zoo"))
	if err := os.Rename(db+".away", db); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, func() string {
		if a := u.Get("/" + hashOf(c.Path("a")) + ".narinfo"); a.Status != 200 {
			return a.Body
		}
		return ""
	})
}

// On a machine with a Nix store, init makes a configuration that serves it.
func TestLocalStoreInit(t *testing.T) {
	t.Parallel()
	suite := newest()
	c := NeedClosures(t, suite)
	m := aMachine(t, suite, c, "a")
	dir := filepath.Join(scratch(t), "data")
	s := &Server{T: t, Dir: dir, Data: dir, Port: freePort(t), Log: dir + ".log", bin: narwharfBin(t), files: func(name string) string { return name }}
	t.Cleanup(s.close)
	out := run(t, program{argv: s.argv("init", "--listen", s.Addr(), "--store-root", m.Root, dir)})
	if out.Code != 0 || !strings.Contains(out.Stdout, "/nix/store of this machine is served") {
		t.Fatalf("init\n%v", out)
	}
	s.Start()
	keys, err := filepath.Glob(filepath.Join(dir, "keys", "*.pub"))
	if err != nil || len(keys) != 1 {
		t.Fatalf("%v, %v", keys, err)
	}
	key, err := os.ReadFile(keys[0])
	if err != nil {
		t.Fatal(err)
	}
	down := NewNix(t, suite, "substituters = "+s.URL(), "require-sigs = true", "trusted-public-keys = "+strings.TrimSpace(string(key)))
	down.Must("nix-store", "--realise", c.Path("a"))
	down.Verify()
	if log, err := os.ReadFile(s.Log); err != nil || !strings.Contains(string(log), "of this machine can be substituted") {
		t.Errorf("the server does not say what it serves: %v\n%s", err, log)
	}
	if out := run(t, program{argv: s.argv("init", "--store-root", scratch(t), filepath.Join(scratch(t), "other"))}); out.Code == 0 || !strings.Contains(out.Stderr, "--store-root") {
		t.Errorf("init with a store that is none\n%v", out)
	}
}

// Who moves from Harmonia to Narwharf at the same address has clients that remember its narinfos for
// 30 days, with Harmonia's names of NARs.
func TestAfterHarmonia(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		names := []string{"a", "zoo", "medium"}
		m := aMachine(t, suite, c, names...)
		s := NewServer(t, func(cfg *Config) { cfg.ServeStore, cfg.StoreRoot = true, m.Root })
		target, err := url.Parse(s.URL())
		if err != nil {
			t.Fatal(err)
		}
		pass := httputil.NewSingleHostReverseProxy(target)
		var moved atomic.Bool
		var nars atomic.Int64
		front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			hash, isInfo := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, "/"), ".narinfo")
			if isInfo && moved.Load() {
				t.Errorf("%s is asked for after the move", r.URL.Path)
			}
			if !isInfo {
				if strings.HasPrefix(r.URL.Path, "/nar/") {
					nars.Add(1)
				}
				pass.ServeHTTP(w, r)
				return
			}
			reply := NewUploader(t, s.URL(), "").Get("/" + hash + ".narinfo")
			text := regexp.MustCompile(`(?m)^(FileHash|FileSize): .*\n`).ReplaceAllString(reply.Body, "")
			text = regexp.MustCompile(`(?m)^URL: .*`).ReplaceAllString(text, "URL: nar/"+field(text, "NarHash")[len("sha256:"):]+".nar?hash="+hash)
			text = strings.Replace(text, "Compression: zstd", "Compression: none", 1)
			w.Header().Set("Content-Type", "text/x-nix-narinfo")
			w.WriteHeader(reply.Status)
			_, _ = io.WriteString(w, text)
		}))
		defer front.Close()
		line := NewProxy(t, strings.TrimPrefix(front.URL, "http://"))
		down := NewNix(t, suite).Trust(line.URL(), s.Key)
		for _, p := range c.Paths(names...) {
			down.Must("nix", "path-info", "-r", "--store", line.URL(), p)
		}
		moved.Store(true)
		line.Cut(Down, 20<<20, 1)
		down.Must("nix-store", append([]string{"--realise"}, c.Paths(names...)...)...)
		down.Verify()
		if nars.Load() == 0 {
			t.Error("no NAR was asked for")
		}
	})
}

// field is the value of a line of a narinfo.
func field(text, name string) string {
	m := regexp.MustCompile(`(?m)^` + name + `: (.*)$`).FindStringSubmatch(text)
	if m == nil {
		return ""
	}
	return m[1]
}
