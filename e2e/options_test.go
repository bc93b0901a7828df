package e2e

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// A listing is what `.ls` holds.
type listing struct {
	Version int         `json:"version"`
	Root    listingNode `json:"root"`
}

type listingNode struct {
	Type       string                 `json:"type"`
	Size       int64                  `json:"size"`
	NarOffset  int64                  `json:"narOffset"`
	Executable bool                   `json:"executable"`
	Target     string                 `json:"target"`
	Entries    map[string]listingNode `json:"entries"`
}

// The store options index-debug-info and write-nar-listing put further files beside the NARs.
func TestDebugInfoAndListing(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		s, rec, token := aServer(t, nil)
		up := NewNix(t, suite).In(c.Root).Netrc(token)
		up.Push(rec.URL(), "?compression=zstd&index-debug-info=1&write-nar-listing=1", c.Paths("dbg_debug", "zoo", "singleFile", "singleLink")...)
		s.Fsck()
		u := NewUploader(t, s.URL(), "")

		id := "abcdef0123456789abcdef0123456789abcdef01"
		for _, name := range []string{"/debuginfo/" + id + ".debug", "/debuginfo/" + id} {
			r := u.Get(name)
			var link struct{ Archive, Member string }
			if err := json.Unmarshal([]byte(r.Body), &link); err != nil || r.Status != 200 {
				t.Fatalf("%v: %v", r, err)
			}
			if link.Member != "lib/debug/.build-id/ab/"+id[2:]+".debug" {
				t.Errorf("%s names %q", name, link.Member)
			}
			// The archive is named relative to debuginfo/.
			if r := u.Head("/" + strings.TrimPrefix(link.Archive, "../")); r.Status != 200 {
				t.Errorf("the archive of %s: %v", name, r)
			}
		}

		for _, name := range []string{"zoo", "singleFile", "singleLink"} {
			path := c.Path(name)
			r := u.Get("/" + hashOf(path) + ".ls")
			var ls listing
			if err := json.Unmarshal([]byte(r.Body), &ls); err != nil || r.Status != 200 || ls.Version != 1 {
				t.Fatalf("%v: %v", r, err)
			}
			if r.Header.Get("Content-Type") != "application/json" {
				t.Errorf("%s.ls has Content-Type %q", name, r.Header.Get("Content-Type"))
			}
			doc := ParseDoc(t, u.Get("/"+hashOf(path)+".narinfo").Body)
			checkListing(t, ls.Root, filepath.Join(c.Root, path), unzstd(t, u.Get("/"+doc.URL).Body))
		}
	})
}

// checkListing compares a listing with the file system it was made of and with the NAR at narOffset.
func checkListing(t *testing.T, node listingNode, name string, nar []byte) {
	t.Helper()
	info, err := os.Lstat(name)
	if err != nil {
		t.Errorf("listed, but: %v", err)
		return
	}
	switch node.Type {
	case "directory":
		entries, err := os.ReadDir(name)
		if err != nil || len(entries) != len(node.Entries) {
			t.Errorf("%s: %d entries listed, there are %d (%v)", name, len(node.Entries), len(entries), err)
		}
		for child, n := range node.Entries {
			checkListing(t, n, filepath.Join(name, child), nar)
		}
	case "regular":
		body, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if node.Size != int64(len(body)) || node.Executable != (info.Mode()&0o111 != 0) {
			t.Errorf("%s: listed as %+v", name, node)
		}
		// Nix writes no offset for an empty file in some versions; there is nothing to compare then.
		if len(body) > 0 && (node.NarOffset <= 0 || node.NarOffset+node.Size > int64(len(nar)) ||
			!bytes.Equal(nar[node.NarOffset:node.NarOffset+node.Size], body)) {
			t.Errorf("%s: its content is not at offset %d of the NAR", name, node.NarOffset)
		}
	case "symlink":
		if target, err := os.Readlink(name); err != nil || target != node.Target {
			t.Errorf("%s: target %q listed, is %q (%v)", name, node.Target, target, err)
		}
	default:
		t.Errorf("%s: type %q", name, node.Type)
	}
}

func unzstd(t *testing.T, body string) []byte {
	t.Helper()
	r, err := zstd.NewReader(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	nar, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return nar
}

// Nix 2.32 and later can encode the small uploads: they come with a Content-Encoding, which is
// "none" literally where nothing is encoded. What is stored can be read by every client.
func TestEncodedNarinfo(t *testing.T) {
	t.Parallel()
	suite := newest()
	c := NeedClosures(t, suite)
	for _, method := range []string{"zstd", "gzip", "br", "none", "xz"} {
		s, rec, token := aServer(t, nil)
		up := NewNix(t, suite).In(c.Root).Netrc(token)
		if !up.AtLeast(2, 32) {
			t.Skipf("Nix %s cannot encode a narinfo", up.Version)
		}
		query := "?compression=zstd&write-nar-listing=1&narinfo-compression=" + method + "&ls-compression=" + method
		out := up.Run("nix", "copy", "--to", rec.URL()+query, c.Path("a"))
		put := rec.Select(http.MethodPut, ".narinfo")
		if method == "xz" || method == "br" { // may be refused, in words
			if out.Code != 0 && len(put) > 0 && put[0].Status != http.StatusUnsupportedMediaType {
				t.Errorf("%s was refused with %v, want 415\n%v", method, put, out)
			}
			if out.Code != 0 {
				continue
			}
		}
		if out.Code != 0 || len(put) != 3 || put[0].Header.Get("Content-Encoding") != method {
			t.Errorf("narinfos encoded with %s: %v\n%v", method, put, out)
			continue
		}
		for _, other := range Suites() {
			NewNix(t, other).Trust(s.URL(), s.Key).Must("nix-store", "--realise", c.Path("a"))
		}
		plain := NewUploader(t, s.URL(), "").Get("/" + hashOf(c.Path("a")) + ".narinfo")
		if plain.Header.Get("Content-Encoding") != "" || !strings.HasPrefix(plain.Body, "StorePath: ") {
			t.Errorf("a client that asks for no encoding gets %v %v", plain, plain.Header)
		}
	}
}

// narinfo, ls and log are encoded for who asks, with zstd or gzip; a NAR never is.
func TestEncodedAnswers(t *testing.T) {
	t.Parallel()
	s := NewServer(t, nil)
	u := NewUploader(t, s.URL(), s.Token("ci", "push"))
	p := NewPath("encoded", RepetitiveNAR(10000))
	u.Compression = "none"
	u.Upload(p)
	doc := u.Fetch(p)
	info := "/" + p.Hash() + ".narinfo"
	plain := Ask(t, s.Addr(), "GET", info).Body
	decode := map[string]func(string) []byte{
		"zstd": func(b string) []byte { return unzstd(t, b) },
		"gzip": func(b string) []byte {
			r, err := gzip.NewReader(strings.NewReader(b))
			if err != nil {
				t.Fatal(err)
			}
			out, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			return out
		},
	}
	for _, accept := range []string{"zstd", "gzip", "zstd, br, gzip, deflate, bzip2, xz", "deflate, gzip, br, zstd", "deflate", "gzip;q=0", "identity", "*"} {
		for _, method := range []string{"GET", "HEAD"} {
			r := Ask(t, s.Addr(), method, info, "Accept-Encoding: "+accept)
			encoding := r.Header.Get("Content-Encoding")
			body := r.Body
			switch {
			case r.Status != 200:
				t.Error(r)
				continue
			case encoding != "" && decode[encoding] == nil:
				t.Errorf("%s is answered with Content-Encoding %q, which some client cannot read", accept, encoding)
				continue
			case encoding != "" && (!strings.Contains(accept, encoding) && accept != "*" || strings.Contains(accept, "q=0")):
				t.Errorf("%s is answered with Content-Encoding %q", accept, encoding)
			}
			if method == "HEAD" {
				continue
			}
			if encoding != "" {
				body = string(decode[encoding](body))
			}
			if body != plain {
				t.Errorf("%s: another text\n%s", accept, body)
			}
		}
		if r := Ask(t, s.Addr(), "GET", "/"+doc.URL, "Accept-Encoding: "+accept); r.Status != 200 || r.Header.Get("Content-Encoding") != "" || nixHash([]byte(r.Body)) != doc.FileHash {
			t.Errorf("a NAR for Accept-Encoding %s: %d %v", accept, r.Status, r.Header)
		}
	}
}
