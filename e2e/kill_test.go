package e2e

import (
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Story 15: the server is killed at random moments of parallel uploads. After each start the store
// is clean, what was accepted is served, and the upload completes.
func TestKillDuringUploads(t *testing.T) {
	t.Parallel()
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	s := NewServer(t, nil)
	token := s.Token("ci", "push")
	bottom := NewPath("bottom", RandomNAR(700, 1000))
	paths := []*Path{bottom}
	for i := range 120 {
		paths = append(paths, NewPath("killed", RandomNAR(uint64(701+i), 20_000*(1+i%8)), bottom, paths[i]))
	}
	accepted := map[string]bool{}
	for round := range rounds {
		// Part of what is left each time, so that every round has something to interrupt.
		part := paths[:min(len(paths), (round+1)*len(paths)/rounds)]
		s.killedInUpload(token, part, accepted, 3*time.Millisecond)
		s.Fsck() // before anything could be mended by a start
		s.Start()
		s.Fsck()
		s.stillHas(accepted)
	}
	t.Logf("%d of %d paths were accepted in %d interrupted uploads", len(accepted), len(paths), rounds)
	u := NewUploader(t, s.URL(), token)
	u.Upload(paths...)
	for _, p := range paths {
		u.Fetch(p)
	}
}

// killedInUpload uploads paths and kills the server within a time after one of the PUTs, of a NAR or of a narinfo,
// that are left to do. It adds the hashes of those that were accepted.
func (s *Server) killedInUpload(token string, part []*Path, accepted map[string]bool, within time.Duration) {
	s.T.Helper()
	u := NewUploader(s.T, s.URL(), token)
	last := rand.IntN(1 + 2*(len(part)-len(accepted)))
	puts, dead := &countPuts{next: u.Client.Transport, last: int64(last), reached: make(chan struct{})}, make(chan struct{})
	u.Client.Transport = puts
	go func() {
		defer close(dead)
		select {
		case <-puts.reached:
			time.Sleep(rand.N(within))
		case <-time.After(10 * time.Second):
		}
		s.Kill()
	}()
	got, err := u.TryUpload(part...)
	if err == nil {
		puts.once.Do(func() { close(puts.reached) })
	}
	<-dead
	for _, hash := range got {
		accepted[hash] = true
	}
}

// stillHas wants the narinfos of all that was accepted.
func (s *Server) stillHas(accepted map[string]bool) {
	s.T.Helper()
	check := NewUploader(s.T, s.URL(), "")
	for hash := range accepted {
		if r := check.Head("/" + hash + ".narinfo"); r.Status != http.StatusOK {
			s.T.Errorf("accepted, then lost: %v", r)
		}
	}
}

// countPuts closes reached when it sends PUT number last, counted from 0.
type countPuts struct {
	next    http.RoundTripper
	last    int64
	sent    atomic.Int64
	once    sync.Once
	reached chan struct{}
}

func (c *countPuts) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method == http.MethodPut && c.sent.Add(1) > c.last {
		c.once.Do(func() { close(c.reached) })
	}
	return c.next.RoundTrip(req)
}

// The same with real clients: after a kill the next `nix copy` completes what is missing.
func TestKillDuringCopy(t *testing.T) {
	t.Parallel()
	onlyLong(t)
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		s := NewServer(t, func(c *Config) { c.BodyIdle = "5s" }) // 2.8 repeats a broken upload without its body
		token := s.Token("ci", "push")
		paths := c.Paths("wide", "medium", "many")
		for range 2 {
			up := NewNix(t, suite).In(c.Root).Netrc(token)
			done := make(chan Output, 1)
			go func() {
				done <- up.Run("nix", append([]string{"copy", "--to", s.URL() + "?compression=zstd"}, paths...)...)
			}()
			time.Sleep(time.Duration(300+rand.IntN(500)) * time.Millisecond)
			s.Kill()
			s.Fsck()
			s.Start()
			if out := <-done; out.TimedOut {
				t.Errorf("the client hangs after a restart of the server\n%v", out)
			}
			s.Fsck()
		}
		up := NewNix(t, suite).In(c.Root).Netrc(token)
		up.Must("nix", append([]string{"copy", "--refresh", "--to", s.URL() + "?compression=zstd"}, paths...)...)
		down := NewNix(t, suite).Trust(s.URL(), s.Key)
		down.Must("nix-store", append([]string{"--realise"}, paths...)...)
		down.Verify()
	})
}

// A second server on the same data_dir is refused in words, and the first goes on.
func TestOneServerPerDataDir(t *testing.T) {
	t.Parallel()
	s := NewServer(t, nil)
	second := *s
	second.config.Listen = []string{"127.0.0.1:0"}
	second.writeFile(s.Dir+"/second.toml", second.config.TOML(), 0o644)
	out := run(t, program{argv: s.argv("serve", "--config", s.Dir+"/second.toml"), dir: s.Dir, timeout: 20 * time.Second})
	if out.Code <= 0 {
		t.Fatalf("a second server on one data_dir\n%v", out)
	}
	if r := NewUploader(t, s.URL(), "").Get("/readyz"); r.Status != 200 {
		t.Error(r)
	}
}
