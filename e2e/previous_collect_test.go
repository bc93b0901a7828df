package e2e

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

// What this build collected stays gone with the previous one on the same data_dir, and what that
// one was asked for is not collected by this one before its time.
func TestPreviousDataDirCollects(t *testing.T) {
	t.Parallel()
	this, previous := narwharfBin(t), PreviousBin(t)
	s := newServer(t, scratch(t), nil)
	use := func(bin string) {
		t.Helper()
		if s.Running() {
			s.Stop()
		}
		s.Use(bin)
		s.Fsck()
		s.Start()
	}
	s.bin = previous
	s.config.Retention = []string{`grace = "20s"`, `lease = "2s"`, `keep_releases = 1`}
	s.WriteConfig()
	s.Start()
	u := NewUploader(t, s.URL(), s.Token("ci", "push"))
	anybody := NewUploader(t, s.URL(), "")
	below := NewPath("below", RandomNAR(740, 5000))
	kept, old := NewPath("kept", RandomNAR(741, 100), below), NewPath("old", RandomNAR(742, 3000), below)
	older := NewPath("older", RandomNAR(743, 3000), old)
	u.Upload(below, kept, old, older)
	twice := NewUploader(t, s.URL(), u.Token)
	twice.Compression = "gzip"
	twice.Upload(kept) // an alternate
	waiting := NewPath("waiting", RandomNAR(744, 700))
	alone, file := u.Describe(waiting)
	if r := u.PutNAR(alone, file); !r.OK() {
		t.Fatal(r)
	}
	key := NewKey("deploy-1")
	op := newPromoter(s, this, s.Token("op", "push", "promote:*", "operate", "admin"), key)
	op.promote(0, "promoted web to seq 1", storePath(kept))

	status := func(p *Path, want int) {
		t.Helper()
		if r := anybody.Get("/" + p.Hash() + ".narinfo"); r.Status != want {
			t.Errorf("%s: %v, want %d", p.Base, r, want)
		}
	}
	all := func(want int, paths ...*Path) {
		t.Helper()
		for _, p := range paths {
			status(p, want)
			if want == http.StatusOK {
				anybody.Fetch(p) // which is no use, as it is no uploader's
			}
		}
	}

	time.Sleep(22 * time.Second)
	use(this)
	op.must(0, "", "gc")
	all(404, old, older)
	all(200, below, kept)
	if r := anybody.Get("/" + alone.URL); r.Status != 200 {
		t.Errorf("a NAR that waits for its narinfo: %v", r)
	}
	u.Upload(old) // comes back

	use(previous)
	all(404, older)
	all(200, below, kept, old)
	u.Upload(older)
	if r := u.PutDoc(waiting.Hash(), alone.String()); !r.OK() {
		t.Error(r)
	}

	use(this)
	op.must(0, "", "gc")
	all(200, below, kept, old, older)
	time.Sleep(22 * time.Second)
	op.must(0, "", "gc")
	all(404, older, old)
	all(200, below, kept)
	s.Fsck()
	s.Stop()
	if out := s.CLI("rebuild"); out.Code != 0 {
		t.Fatal(fmt.Sprint(out))
	}
	s.Start()
	all(404, older, old)
	all(200, below, kept)
	s.Fsck()
}

// A runner that remembers a part of what it sent, which was collected since, is told what to do,
// and it helps.
func TestRunnerThatRemembersAPart(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		s := NewServer(t, func(c *Config) { c.Retention = []string{`grace = "2s"`, `lease = "1s"`} })
		op := newPromoter(s, narwharfBin(t), s.Token("op", "operate", "admin"), NewKey("deploy-1"))
		up := NewNix(t, suite).In(c.Root).Netrc(s.Token("ci", "push"))
		up.Push(s.URL(), "?compression=zstd", c.Path("b"))
		time.Sleep(4 * time.Second)
		op.must(0, "", "gc", "--early")
		if r := NewUploader(t, s.URL(), "").Get("/" + hashOf(c.Path("b")) + ".narinfo"); r.Status != 404 {
			t.Fatal(r)
		}
		s.Fsck()
		up.Fails([]string{"422", "--refresh"}, "nix", "copy", "--to", s.URL()+"?compression=zstd", c.Path("a"))
		up.Must("nix", "copy", "--refresh", "--to", s.URL()+"?compression=zstd", c.Path("a"))
		s.Fsck()
		NewNix(t, suite).Trust(s.URL(), s.Key).Must("nix-store", "--realise", c.Path("a"))
	})
}
