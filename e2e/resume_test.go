package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// A download that the network cuts, twice, is resumed where it broke, however the NAR is stored.
func TestResumeDownload(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		for _, compression := range []string{"none", "zstd"} {
			if testing.Short() && compression == "none" {
				continue
			}
			t.Run(compression, func(t *testing.T) {
				s, rec, token := aServer(t, nil)
				NewNix(t, suite).In(c.Root).Netrc(token).Push(s.URL(), "?compression="+compression, c.Path("medium"))

				net := NewProxy(t, rec.Addr())
				net.Cut(Down, 20<<20, 2) // twice the same amount: the second cut is beyond the first
				down := NewNix(t, suite).Trust(net.URL(), s.Key)
				down.Must("nix-store", "--realise", c.Path("medium"))
				down.Verify()
				if net.Left() != 0 {
					t.Errorf("%d of 2 cuts did not happen", net.Left())
				}
				resumed := 0
				for _, r := range rec.Select(http.MethodGet, "/nar/") {
					if r.Status == http.StatusPartialContent && strings.HasPrefix(r.Header.Get("Range"), "bytes=") {
						resumed++
					}
				}
				if resumed != 2 {
					t.Errorf("%d resumed downloads, want 2: %v", resumed, rec.Select("", "/nar/"))
				}
				if got := net.Bytes(Down); got > 80<<20 {
					t.Errorf("%d MB for a NAR of 64 MB: not resumed but begun again", got>>20)
				}
			})
		}
	})
}

// A restart of the server in the middle of a download is a cut like another.
func TestResumeOverRestart(t *testing.T) {
	t.Parallel()
	onlyLong(t)
	suite := newest()
	c := NeedClosures(t, suite)
	s, _, token := aServer(t, nil)
	NewNix(t, suite).In(c.Root).Netrc(token).Push(s.URL(), "?compression=zstd", c.Path("medium"))
	net := NewProxy(t, s.Addr())
	net.Stall(Down, 30<<20, 1)
	down := NewNix(t, suite).Trust(net.URL(), s.Key)
	done := make(chan Output, 1)
	go func() { done <- down.Run("nix-store", "--realise", c.Path("medium")) }()
	for end := time.Now().Add(20 * time.Second); net.Left() > 0 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	s.Kill()
	net.CloseAll()
	s.Start()
	if out := <-done; out.Code != 0 {
		t.Fatalf("the download did not survive a restart\n%v", out)
	}
	down.Verify()
}

// An upload that the network cuts leaves nothing behind, and the next attempt succeeds. Clients
// before 2.33 cannot repeat a body: theirs fails (2.8 only once the server gives the stalled
// repetition up), later ones repeat it by themselves.
func TestCutUpload(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		s, rec, token := aServer(t, nil)
		up := NewNix(t, suite).In(c.Root).Netrc(token)
		before := s.Files()
		net := NewProxy(t, rec.Addr())
		net.Cut(Up, 20<<20, 1)
		out := up.Run("nix", "copy", "--to", net.URL()+"?compression=none", c.Path("medium"))
		if net.Left() != 0 {
			t.Fatalf("the cut did not happen\n%v", out)
		}
		if out.TimedOut {
			t.Errorf("the client hangs\n%v", out)
		}
		if up.AtLeast(2, 33) && out.Code != 0 {
			t.Errorf("Nix %s repeats an upload, but this one failed\n%v", up.Version, out)
		}
		if out.Code != 0 {
			eventually(t, 5*time.Second, func() string {
				return strings.Join(before.diff(s.Files()), "\n")
			})
		}
		up.Forget().Push(net.URL(), "?compression=none", c.Path("medium"))
		down := NewNix(t, suite)
		down.Pull(s.URL(), c.Path("medium"))
		down.Verify()
	})
}

// eventually asks again until the answer is empty (fine) or the time is over.
func eventually(t testing.TB, limit time.Duration, ask func() string) {
	t.Helper()
	end := time.Now().Add(limit)
	for {
		wrong := ask()
		if wrong == "" {
			return
		}
		if time.Now().After(end) {
			t.Errorf("after %v still: %s", limit, wrong)
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}
