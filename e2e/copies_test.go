package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What export writes is a plain static cache: every Nix reads it as a folder and through nginx, with
// the server's signatures checked.
func TestExportIsAStaticCache(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		s := NewServer(t, nil)
		paths := c.Paths("a", "zoo", "multi_dev", "selfref", "caPlain")
		NewNix(t, suite).In(c.Root).Netrc(s.Token("ci", "push")).Push(s.URL(), "?compression=zstd", paths...)
		dir := filepath.Join(scratch(t), "cache")
		out := s.CLI(append([]string{"export", dir}, paths...)...)
		if out.Code != 0 || !strings.Contains(out.Stdout, "0 were there already") {
			t.Fatal(out)
		}
		if again := s.CLI("export", dir); again.Code != 0 || !strings.Contains(again.Stdout, "exported 0 paths") {
			t.Fatal(again)
		}
		web := StartStatic(t, dir)
		for _, other := range Suites() {
			for _, from := range []string{"file://" + dir, web} {
				down := NewNix(t, other).Trust(from, s.Key)
				down.Must("nix", append([]string{"copy", "--from", from}, paths...)...)
				down.Verify()
			}
		}
	})
}

// importer runs imports into a server.
type importer struct {
	t      testing.TB
	server *Server
	token  string // file
}

func newImporter(s *Server) *importer {
	s.T.Helper()
	file := filepath.Join(scratch(s.T), "token")
	s.writeFile(file, s.Token("import", "push")+"\n", 0o600)
	return &importer{s.T, s, file}
}

func (i *importer) argv(args ...string) []string {
	return append([]string{i.server.bin, "import", "--server", i.server.URL(), "--token-file", i.token}, args...)
}

func (i *importer) must(says string, args ...string) Output {
	i.t.Helper()
	out := run(i.t, program{argv: i.argv(args...), dir: scratch(i.t)})
	if out.Code != 0 || !strings.Contains(out.Stdout, says) {
		i.t.Fatalf("want %q\n%v", says, out)
	}
	return out
}

// The move from a folder that each Nix wrote, in each compression, and from the same folder behind
// nginx, as a static cache or an S3 bucket has it, by a list of store paths.
func TestImportFromStaticCaches(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		paths := c.Paths("a", "zoo", "multi_dev", "selfref")
		for _, query := range []string{"", "?compression=none", "?compression=zstd"} {
			folder := filepath.Join(scratch(t), "cache")
			up := NewNix(t, suite).In(c.Root)
			up.Must("nix", append([]string{"copy", "--to", "file://" + folder + query}, paths...)...)
			list := filepath.Join(scratch(t), "paths")
			if err := os.WriteFile(list, []byte("# what we want\n"+filepath.Base(paths[0])[:32]+".narinfo\n"+strings.Join(paths[1:], "\n")+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, args := range [][]string{{folder}, {StartStatic(t, folder), "--paths-from", list}} {
				s := NewServer(t, nil)
				i := newImporter(s)
				i.must("0 were there already", args...)
				i.must("imported 0 paths", args...)
				s.Fsck()
				down := NewNix(t, suite).Trust(s.URL(), s.Key)
				down.Must("nix", append([]string{"copy", "--from", s.URL()}, paths...)...)
				down.Verify()
				if query == "?compression=none" {
					hash := filepath.Base(paths[0])[:32]
					if r := NewUploader(t, s.URL(), "").Get("/" + hash + ".narinfo"); !strings.Contains(r.Body, "Compression: zstd") {
						t.Errorf("a plain NAR is not packed: %v", r)
					}
				}
			}
		}
	})
}

// The moves from Harmonia and from attic, as docs/migrating.md has them, from what answers as they do: NARs that break off, URLs with
// queries, narinfos that say nothing or something else of the file, NARs that lie in a bucket, a cache with a password, and one that
// leaves out what another has.
func TestImportFromOthers(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		up := NewNix(t, suite).In(c.Root)
		key, elsewhere := NewKey("old-1"), scratch(t)
		lib := strings.Fields(up.Must("nix-store", "--query", "--requisites", c.Path("a")).Stdout)[0]
		up.Push("file://"+elsewhere, "", lib)
		paths := append(c.Paths("a", "zoo", "multi_dev", "selfref"), c.Path("wide"))
		list := filepath.Join(scratch(t), "paths")
		if err := os.WriteFile(list, []byte(strings.Join(paths, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		for kind, secret := range map[string]string{"harmonia": "", "attic": "a-token-of-atticd"} {
			t.Run(kind, func(t *testing.T) {
				folder := scratch(t)
				up.Push("file://"+folder, "?compression=none&secret-key="+up.write("old.sec", key.Secret()), paths...)
				if err := os.Remove(filepath.Join(folder, hashOf(lib)+".narinfo")); err != nil {
					t.Fatal(err)
				}
				old := NewImitated(t, kind, folder, secret)
				s := NewServer(t, nil)
				i := newImporter(s)
				netrc := filepath.Join(scratch(t), "netrc")
				s.writeFile(netrc, "machine 127.0.0.1\nlogin me\npassword "+secret+"\n", 0o600)
				args := []string{old.URL, "--also", StartStatic(t, elsewhere), "--paths-from", list}
				if secret != "" {
					if out := run(t, program{argv: i.argv(args...), dir: scratch(t)}); out.Code == 0 || !strings.Contains(out.Stderr, "--netrc-file") {
						t.Errorf("without a password: %v", out)
					}
					args = append(args, "--netrc-file", netrc)
				}
				old.Cut(3)
				i.must("0 were there already", args...)
				i.must("imported 0 paths", args...)
				s.Fsck()
				down := NewNix(t, suite).Trust(s.URL(), s.Key)
				down.Must("nix", append([]string{"copy", "--from", s.URL()}, paths...)...)
				down.Verify()
				doc := ParseDoc(t, NewUploader(t, s.URL(), "").Get("/"+hashOf(paths[0])+".narinfo").Body)
				if doc.SignedBy(key) != 1 || doc.Compression != "zstd" {
					t.Errorf("it came without its signature, or is not packed\n%v", doc)
				}
				if old.Sent("whole") == 0 || kind == "attic" && (old.Sent("redirect") == 0 || old.Sent("refused") > 0) || kind == "harmonia" && old.Sent("range") == 0 {
					t.Errorf("not all that it can was asked for: %d whole, %d parts, %d from the bucket, of which %d were refused", old.Sent("whole"), old.Sent("range"), old.Sent("stored"), old.Sent("refused"))
				}
			})
		}
	})
}

// A channel of another Narwharf, whose cache needs a password.
func TestImportAChannel(t *testing.T) {
	t.Parallel()
	old := NewServer(t, func(c *Config) { c.Anonymous = []string{} })
	below := NewPath("below", RandomNAR(1500, 5000))
	one, other := NewPath("one", RandomNAR(1501, 100), below), NewPath("other", RandomNAR(1502, 100))
	NewUploader(t, old.URL(), old.Token("ci", "push")).Upload(below, one, other)
	p := newPromoter(old, narwharfBin(t), old.Token("op", "push", "promote:*"), NewKey("deploy-1"))
	p.promote(0, "promoted web to seq 1", storePath(one))
	s := NewServer(t, nil)
	i := newImporter(s)
	netrc := filepath.Join(scratch(t), "netrc")
	s.writeFile(netrc, "machine 127.0.0.1\nlogin me\npassword "+old.Token("reader", "pull")+"\n", 0o600)
	i.must("imported 2 paths", old.URL(), "--channel", "web", "--netrc-file", netrc)
	u := NewUploader(t, s.URL(), "")
	u.Fetch(below)
	u.Fetch(one)
	if r := u.Get("/" + other.Hash() + ".narinfo"); r.Status != http.StatusNotFound {
		t.Errorf("more than the channel was imported: %v", r)
	}
	out := run(t, program{argv: i.argv(old.URL(), "--channel", "web"), dir: scratch(t)})
	if out.Code != 2 || !strings.Contains(out.Stderr, "--netrc-file") {
		t.Error(out)
	}
}

// An import whose process is killed, or whose source is cut, again and again, goes on from where it
// was, and ends with all there is; at no moment fsck finds damage.
func TestImportKilled(t *testing.T) {
	t.Parallel()
	old := NewServer(t, nil)
	var paths []*Path
	for i := range 40 {
		var refs []*Path
		if i > 0 {
			refs = append(refs, paths[i/2])
		}
		paths = append(paths, NewPath(fmt.Sprintf("p%d", i), RandomNAR(uint64(1600+i), 60_000), refs...))
	}
	NewUploader(t, old.URL(), old.Token("ci", "push")).Upload(paths...)
	proxy := NewProxy(t, old.Addr())
	s := NewServer(t, nil)
	i := newImporter(s)
	args := []string{proxy.URL(), "--jobs", "2"}
	for _, p := range paths {
		args = append(args, storePath(p))
	}
	argv := i.argv(args...)
	killed := 0
	for n := range 6 {
		proxy.Delay(3 * time.Millisecond)
		proxy.Cut(Down, int64(20_000*(n+1)), 1)
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.SysProcAttr = ownGroup()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(80*(n+1)) * time.Millisecond)
		_ = cmd.Process.Signal(syscall.SIGKILL)
		if cmd.Wait() != nil {
			killed++
		}
		s.Fsck()
	}
	if killed == 0 {
		t.Error("no import was killed")
	}
	proxy.Delay(0)
	out := i.must("imported", args...)
	u := NewUploader(t, s.URL(), "")
	for _, p := range paths {
		u.Fetch(p)
	}
	t.Logf("killed %d times, then %s", killed, out.Stdout)
}

// A backup of a server at work; the server is killed in the middle of uploads, its disk is lost, and
// what restore makes of the backup serves: hosts, tokens and the channel go on.
func TestBackupAndRestore(t *testing.T) {
	t.Parallel()
	s := NewServer(t, nil)
	push, hosts := s.Token("ci", "push"), s.Token("hosts", "follow:web", "pull")
	u := NewUploader(t, s.URL(), push)
	below := NewPath("below", RandomNAR(1700, 5000))
	one, two, three := NewPath("one", RandomNAR(1701, 100), below), NewPath("two", RandomNAR(1702, 100_000), below), NewPath("three", RandomNAR(1703, 100))
	u.Upload(below, one, two)
	p := newPromoter(s, narwharfBin(t), s.Token("op", "push", "promote:*", "operate"), NewKey("deploy-1"))
	p.promote(0, "promoted web to seq 1", storePath(one))
	host := newFollower(s, hosts, "h1", storePath(one)).today()
	p.promote(0, "promoted web to seq 2", storePath(two))
	stop := make(chan struct{})
	wg := follow(stop, host)
	for end := time.Now().Add(20 * time.Second); !strings.Contains(p.run("hosts", "web").Stdout, "ok") && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		continue
	}
	close(stop)
	wg.Wait()

	backup := filepath.Join(scratch(t), "backup")
	uploading, stopUploads := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(uploading)
		busy := NewUploader(t, s.URL(), push)
		last := below
		for n := 0; ; n++ {
			select {
			case <-stopUploads:
				return
			default:
			}
			next := NewPath(fmt.Sprintf("busy%d", n), RandomNAR(uint64(1800+n), 20_000), last)
			if _, err := busy.TryUpload(next); err != nil {
				return // the server was killed
			}
			last = next
		}
	}()
	for n := range 3 {
		out := s.CLI("backup", backup)
		if out.Code != 0 || !strings.Contains(out.Stdout, "linked") {
			t.Fatalf("backup %d: %v", n, out)
		}
		time.Sleep(100 * time.Millisecond)
	}
	s.Kill()
	close(stopUploads)
	<-uploading

	if err := os.RemoveAll(s.Data); err != nil {
		t.Fatal(err)
	}
	restore := func() Output {
		return run(t, program{argv: []string{s.bin, "restore", backup, s.Data}, dir: s.Dir})
	}
	if out := restore(); out.Code != 0 || !strings.Contains(out.Stdout, "is as data_dir was") {
		t.Fatal(out)
	}
	if out := restore(); out.Code != 2 || !strings.Contains(out.Stderr, "overwrites nothing") {
		t.Error(out)
	}
	s.Start()
	s.Fsck()
	for _, path := range []*Path{below, one, two} {
		NewUploader(t, s.URL(), "").Fetch(path)
	}
	if path, seq := host.desired(); path != storePath(two) || seq != 2 {
		t.Errorf("the host is told %s, %d", path, seq)
	}
	host.report("ok", 2, storePath(two))
	p.must(0, "2 ", "channel", "history", "web")
	u.Upload(three)
	stop = make(chan struct{})
	wg = follow(stop, host)
	p.promote(0, "completed: seq 3 of web", storePath(three), "--wait", "--wait-timeout", "60s")
	close(stop)
	wg.Wait()
	if host.current != storePath(three) {
		t.Errorf("the host runs %s", host.current)
	}
	// The old data_dir cannot be mistaken for a backup, nor half a restore be served.
	if out := run(t, program{argv: []string{s.bin, "restore", s.Data, filepath.Join(s.Dir, "x")}, dir: s.Dir}); out.Code != 2 || !strings.Contains(out.Stderr, "is no backup") {
		t.Error(out)
	}
	s.Stop()
	s.writeFile(filepath.Join(s.Data, "restore-unfinished"), "cut\n", 0o600)
	if out := s.CLI("fsck"); out.Code != 2 || !strings.Contains(out.Stderr, "run narwharf restore again") {
		t.Error(out)
	}
	_ = os.Remove(filepath.Join(s.Data, "restore-unfinished"))
}

// An export that is killed leaves whole closures, and goes on.
func TestExportKilled(t *testing.T) {
	t.Parallel()
	s := NewServer(t, nil)
	var paths []*Path
	for i := range 200 {
		var refs []*Path
		if i > 0 {
			refs = append(refs, paths[i/3])
		}
		paths = append(paths, NewPath(fmt.Sprintf("e%d", i), RandomNAR(uint64(1900+i), 20_000), refs...))
	}
	NewUploader(t, s.URL(), s.Token("ci", "push")).Upload(paths...)
	dir := filepath.Join(scratch(t), "out")
	check := func() (n int) {
		t.Helper()
		names, err := filepath.Glob(filepath.Join(dir, "*.narinfo"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			doc := ParseDoc(t, string(text))
			nar, err := os.ReadFile(filepath.Join(dir, doc.URL))
			if err != nil || nixHash(nar) != doc.FileHash {
				t.Errorf("the NAR of %s: %v", name, err)
			}
			for _, ref := range strings.Fields(doc.References) {
				if _, err := os.Stat(filepath.Join(dir, ref[:32]+".narinfo")); err != nil {
					t.Errorf("%s refers to what is not there: %v", name, err)
				}
			}
		}
		return len(names)
	}
	argv := s.argv("export", dir, "--jobs", "3", "--config", s.configFile())
	var counts []int
	for n := range 5 {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.SysProcAttr = ownGroup()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(60+40*n) * time.Millisecond)
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait()
		counts = append(counts, check())
	}
	if !slices.IsSorted(counts) {
		t.Errorf("it does not go on: %d", counts)
	}
	if out := s.CLI("export", dir); out.Code != 0 || check() != 200 {
		t.Errorf("%v", out)
	}
	t.Logf("paths after each kill: %d", counts)
}

// What the disk has spoilt shows by itself: the alarm names path and channel, an upstream has the NAR
// again, and where nobody has it nothing is taken away.
func TestScrub(t *testing.T) {
	t.Parallel()
	other := NewServer(t, nil)
	needed, alone := NewPath("needed", RandomNAR(2100, 90_000)), NewPath("alone", RandomNAR(2101, 90_000))
	NewUploader(t, other.URL(), other.Token("ci", "push")).Upload(needed)
	s := NewServer(t, func(c *Config) {
		c.ScrubInterval = "2s"
		c.Upstreams = []string{fmt.Sprintf("url = %q\npublic_keys = [%q]\npull_through = true\nsign = true", other.URL(), other.Key.Public())}
	})
	u := NewUploader(t, s.URL(), s.Token("ci", "push"))
	for _, path := range []*Path{needed, alone} { // as uploads, though the upstream has one
		doc, nar := u.Describe(path)
		for _, r := range []Reply{u.PutNAR(doc, nar), u.PutDoc(path.Hash(), doc.String())} {
			if !r.OK() {
				t.Fatal(r)
			}
		}
	}
	p := newPromoter(s, narwharfBin(t), s.Token("op", "push", "promote:*", "operate", "admin"), NewKey("deploy-1"))
	p.promote(0, "promoted web to seq 1", storePath(needed))
	docs := map[*Path]Doc{}
	for _, path := range []*Path{needed, alone} {
		docs[path], _ = u.Describe(path)
		change(t, filepath.Join(s.Data, "cache", docs[path].URL), func(b []byte) []byte { return flip(b, len(b)/2) })
	}
	events := NewUploader(t, s.URL(), p.token)
	var text string
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		text = events.Get("/api/v1/events?since=0").Body
		if strings.Contains(text, needed.Base+", is damaged") && strings.Contains(text, alone.Base+", is damaged") {
			break
		}
	}
	for _, want := range []string{
		"the NAR of " + needed.Base + ", is damaged: the SHA-256 of its", "; needed by web; it was fetched anew",
		"the NAR of " + alone.Base + ", is damaged", "run narwharf fsck --repair",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in %s", want, text)
		}
	}
	u.Fetch(needed)
	if _, err := os.Stat(filepath.Join(s.Data, "cache", docs[alone].URL)); err != nil {
		t.Errorf("what nobody else has was taken away: %v", err)
	}
	if out := s.CLI("fsck", "--repair"); out.Code != 0 {
		t.Error(out)
	}
}
