package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// newServerOn starts a server whose data_dir is a file system of that size. edits change its
// configuration.
func newServerOn(t *testing.T, size int64, edits ...func(*Config)) (*Server, *SmallDisk) {
	t.Helper()
	dir := scratch(t)
	if err := os.Mkdir(filepath.Join(dir, "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	disk := NewSmallDisk(t, filepath.Join(dir, "data"), size)
	s := newServer(t, dir, func(c *Config) {
		for _, edit := range edits {
			edit(c)
		}
	})
	s.prefix, s.files = disk.Prefix, disk.Outside
	s.Start()
	return s, disk
}

// A full disk: uploads end with 413 in words, nothing half-written stays, reading goes on, and once
// there is room again uploads work.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	s, disk := newServerOn(t, 24<<20)
	st := &stage{Uploader: NewUploader(t, s.URL(), s.Token("ci", "push")), server: s}
	first := NewPath("first", RandomNAR(1000, 2<<20))
	st.Upload(first)

	// Too big for what is left, told by the headers.
	big := NewPath("big", RandomNAR(1001, 40<<20))
	bigDoc, bigFile := st.Describe(big)
	before := s.Files()
	st.refused(st.PutNAR(bigDoc, bigFile), before, "disk|space|room|full", http.StatusRequestEntityTooLarge)

	// Nothing is left at all.
	free := disk.Fill(t)
	before = s.Files()
	for i, size := range []int{100, 100_000, 3 << 20} {
		p := NewPath("none", RandomNAR(uint64(1002+i), size))
		doc, file := st.Describe(p)
		st.refused(st.PutNAR(doc, file), before, "disk|space|room|full", http.StatusRequestEntityTooLarge)
	}
	if r := st.PutDoc(NewPath("x", nil).Hash(), bigDoc.String()); r.OK() || !finalStatuses[r.Status] {
		t.Errorf("a narinfo on a full disk: %v", r)
	}
	st.Fetch(first)
	if r := st.Get("/healthz"); r.Status != 200 {
		t.Errorf("the server lives: %v", r)
	}
	if r := st.Get("/readyz"); r.Status == 200 {
		t.Logf("readyz says 200 on a full disk: %v", r)
	}

	free()
	eventually(t, 10*time.Second, func() string {
		p := NewPath("again", RandomNAR(1010, 300_000))
		if _, err := st.TryUpload(p); err != nil {
			return err.Error()
		}
		st.Fetch(p)
		return ""
	})
}

// The disk runs full in the middle of uploads, by several at once.
func TestDiskRunsFull(t *testing.T) {
	t.Parallel()
	s, disk := newServerOn(t, 20<<20)
	token := s.Token("ci", "push")
	var accepted, rejected []*Path
	for i := range 12 {
		p := NewPath("filling", RandomNAR(uint64(1100+i), 3<<20))
		u := NewUploader(t, s.URL(), token)
		doc, file := u.Describe(p)
		nar := u.PutNAR(doc, file)
		if nar.OK() {
			nar = u.PutDoc(p.Hash(), doc.String())
		}
		switch {
		case nar.OK():
			accepted = append(accepted, p)
		case nar.Status == http.StatusRequestEntityTooLarge:
			rejected = append(rejected, p)
			checkRefusalText(t, nar, "disk|space|room|full")
		default:
			t.Errorf("%v: want success or 413", nar)
		}
	}
	if len(accepted) < 2 || len(rejected) < 2 {
		t.Errorf("%d accepted and %d refused: the disk did not run full", len(accepted), len(rejected))
	}
	s.Fsck()
	free := disk.Fill(t)
	s.Fsck()
	// A restart with a full disk still serves what is there.
	s.Stop()
	s.Start()
	u := NewUploader(t, s.URL(), token)
	for _, p := range accepted {
		u.Fetch(p)
	}
	free()
	s.Fsck()
}

// `nix copy` to a full disk ends soon, with our words.
func TestFullDiskOfNix(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		s, _ := newServerOn(t, 20<<20)
		up := NewNix(t, suite).In(c.Root).Netrc(s.Token("ci", "push"))
		for _, query := range []string{"?compression=none", "?compression=zstd"} {
			before := s.Files()
			out := up.Fails([]string{"413"}, "nix", "copy", "--to", s.URL()+query, c.Path("medium"))
			if out.Took > 30*time.Second {
				t.Errorf("only after %v", out.Took)
			}
			if diff := before.diff(s.Files()); len(diff) > 0 {
				t.Errorf("left behind %v", diff)
			}
			s.Fsck()
		}
		up.Push(s.URL(), "?compression=zstd", c.Path("a")) // small ones still fit
	})
}
