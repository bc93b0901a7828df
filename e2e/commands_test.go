package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The commands that look into a cache over HTTP.
func TestStoreCommands(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		s, rec, token := aServer(t, nil)
		up := NewNix(t, suite).In(c.Root).Netrc(token)
		paths := c.Paths("a", "multi_dev", "zoo")
		up.Push(rec.URL(), "?compression=zstd", paths...)
		url := rec.URL()
		n := NewNix(t, suite).Trust(url, s.Key)
		a := c.Path("a")

		if out := n.Must("nix", "store", "ls", "-R", "--store", url, c.Path("b")); !strings.Contains(out.Stdout, "c") {
			t.Errorf("ls -R\n%v", out)
		}
		if n.AtLeast(2, 26) { // 2.8 stumbles over a '%' in a name by itself
			out := n.Must("nix", "store", "ls", "-R", "--store", url, c.Path("zoo"))
			for _, name := range []string{"日本語", "100%25", "two  spaces", "?query=1"} {
				if !strings.Contains(out.Stdout, name) {
					t.Errorf("ls -R does not list %q\n%v", name, out)
				}
			}
		}
		want, err := os.ReadFile(filepath.Join(c.Root, a, "bin/a"))
		if err != nil {
			t.Fatal(err)
		}
		if out := n.Must("nix", "store", "cat", "--store", url, a+"/bin/a"); out.Stdout != string(want) {
			t.Errorf("cat: not the file's content\n%v", out)
		}
		if out := n.Must("nix", "path-info", "-r", "--sigs", "--store", url, a); strings.Count(out.Stdout, s.Key.Name) != 3 {
			t.Errorf("path-info -r --sigs does not show the server's signature three times\n%v", out)
		}
		n.Must("nix", "store", "verify", "-r", "--store", url, a, c.Path("multi_dev"))
		n.Must("nix", "store", "verify", "-r", "--no-contents", "--store", url, a)
		stranger := NewNix(t, suite).Trust(url, NewKey("other-1"))
		if out := stranger.Run("nix", "store", "verify", "-r", "--no-contents", "--store", url, a); out.Code != 2 {
			t.Errorf("verify with an untrusted key: want exit 2\n%v", out)
		}
		ping := []string{"store", "ping", "--store", url}
		if n.AtLeast(2, 26) {
			ping[1] = "info"
		}
		n.Must("nix", ping...)

		// Signatures from the cache for what was copied without.
		local := NewNix(t, suite)
		local.Pull(url, a)
		local.Must("nix", "store", "copy-sigs", "-r", "-s", url, a)

		expectPuts(t, rec, len(rec.Select(http.MethodPut, "/nar/")), len(rec.Select(http.MethodPut, ".narinfo")))
		s.Fsck()
	})
}

// `nix store sign` over HTTP adds a signature to what is there; without a token it is refused.
func TestSignOverHTTP(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		s, rec, token := aServer(t, nil)
		up := NewNix(t, suite).In(c.Root).Netrc(token)
		up.Push(rec.URL(), "", c.Path("a"))
		k := NewKey("reviewer-1")
		secret := up.write("reviewer.sec", k.Secret())
		up.Must("nix", "store", "sign", "-r", "--store", rec.URL(), "-k", secret, c.Path("a"))
		NewNix(t, suite).Trust(s.URL(), k).Must("nix-store", "--realise", c.Path("a"))

		stranger := NewNix(t, suite)
		secret = stranger.write("stranger.sec", NewKey("stranger-1").Secret())
		stranger.Fails([]string{"401"}, "nix", "store", "sign", "--store", rec.URL(), "-k", secret, c.Path("a"))
	})
}

// `nix copy --derivation` and the paths that `nix store add-path` and its likes send directly.
func TestOtherUploads(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		s, rec, token := aServer(t, nil)
		up := NewNix(t, suite).In(c.Root).Netrc(token)
		up.Must("nix", "copy", "--derivation", "--to", rec.URL(), c.Path("a_drv"))
		down := NewNix(t, suite).Trust(s.URL(), s.Key)
		down.Must("nix", "copy", "--derivation", "--from", rec.URL(), c.Path("a_drv"))
		down.Verify()

		dir := filepath.Join(scratch(t), "added")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte("added over HTTP\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		added := up.Must("nix", "store", "add-path", "--store", rec.URL(), dir).Line()
		down.Must("nix-store", "--realise", added)
		// Again by an uploader who knows nothing of signatures: what is there keeps its own.
		k := NewKey("kept-1")
		up.Must("nix", "store", "sign", "--store", rec.URL(), "-k", up.write("kept.sec", k.Secret()), added)
		up.Forget().Must("nix", "store", "add-path", "--store", rec.URL(), dir)
		doc := ParseDoc(t, NewUploader(t, s.URL(), "").Get("/"+hashOf(added)+".narinfo").Body)
		if doc.SignedBy(k) != 1 {
			t.Errorf("the second upload took away a signature\n%v", doc)
		}
	})
}

// Logs: up by `nix store copy-log`, back by `nix log` from the cache and for an output path.
func TestLog(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		s, rec, token := aServer(t, nil)
		up := NewNix(t, suite).In(c.Root).Netrc(token)
		up.Push(rec.URL(), "", c.Path("c"))
		up.Must("nix", "copy", "--derivation", "--to", rec.URL(), c.Path("c_drv"))
		up.Must("nix", "store", "copy-log", "--to", rec.URL(), c.Path("c_drv"))
		const line = "building ref-c with salt 0"
		n := NewNix(t, suite).Trust(s.URL(), s.Key)
		if out := n.Must("nix", "log", "--store", s.URL(), c.Path("c_drv")); !strings.Contains(out.Stdout, line) {
			t.Errorf("the log from the cache\n%v", out)
		}
		if out := n.Must("nix", "log", c.Path("c")); !strings.Contains(out.Stdout, line) {
			t.Errorf("the log of an output path by its substituter\n%v", out)
		}
		u := NewUploader(t, s.URL(), "")
		if r := u.Get("/log/" + filepath.Base(c.Path("c_drv"))); r.Status != 200 || !strings.HasPrefix(r.Header.Get("Content-Type"), "text/plain") {
			t.Errorf("%v %v", r, r.Header)
		}
		if r := u.Get("/log/" + filepath.Base(c.Path("b_drv"))); r.Status != 404 {
			t.Errorf("a log that is not there: %v", r)
		}
	})
}
