package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The invariant checker of all tests here finds what it is there for, names it, and puts it right.
func TestFsckFindsDamage(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(t *testing.T, folder string, p, above *Path, doc Doc){
		"a flipped bit in a NAR": func(t *testing.T, folder string, _, _ *Path, doc Doc) {
			change(t, filepath.Join(folder, doc.URL), func(b []byte) []byte { return flip(b, len(b)/2) })
		},
		"a cut NAR": func(t *testing.T, folder string, _, _ *Path, doc Doc) {
			change(t, filepath.Join(folder, doc.URL), func(b []byte) []byte { return b[:len(b)-1] })
		},
		"a missing NAR": func(t *testing.T, folder string, _, _ *Path, doc Doc) {
			remove(t, filepath.Join(folder, doc.URL))
		},
		"a missing narinfo that is referred to": func(t *testing.T, folder string, p, _ *Path, _ Doc) {
			remove(t, filepath.Join(folder, p.Hash()+".narinfo"))
		},
		"a narinfo of another size": func(t *testing.T, folder string, p, _ *Path, doc Doc) {
			change(t, filepath.Join(folder, p.Hash()+".narinfo"), func(b []byte) []byte {
				return []byte(strings.Replace(string(b), "NarSize: "+doc.NarSize, "NarSize: 1"+doc.NarSize, 1))
			})
		},
		"an empty narinfo": func(t *testing.T, folder string, p, _ *Path, _ Doc) {
			change(t, filepath.Join(folder, p.Hash()+".narinfo"), func([]byte) []byte { return nil })
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, running := range []bool{true, false} {
				s := NewServer(t, nil)
				u := NewUploader(t, s.URL(), s.Token("ci", "push"))
				p := NewPath("damaged", RandomNAR(1200, 5000))
				above := NewPath("above", RandomNAR(1201, 500), p)
				u.Upload(p, above)
				doc, _ := u.Describe(p)
				s.Fsck()
				if !running {
					s.Stop()
				}
				damage(t, filepath.Join(s.Data, "cache"), p, above, doc)
				out := s.CLI("fsck")
				if out.Code != 1 {
					t.Fatalf("running %v: fsck does not see it\n%v", running, out)
				}
				if !strings.Contains(out.Stdout+out.Stderr, p.Hash()) && !strings.Contains(out.Stdout+out.Stderr, doc.URL) {
					t.Errorf("running %v: fsck does not say what is damaged\n%v", running, out)
				}
				// What is damaged is taken out of the way, also out of the way of the paths that refer
				// to it: then `nix copy --refresh` uploads what is missing, and all is clean.
				repair := s.CLI("fsck", "--repair")
				if again := s.CLI("fsck"); again.Code != repair.Code {
					t.Errorf("running %v: --repair and the look after it disagree\n%v\n%v", running, repair, again)
				}
				if !running {
					s.Start()
				}
				u.Upload(p, above)
				u.Fetch(p)
				u.Fetch(above)
				if again := s.CLI("fsck"); again.Code != 0 {
					t.Errorf("running %v: not repaired\n%v\n%v", running, repair, again)
				}
			}
		})
	}
}

func change(t *testing.T, file string, edit func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	remove(t, file) // not in place: the server may have it open
	if err := os.WriteFile(file, edit(b), 0o644); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, file string) {
	t.Helper()
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
}

// The index is derived: without it `narwharf rebuild` makes it anew from the files.
func TestRebuild(t *testing.T) {
	t.Parallel()
	suite := newest()
	c := NeedClosures(t, suite)
	s := NewServer(t, nil)
	token := s.Token("ci", "push")
	up := NewNix(t, suite).In(c.Root).Netrc(token)
	up.Push(s.URL(), "?compression=zstd&write-nar-listing=1&index-debug-info=1", c.Paths("a", "dbg_debug", "zoo", "multi_dev")...)
	up.Push(s.URL(), "?compression=zstd", c.Everything()...) // with names that Nix itself cannot list
	u := NewUploader(t, s.URL(), "")
	a := "/" + hashOf(c.Path("a")) + ".narinfo"
	info := u.Get(a)
	s.Stop()
	files := s.Files()
	remove(t, filepath.Join(s.Data, "narwharf.db"))
	if out := s.CLI("rebuild"); out.Code != 0 {
		t.Fatalf("rebuild\n%v", out)
	}
	s.Fsck()
	if diff := files.diff(s.Files()); len(diff) > 0 {
		t.Errorf("rebuild changed files: %v", diff)
	}
	s.Start()
	if again := u.Get(a); again.Body != info.Body {
		t.Errorf("after rebuild\n%s\nbefore\n%s", again.Body, info.Body)
	}
	down := NewNix(t, suite).Trust(s.URL(), s.Key)
	down.Must("nix-store", append([]string{"--realise"}, c.Everything()...)...)
	down.Verify()
	// The first fingerprint still wins, and the token is still good.
	liar := NewUploader(t, s.URL(), token)
	doc := ParseDoc(t, info.Body)
	other, file := liar.Describe(NewPath("other", RandomNAR(1300, 100)))
	if r := liar.PutNAR(other, file); !r.OK() {
		t.Fatal(r)
	}
	other.StorePath, other.References = doc.StorePath, ""
	if r := liar.PutDoc(hashOf(c.Path("a")), other.String()); r.Status != http.StatusConflict {
		t.Errorf("another fingerprint after rebuild: %v", r)
	}
}

// A client remembers for thirty days what a cache had. When the cache lost it, the upload of what
// refers to it is refused with the words that help.
func TestLostPaths(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		s := NewServer(t, nil)
		token := s.Token("ci", "push")
		up := NewNix(t, suite).In(c.Root).Netrc(token)
		up.Push(s.URL(), "?compression=zstd", c.Path("b"))
		s.Stop()
		if err := os.RemoveAll(filepath.Join(s.Data, "cache")); err != nil {
			t.Fatal(err)
		}
		if out := s.CLI("rebuild"); out.Code != 0 {
			t.Fatalf("rebuild\n%v", out)
		}
		s.Start()
		up.Netrc(s.Token("again", "push"))
		up.Fails([]string{"422", "--refresh"}, "nix", "copy", "--to", s.URL()+"?compression=zstd", c.Path("a"))
		s.Fsck()
		up.Must("nix", "copy", "--refresh", "--to", s.URL()+"?compression=zstd", c.Path("a"))
		NewNix(t, suite).Trust(s.URL(), s.Key).Must("nix-store", "--realise", c.Path("a"))
	})
}

// A NAR that never gets a narinfo is swept after the grace time; others stay.
func TestSweep(t *testing.T) {
	t.Parallel()
	onlyLong(t)
	s := NewServer(t, func(c *Config) { c.NarGrace = "40s" })
	u := NewUploader(t, s.URL(), s.Token("ci", "push"))
	kept, orphan := NewPath("kept", RandomNAR(1400, 1000)), NewPath("orphan", RandomNAR(1401, 1000))
	u.Upload(kept)
	doc, file := u.Describe(orphan)
	if r := u.PutNAR(doc, file); !r.OK() {
		t.Fatal(r)
	}
	// Asked without a token: a HEAD by who may push begins the grace time anew, since Nix then sends
	// the narinfo alone.
	reader := NewUploader(t, s.URL(), "")
	time.Sleep(15 * time.Second)
	if r := reader.Head("/" + doc.URL); r.Status != 200 {
		t.Errorf("swept before its time: %v", r)
	}
	gone := func() string {
		if r := reader.Head("/" + doc.URL); r.Status != 404 {
			return r.String()
		}
		return ""
	}
	for end := time.Now().Add(3 * time.Minute); gone() != "" && time.Now().Before(end); {
		time.Sleep(time.Second)
	}
	if still := gone(); still != "" {
		t.Errorf("not swept: %s", still)
	}
	u.Fetch(kept)
	if r := u.PutDoc(orphan.Hash(), doc.String()); r.Status != http.StatusUnprocessableEntity {
		t.Errorf("a narinfo for a swept NAR: %v", r)
	}
	u.Upload(orphan)
	u.Fetch(orphan)
}

// Commands that root runs on somebody else's data_dir leave no file of root's in it.
func TestNothingOfRoot(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		lacking(t, "this is about root, and the tests do not run as root")
	}
	needTool(t, "setpriv", "util-linux")
	const nobody = 65534
	dir := scratch(t)
	if err := os.Mkdir(filepath.Join(dir, "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := newServer(t, dir, nil)
	err := filepath.WalkDir(dir, func(name string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(name, nobody, nobody)
	})
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "narwharf") // the repository may be closed to others
	text, err := os.ReadFile(s.bin)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bin, text, 0o755); err != nil {
		t.Fatal(err)
	}
	s.bin = bin
	asNobody := []string{"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"}
	all := func(step string) {
		t.Helper()
		_ = filepath.WalkDir(s.Data, func(name string, d os.DirEntry, err error) error {
			if err != nil {
				return nil
			}
			if info, err := d.Info(); err == nil && info.Sys().(*syscall.Stat_t).Uid != nobody {
				t.Errorf("%s: %s belongs to root", step, name)
			}
			return nil
		})
	}
	s.Token("first", "push") // by root, on an empty folder
	all("token new in an empty data_dir")
	s.Fsck()
	s.CLI("rebuild")
	all("fsck and rebuild of a stopped server")
	s.prefix = asNobody
	s.Start()
	s.prefix = nil
	token := s.Token("second", "push")
	NewUploader(t, s.URL(), token).Upload(NewPath("owned", RandomNAR(1500, 100)))
	s.Fsck()
	s.CLI("fsck", "--repair")
	all("commands beside a running server")
	s.prefix = asNobody
	s.Stop()
	s.Start()
}
