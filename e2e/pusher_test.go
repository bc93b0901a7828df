package e2e

import (
	"html"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"narwharf/e2e/repository"
)

// A Nix remembers for 30 days the narinfo that it uploaded, which has no signature of the cache, and
// then refuses to substitute the path (NixOS/nix#16175). Each cure that docs/operating.md has is
// tried, and the lines that we show people have one.
func TestPusherSubstitutes(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		path := c.Path("a")
		// pusher uploads a path to a new cache, and then needs it and has it no more.
		pusher := func(push func(n *Nix, s *Server)) (*Nix, *Server) {
			s := NewServer(t, nil)
			n := NewNix(t, suite).Netrc(s.Token("ci", "push"))
			n.Must("nix", "copy", "--no-check-sigs", "--from", "local?root="+c.Root, path)
			n.Trust(s.URL(), s.Key)
			push(n, s)
			n.Must("nix-store", "--delete", path)
			return n, s
		}
		works := func(n *Nix, how string, args ...string) {
			t.Helper()
			if out := n.Run("nix-store", append([]string{"--realise", path}, args...)...); out.Code != 0 || !n.Has(path) {
				t.Errorf("%s:\n%v", how, out)
			}
		}

		n, _ := pusher(func(n *Nix, s *Server) { n.Push(s.URL(), "?compression=zstd", path) })
		n.Fails([]string{"substitu"}, "nix-store", "--realise", path) // and when it does not fail there is nothing to cure
		works(n, "asked anew", "--option", "narinfo-cache-positive-ttl", "0")
		n.Must("nix-store", "--delete", path)
		works(n, "once it was asked anew")

		n, _ = pusher(func(n *Nix, s *Server) {
			n.Shell("XDG_CACHE_HOME=$(mktemp -d) nix copy --to '" + s.URL() + "?compression=zstd' " + path)
		})
		works(n, "with a cache folder of its own for the copy")

		key := NewKey("uploader-1")
		secret := filepath.Join(scratch(t), "key")
		if err := os.WriteFile(secret, []byte(key.Secret()), 0o600); err != nil {
			t.Fatal(err)
		}
		n, s := pusher(func(n *Nix, s *Server) { n.Push(s.URL(), "?compression=zstd&secret-key="+secret, path) })
		n.Trust(s.URL(), s.Key, key)
		works(n, "signed by the pusher")
	})
}

// The lines for an upload in the README, on the page at / and in what the server says at its start are
// typed as they stand there, but for addresses; and what they uploaded can be substituted again.
func TestShownCopyLines(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		path := c.Path("a")
		readme, err := os.ReadFile(filepath.Join(repository.Root, "README.md"))
		if err != nil {
			t.Fatal(err)
		}
		shown := regexp.MustCompile(`[A-Z_]+=\S+(?: -d\))? nix copy [^<\n]*\./result`)
		for name, text := range map[string]func(s *Server) string{
			"README":   func(*Server) string { return string(readme) },
			"page":     func(s *Server) string { return html.UnescapeString(NewUploader(t, s.URL(), "").Get("/").Body) },
			"greeting": func(s *Server) string { return s.LogTail() },
		} {
			s := NewServer(t, nil)
			n := NewNix(t, suite).Netrc(s.Token("ci", "push"))
			n.Must("nix", "copy", "--no-check-sigs", "--from", "local?root="+c.Root, path)
			netrc, err := os.ReadFile(filepath.Join(n.dir, "netrc"))
			if err != nil {
				t.Fatal(err)
			}
			n.write("data/netrc", string(netrc))
			n.Trust(s.URL(), s.Key)
			lines := shown.FindAllString(text(s), -1)
			if len(lines) == 0 || strings.Contains(shown.ReplaceAllString(text(s), ""), "nix copy --") && name != "README" {
				t.Fatalf("%s: no line that can be typed in\n%s", name, text(s))
			}
			if err := os.Symlink(path, filepath.Join(n.dir, "result")); err != nil {
				t.Fatal(err)
			}
			for _, line := range lines {
				line = strings.ReplaceAll(line, "http://127.0.0.1:8080", s.URL())
				n.Shell(line)
			}
			if err := os.Remove(filepath.Join(n.dir, "result")); err != nil {
				t.Fatal(err)
			}
			n.Must("nix-store", "--delete", path)
			n.Must("nix-store", "--realise", path)
		}
	})
}
