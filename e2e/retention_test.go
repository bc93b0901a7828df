package e2e

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"
	"time"
)

// collecting is a server that collects once a second what was of no use for half a minute.
func collecting(c *Config) {
	c.Retention = []string{`grace = "25s"`, `lease = "4s"`, `max_age = "25s"`, `interval = "1s"`}
}

// Runners beside a cache that collects: one that remembers what has gone since, one whose
// memory is a year old, one that remembers nothing, and a copy that begins before a
// collection and ends after it. What they upload is there, whole.
func TestRunnersBesideCollections(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		paths := c.Paths("a", "b", "c") // each refers to the next
		s, rec, token := aServer(t, collecting)
		anybody := NewUploader(t, s.URL(), "")
		whole := func(when string) {
			t.Helper()
			for _, p := range paths {
				if a := anybody.Get("/" + hashOf(p) + ".narinfo"); a.Status != http.StatusOK {
					t.Fatalf("%s: %s: %v\n%s", when, p, a, s.LogTail())
				}
			}
		}
		gone := func() {
			t.Helper()
			eventually(t, 2*time.Minute, func() string {
				for _, p := range paths {
					if a := anybody.Get("/" + hashOf(p) + ".narinfo"); a.Status != http.StatusNotFound {
						return p + " is still here"
					}
				}
				return ""
			})
		}
		up := NewNix(t, suite).In(c.Root).Netrc(token)
		up.Push(rec.URL(), "?compression=zstd", paths[0])
		whole("after an upload")
		gone()

		rec.Reset()
		up.Push(rec.URL(), "?compression=zstd", paths[0])
		expectNoPut(t, rec) // it remembers, and asks nobody: that is what grace is for
		up.Must("nix", "copy", "--refresh", "--to", rec.URL()+"?compression=zstd", paths[0])
		whole("after --refresh")
		gone()

		up.Must("nix", "copy", "--option", "narinfo-cache-positive-ttl", "1", "--to", rec.URL()+"?compression=zstd", paths[0])
		whole("of a runner whose memory is old")
		gone()

		up.Forget().Push(slowly(t, s.URL()), "?compression=zstd", paths[0])
		whole("after a copy that lasted longer than collections")
		down := NewNix(t, suite)
		up.Forget().Push(rec.URL(), "?compression=zstd", paths[0]) // of use again: down has time
		down.Pull(rec.URL(), paths[0])
		down.Verify()
	})
}

// slowly is the URL of a proxy before a cache that holds every upload for a second.
func slowly(t *testing.T, cache string) string {
	t.Helper()
	target, err := url.Parse(cache)
	if err != nil {
		t.Fatal(err)
	}
	forward := httputil.NewSingleHostReverseProxy(target)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodPut {
			time.Sleep(time.Second)
		}
		forward.ServeHTTP(w, req)
	}))
	t.Cleanup(proxy.Close)
	return proxy.URL
}
