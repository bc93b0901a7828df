package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Everything works behind each proxy with the block that docs/operating.md has for it, and takes the
// fast path where it takes it without.
func TestBehindWebProxy(t *testing.T) {
	t.Parallel()
	for _, program := range WebProxies {
		for _, on := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/fast_path=%v", program, on), func(t *testing.T) {
				t.Parallel()
				if testing.Short() && !on {
					t.Skip("slow: runs without -short")
				}
				s := NewServer(t, func(c *Config) { c.FastPath = &on })
				url := StartWebProxy(t, program, s.Addr())
				direct, through := NewUploader(t, s.URL(), ""), NewUploader(t, url, "")
				t.Run("Nix", func(t *testing.T) { behindNix(t, s, url) })
				t.Run("reads", func(t *testing.T) { behindReads(t, s, direct, through, on) })
				t.Run("polls", func(t *testing.T) { behindPolls(t, s, url, on) })
			})
		}
	}
}

// metric is the value of a metric.
func (s *Server) metric(name string) int {
	s.T.Helper()
	text := s.Metrics()
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\d+)$`).FindStringSubmatch(text)
	if m == nil {
		s.T.Fatalf("no metric %s in\n%s", name, Tail(text, 6000))
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		s.T.Fatal(err)
	}
	return n
}

// behindNix uploads, with a NAR of 64 MB among others, and downloads over a line that breaks.
func behindNix(t *testing.T, s *Server, url string) {
	suite := newest()
	c := NeedClosures(t, suite)
	paths := c.Paths("a", "selfref", "zoo", "medium")
	NewNix(t, suite).In(c.Root).Netrc(s.Token("ci", "push")).Push(url, "?compression=none", paths...)
	s.Fsck()
	line := NewProxy(t, strings.TrimPrefix(url, "http://"))
	line.Cut(Down, 20<<20, 1)
	down := NewNix(t, suite).Trust(line.URL(), s.Key)
	down.Must("nix-store", append([]string{"--realise"}, paths...)...)
	down.Verify()
	if got := line.Bytes(Down); line.Left() != 0 || got > 110<<20 {
		t.Errorf("%d MB came for some 70 and one cut of which %d did not happen: not resumed but begun again", got>>20, line.Left())
	}
}

// behindReads compares answers, and counts those on the fast path.
func behindReads(t *testing.T, s *Server, direct, through *Uploader, on bool) {
	up := NewUploader(t, through.Base, s.Token("up", "push"))
	p := NewPath("read", RandomNAR(801, 3<<20))
	up.Upload(p)
	doc, _ := up.Describe(p)
	before, asked := s.metric("narwharf_http_fast_total"), 0
	for _, path := range []string{"/" + p.Hash() + ".narinfo", "/" + doc.URL} {
		want := direct.Get(path)
		for range 20 {
			asked++
			got := through.Get(path)
			if got.Status != 200 || got.Body != want.Body {
				t.Fatalf("%s: %d with %d bytes instead of %d", path, got.Status, len(got.Body), len(want.Body))
			}
			for _, name := range []string{"Content-Type", "Etag", "Cache-Control", "Accept-Ranges", "Content-Length", "Content-Encoding"} {
				if a, b := got.Header.Get(name), want.Header.Get(name); a != b {
					t.Errorf("%s: %s is %q behind the proxy, else %q", path, name, a, b)
				}
			}
		}
	}
	switch fast := s.metric("narwharf_http_fast_total") - before; {
	case on && fast < asked*9/10:
		t.Errorf("%d of %d answers took the fast path", fast, asked)
	case !on && fast != 0:
		t.Errorf("%d answers took the fast path, which is switched off", fast)
	}
	req, err := http.NewRequest("GET", through.Base+"/"+doc.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Range", "bytes=1000-1999")
	resp, err := through.Client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusPartialContent || !strings.HasPrefix(resp.Header.Get("Content-Range"), "bytes 1000-1999/") {
		t.Errorf("a range: %d with %v", resp.StatusCode, resp.Header)
	}
	if r := through.Get("/" + strings.Repeat("0", 32) + ".narinfo"); r.Status != 404 {
		t.Error(r)
	}
}

// behindPolls parks polls, wakes them by a promote, and has a client go.
func behindPolls(t *testing.T, s *Server, url string, on bool) {
	const hosts = 10
	up := NewUploader(t, s.URL(), s.Token("files", "push"))
	one, two := NewPath("one", RandomNAR(802, 100)), NewPath("two", RandomNAR(803, 100))
	up.Upload(one, two)
	p := newPromoter(s, narwharfBin(t), s.Token("op", "push", "promote:*", "operate"), NewKey("deploy-1"))
	p.promote(0, "promoted web to seq 1", storePath(one))

	token := s.Token("host", "follow:web", "pull")
	first := NewUploader(t, url, token).Get("/api/v1/channels/web/store-path")
	etag := first.Header.Get("Etag")
	if first.Status != 200 || etag == "" {
		t.Fatal(first, first.Header)
	}
	become := func(name string, want int) {
		t.Helper()
		for end := time.Now().Add(15 * time.Second); s.metric(name) != want; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s is %d, want %d", name, s.metric(name), want)
			}
		}
	}
	results := make(chan pollResult, hosts+1)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: hosts}, Timeout: 2 * time.Minute}
	defer client.CloseIdleConnections()
	park := func(ctx context.Context) { results <- longPoll(ctx, client, url, token, etag, 100) }
	detached := 0
	if on {
		detached = hosts
	}
	for round := range 2 { // the second on connections that were parked before
		for range hosts {
			go park(t.Context())
		}
		become("narwharf_polls_parked", hosts)
		become("narwharf_polls_detached", detached)
		p.promote(0, fmt.Sprintf("promoted web to seq %d", round+2), storePath([]*Path{two, one}[round]))
		start := time.Now()
		for range hosts {
			if r := <-results; r.err != nil || r.status != 200 || r.etag == etag {
				t.Errorf("a woken poll: %+v", r)
			}
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("polls were woken after %v", took)
		}
		become("narwharf_polls_parked", 0)
		etag = NewUploader(t, url, token).Get("/api/v1/channels/web/store-path").Header.Get("Etag")
	}
	ctx, leave := context.WithCancel(t.Context())
	go park(ctx)
	become("narwharf_polls_parked", 1)
	leave()
	become("narwharf_polls_parked", 0) // the proxy passes on that its client left
	<-results
}

type pollResult struct {
	status int
	etag   string
	err    error
}

// longPoll asks for the store path of web until it has another ETag.
func longPoll(ctx context.Context, client *http.Client, url, token, etag string, seconds int) (r pollResult) {
	req, err := http.NewRequestWithContext(ctx, "GET", url+"/api/v1/channels/web/store-path", nil)
	if err != nil {
		return pollResult{err: err}
	}
	req.SetBasicAuth("e2e", token)
	req.Header.Set("If-None-Match", etag)
	req.Header.Set("Prefer", fmt.Sprintf("wait=%d", seconds))
	resp, err := client.Do(req)
	if err != nil {
		return pollResult{err: err}
	}
	_ = resp.Body.Close()
	return pollResult{status: resp.StatusCode, etag: resp.Header.Get("Etag")}
}

// A poll may wait longer than proxies do that nobody told.
func TestWebProxiesWait(t *testing.T) {
	t.Parallel()
	onlyLong(t)
	s := NewServer(t, nil)
	one := NewPath("one", RandomNAR(804, 100))
	NewUploader(t, s.URL(), s.Token("files", "push")).Upload(one)
	newPromoter(s, narwharfBin(t), s.Token("op", "push", "promote:*", "operate"), NewKey("deploy-1")).promote(0, "promoted web", storePath(one))
	token := s.Token("host", "follow:web", "pull")
	etag := NewUploader(t, s.URL(), token).Get("/api/v1/channels/web/store-path").Header.Get("Etag")
	var wg sync.WaitGroup
	for _, program := range WebProxies {
		url := StartWebProxy(t, program, s.Addr())
		wg.Go(func() {
			start := time.Now()
			r := longPoll(t.Context(), http.DefaultClient, url, token, etag, 65)
			if took := time.Since(start); r.status != http.StatusNotModified || took < 60*time.Second {
				t.Errorf("%s: a poll of 65 s: %+v after %v", program, r, took)
			}
		})
	}
	wg.Wait()
}

// Varnish with the block of docs/operating.md keeps NARs, and nothing that can change.
func TestBehindVarnish(t *testing.T) {
	t.Parallel()
	s := NewServer(t, nil)
	url := StartWebProxy(t, "varnish", s.Addr())
	t.Run("Nix", func(t *testing.T) { behindNix(t, s, url) })
	t.Run("polls", func(t *testing.T) { behindPolls(t, s, url, !FastPathOff()) })
	t.Run("changes", func(t *testing.T) {
		up, reader := NewUploader(t, url, s.Token("up", "push")), NewUploader(t, url, "")
		p := NewPath("later", RandomNAR(811, 3<<20))
		doc, _ := up.Describe(p)
		changing := []string{"/" + p.Hash() + ".narinfo", "/" + p.Hash() + ".ls", "/serve/" + p.Hash() + "/", "/" + doc.URL, "/log/" + p.Hash() + "-later.drv", "/no/such/thing", "/api/v1/channels/later", "/api/v1/nothing"}
		for _, path := range changing {
			for range 2 {
				if r := reader.Get(path); r.Status != 404 {
					t.Fatalf("%s before the upload: %d", path, r.Status)
				}
			}
		}
		up.Upload(p)
		direct := NewUploader(t, s.URL(), "")
		for _, path := range changing[:2] {
			if r, want := reader.Get(path), direct.Get(path); r.Status != 200 || r.Body != want.Body {
				t.Errorf("%s right after the upload: %d", path, r.Status)
			}
		}
		asked := func() int { return s.metric(`narwharf_http_requests_total{method="GET",route="nar",status="200"}`) }
		before := asked()
		for range 5 {
			if r := reader.Get("/" + doc.URL); r.Status != 200 || fmt.Sprint(len(r.Body)) != doc.FileSize {
				t.Fatalf("%s: %d with %d bytes", doc.URL, r.Status, len(r.Body))
			}
		}
		if n := asked() - before; n != 1 {
			t.Errorf("5 downloads of a NAR asked for it %d times", n)
		}
	})
	t.Run("private", func(t *testing.T) {
		s := NewServer(t, func(c *Config) { c.Anonymous = []string{} })
		url := StartWebProxy(t, "varnish", s.Addr())
		up, stranger := NewUploader(t, url, s.Token("up", "push")), NewUploader(t, url, "")
		p := NewPath("secret", RandomNAR(812, 100_000))
		up.Upload(p)
		newPromoter(s, narwharfBin(t), s.Token("op", "push", "promote:*", "operate"), NewKey("deploy-1")).promote(0, "promoted web", storePath(p))
		doc, _ := up.Describe(p)
		for _, path := range []string{"/" + doc.URL, "/" + p.Hash() + ".narinfo", "/" + p.Hash() + ".ls", "/api/v1/channels/web"} {
			for range 2 {
				if r := up.Get(path); r.Status != 200 {
					t.Errorf("%s with a token: %d", path, r.Status)
				}
				if r := stranger.Get(path); r.Status != 401 {
					t.Errorf("%s without: %d", path, r.Status)
				}
			}
		}
	})
}

// A refusal that is clear from the headers reaches the client by every proxy, however much of a body
// comes all the same: proxies answer "Expect: 100-continue" themselves and send on.
func TestRefusalsBehindWebProxies(t *testing.T) {
	t.Parallel()
	s := NewServer(t, nil)
	push := s.Token("ci", "push")
	nar := "/nar/" + strings.Repeat("0", 51) + "1.nar.xz"
	for _, program := range append([]string{"directly"}, append(WebProxies, "varnish")...) {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			url := s.URL()
			if program != "directly" {
				url = StartWebProxy(t, program, s.Addr())
			}
			for name, c := range map[string]struct {
				path, token string
				status      int
				words       string
			}{
				"no right":        {nar, "", 401, "push"},
				"bad name":        {"/nar/nonsense", push, 404, "52 characters"},
				"not to be put":   {"/pubkey", push, 405, "GET, HEAD"},
				"no NAR":          {nar, push, 422, "neither a NAR"},
				"narinfo":         {"/" + strings.Repeat("0", 32) + ".narinfo", push, 413, "larger than"},
				"API, no right":   {"/api/v1/closures/" + strings.Repeat("ab", 32), "", 401, "needs"},
				"API, no channel": {"/api/v1/channels/web", push, 403, "promote"},
			} {
				for _, size := range []int{100, 3 << 20, 40 << 20} {
					if name == "narinfo" && size < 1<<20 {
						continue
					}
					for _, expect := range []bool{true, false} {
						for range 3 {
							args := []string{"-sS", "-m", "60", "-w", "\n%{http_code}", "-T", "-", "-H", fmt.Sprintf("Content-Length: %d", size), "-H", "Transfer-Encoding:"}
							args = append(args, "-u", "e2e:"+c.token)
							if !expect {
								args = append(args, "-H", "Expect:")
							}
							cmd := exec.Command("curl", append(args, url+c.path)...)
							cmd.Stdin = io.LimitReader(zeros{}, int64(size))
							out, _ := cmd.CombinedOutput()
							if size > 8<<20 && (program == "caddy" || program == "varnish") {
								continue // who reset their client, or do not read an answer before they have sent all
							}
							if !strings.HasSuffix(string(out), fmt.Sprintf("\n%d", c.status)) || !strings.Contains(string(out), c.words) {
								t.Errorf("%s, %d MB, expect=%t: %s", name, size>>20, expect, Tail(string(out), 300))
							}
						}
					}
				}
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
