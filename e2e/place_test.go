package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Below a path of another web server that strips it, everything works as at the root.
func TestBasePath(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		s := NewServer(t, nil)
		rec := NewRecorder(t, s.URL(), "/some/prefix/")
		url := rec.URL()
		if !strings.HasSuffix(url, "/some/prefix") {
			t.Fatal(url)
		}
		NewNix(t, suite).In(c.Root).Netrc(s.Token("ci", "push")).Push(url, "?compression=zstd&write-nar-listing=1", c.Path("a"))
		down := NewNix(t, suite).Trust(url+"/", s.Key) // a slash at the end is the same place
		down.Must("nix-store", "--realise", c.Path("a"))
		down.Verify()
		for _, r := range rec.Requests() {
			if strings.HasPrefix(r.Path, "/some") {
				t.Errorf("the prefix was not stripped: %v", r)
			}
		}
		landing := NewUploader(t, url, "").Get("/")
		if landing.Status != 200 || strings.Contains(landing.Body, `href="/`) || strings.Contains(landing.Body, `src="/`) {
			t.Errorf("the landing page leads out of the prefix: %d\n%s", landing.Status, landing.Body)
		}
	})
}

// A proxy that leaves the prefix on, as public_url names it, is served too.
func TestBasePathNotStripped(t *testing.T) {
	t.Parallel()
	suite := newest()
	c := NeedClosures(t, suite)
	s := NewServer(t, func(c *Config) { c.PublicURL = "http://" + c.Listen[0] + "/some/prefix" })
	NewNix(t, suite).In(c.Root).Netrc(s.Token("ci", "push")).Push(s.URL()+"/some/prefix", "?compression=zstd", c.Path("a"))
	for _, base := range []string{s.URL() + "/some/prefix", s.URL()} {
		NewNix(t, suite).Trust(base, s.Key).Must("nix-store", "--realise", c.Path("a"))
	}
	if r := NewUploader(t, s.URL(), "").Get("/some/prefixed/nix-cache-info"); r.Status != 404 {
		t.Errorf("a path that only begins like the prefix: %v", r)
	}
}

// A cache for another store folder than /nix/store.
func TestOtherStoreDir(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		const logical = "/srv/e2e/store" // never a real folder: it lies below the client's root
		s := NewServer(t, func(c *Config) { c.StoreDir = logical })
		token := s.Token("ci", "push")
		up := NewNix(t, suite).Netrc(token)
		up.Logical = logical
		file := filepath.Join(scratch(t), "elsewhere")
		if err := os.WriteFile(file, []byte("a path of another store\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		path := up.Must("nix-store", "--add", file).Line()
		if !strings.HasPrefix(path, logical+"/") {
			t.Fatalf("added as %s", path)
		}
		up.Push(s.URL(), "?compression=zstd", path)
		down := NewNix(t, suite).Trust(s.URL(), s.Key)
		down.Logical = logical
		down.Must("nix-store", "--realise", path)
		down.Verify()

		c := NeedClosures(t, suite)
		NewNix(t, suite).In(c.Root).Netrc(token).Fails([]string{logical}, "nix", "copy", "--to", s.URL(), c.Path("c"))
	})
}

// The unix socket serves the same.
func TestUnixSocket(t *testing.T) {
	t.Parallel()
	s := NewServer(t, nil)
	u := NewUploader(t, s.URL(), s.Token("ci", "push"))
	p := NewPath("socket", RandomNAR(3, 1000))
	u.Upload(p)
	over := NewUploader(t, s.URL(), "")
	over.Client.Transport = unixTransport(filepath.Join(s.Dir, "http.sock"))
	over.Fetch(p)
}
