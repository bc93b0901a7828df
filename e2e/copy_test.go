package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// aServer is a server with a push token and a recorder before it.
func aServer(t *testing.T, edit func(*Config)) (*Server, *Recorder, string) {
	t.Helper()
	s := NewServer(t, edit)
	return s, NewRecorder(t, s.URL(), ""), s.Token("ci", "push")
}

// expectPuts fails unless NARs and narinfos were PUT that often.
func expectPuts(t *testing.T, rec *Recorder, nars, narinfos int) {
	t.Helper()
	if n := len(rec.Select(http.MethodPut, "/nar/")); n != nars {
		t.Errorf("%d NARs were uploaded, want %d", n, nars)
	}
	if n := len(rec.Select(http.MethodPut, ".narinfo")); n != narinfos {
		t.Errorf("%d narinfos were uploaded, want %d", n, narinfos)
	}
}

// expectNoPut fails if anything was sent.
func expectNoPut(t *testing.T, rec *Recorder) {
	t.Helper()
	if puts := rec.Select(http.MethodPut, "/"); len(puts) > 0 {
		t.Errorf("nothing had to be sent, but: %v", puts)
	}
}

// Story 2: copy up with a netrc, again (nothing is sent), and down into an empty store.
func TestCopy(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		for _, query := range []string{"?compression=zstd", "?compression=none", "", "?compression=gzip", "?compression=bzip2"} {
			if testing.Short() && query != "?compression=zstd" {
				continue
			}
			name := strings.TrimPrefix(query, "?compression=")
			if name == "" {
				name = "xz-by-default"
			}
			t.Run(name, func(t *testing.T) {
				paths := c.Paths("a", "selfref", "zoo", "multi_dev", "singleLink", "caPlain", "addSha1")
				if query == "?compression=zstd" {
					paths = c.Everything()
				}
				s, rec, token := aServer(t, nil)
				up := NewNix(t, suite).In(c.Root).Netrc(token)
				up.Push(rec.URL(), query, paths...)
				if len(rec.Select(http.MethodPut, ".narinfo")) < len(paths) {
					t.Errorf("only %d narinfos were uploaded", len(rec.Select(http.MethodPut, ".narinfo")))
				}
				s.Fsck()

				rec.Reset()
				up.Forget().Push(rec.URL(), query, paths...)
				expectNoPut(t, rec)
				if len(rec.Requests()) == 0 {
					t.Error("a client without memory asked nothing: the recorder does not see it")
				}
				up.Push(rec.URL(), query+ampersand(query)+"want-mass-query=true", paths...)
				expectNoPut(t, rec)

				down := NewNix(t, suite)
				down.Pull(rec.URL(), paths...)
				down.Verify()
				for _, p := range paths {
					if !down.Has(p) {
						t.Errorf("%s did not arrive", p)
					}
				}
			})
		}
	})
}

func ampersand(query string) string {
	if query == "" {
		return "?"
	}
	return "&"
}

// --refresh makes a client with a warm memory ask again, and still nothing is sent.
func TestCopyRefresh(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		_, rec, token := aServer(t, nil)
		up := NewNix(t, suite).In(c.Root).Netrc(token)
		up.Push(rec.URL(), "", c.Path("a"))
		expectPuts(t, rec, 3, 3)
		rec.Reset()
		up.Must("nix", "copy", "--refresh", "--to", rec.URL(), c.Path("a"))
		expectNoPut(t, rec)
		if len(rec.Select("", ".narinfo")) == 0 {
			t.Error("--refresh asked for no narinfo")
		}
	})
}

// What one version uploads the others read, with the signatures checked.
func TestCopyAcrossVersions(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		s, rec, token := aServer(t, nil)
		paths := c.Paths("a", "zoo", "caPlain", "addFlat")
		NewNix(t, suite).In(c.Root).Netrc(token).Push(rec.URL(), "?compression=zstd", paths...)
		for _, other := range Suites() {
			down := NewNix(t, other).Trust(rec.URL(), s.Key)
			down.Must("nix", append([]string{"copy", "--from", rec.URL()}, paths...)...)
			down.Verify()
		}
	})
}

// A copy that brings what the cache has under another name uploads the narinfo alone.
func TestCopySameContent(t *testing.T) {
	t.Parallel()
	s, _, token := aServer(t, nil)
	nar := RandomNAR(1, 5000)
	one, two := NewPath("one", nar), NewPath("two", nar)
	u := NewUploader(t, s.URL(), token)
	u.Upload(one)
	doc, _ := u.Describe(two)
	if r := u.Head("/" + doc.URL); r.Status != http.StatusOK {
		t.Fatalf("the NAR of the same content is not seen: %v", r)
	}
	if r := u.PutDoc(two.Hash(), doc.String()); !r.OK() {
		t.Fatalf("a narinfo for a NAR that came with another path: %v", r)
	}
	u.Fetch(one)
	u.Fetch(two)
}

// Compressions without a decoder here are refused in words that the client shows.
func TestCopyOtherCompressions(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		for _, method := range []string{"br", "lz4", "lzip", "lzma", "compress", "lzop", "lrzip", "grzip"} {
			s, rec, token := aServer(t, nil)
			up := NewNix(t, suite).In(c.Root).Netrc(token)
			out := up.Run("nix", "copy", "--to", rec.URL()+"?compression="+method, c.Path("a"))
			puts := rec.Select(http.MethodPut, "/nar/")
			if len(puts) == 0 {
				t.Logf("Nix %s cannot write %s", up.Version, method)
				continue
			}
			if out.Code == 0 {
				reader := suite
				if method == "lzma" && !up.AtLeast(2, 26) { // 2.8 writes it, and aborts where it reads two at once, whoever serves them
					reader = newest()
				}
				down := NewNix(t, reader)
				down.Pull(rec.URL(), c.Path("a"))
				down.Verify()
				continue
			}
			if puts[0].Status != http.StatusUnsupportedMediaType {
				t.Errorf("%s: refused with %v, want 415", method, puts[0])
			}
			if !strings.Contains(out.Stderr, "compress") {
				t.Errorf("%s: the client shows no reason\n%v", method, out)
			}
			s.Fsck()
		}
	})
}

// data_dir/cache is a plain binary cache: Nix reads it without Narwharf.
func TestCacheFolderIsPlain(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		s, rec, token := aServer(t, nil)
		paths := c.Paths("a", "zoo", "multi_dev", "selfref")
		NewNix(t, suite).In(c.Root).Netrc(token).Push(rec.URL(), "?compression=zstd", paths...)
		folder := filepath.Join(s.Data, "cache")
		for _, name := range []string{"nix-cache-info", "nar", filepath.Base(c.Path("a"))[:32] + ".narinfo"} {
			if _, err := os.Stat(filepath.Join(folder, name)); err != nil {
				t.Errorf("not the layout of a Nix cache: %v", err)
			}
		}
		down := NewNix(t, suite)
		down.Pull("file://"+folder, paths...)
		down.Verify()
	})
}
