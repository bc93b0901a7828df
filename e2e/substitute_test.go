package e2e

import (
	"net/http"
	"strings"
	"testing"
)

// A host substitutes with signatures checked, by both programs; a host that trusts another key
// gets nothing.
func TestSubstitute(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		s, rec, token := aServer(t, nil)
		paths := c.Paths("a", "wide", "zoo", "multi_dev", "selfref", "singleLink")
		NewNix(t, suite).In(c.Root).Netrc(token).Push(rec.URL(), "?compression=zstd", paths...)

		old := NewNix(t, suite).Trust(rec.URL(), s.Key)
		old.Must("nix-store", append([]string{"--realise"}, paths...)...)
		old.Verify()
		current := NewNix(t, suite).Trust(rec.URL(), s.Key)
		current.Must("nix", append([]string{"build", "--no-link"}, paths...)...)
		current.Verify()
		if !current.Has(c.Path("b")) {
			t.Error("what a refers to did not come with it")
		}

		stranger := NewNix(t, suite).Trust(rec.URL(), NewKey(s.Key.Name))
		rec.Reset()
		stranger.Fails([]string{c.Path("a")}, "nix-store", "--realise", c.Path("a"))
		if nars := rec.Select("", "/nar/"); len(nars) > 0 {
			t.Errorf("a host that does not trust the key fetched %v", nars)
		}
	})
}

// With sign_uploads = false the server vouches for nothing; a path that CI signed is served with
// CI's signature alone.
func TestSubstituteUploaderSignature(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		no := false
		s, rec, token := aServer(t, func(c *Config) { c.SignUploads = &no })
		up := NewNix(t, suite).In(c.Root).Netrc(token)
		ci := NewKey("ci-1")
		up.Push(rec.URL(), "?secret-key="+up.write("ci.sec", ci.Secret()), c.Path("a"))
		up.Push(rec.URL(), "", c.Path("zoo"))

		u := NewUploader(t, s.URL(), "")
		doc := ParseDoc(t, u.Get("/"+hashOf(c.Path("a"))+".narinfo").Body)
		if len(doc.Sigs) != 1 || doc.SignedBy(ci) != 1 {
			t.Errorf("want CI's signature alone:\n%v", doc)
		}
		NewNix(t, suite).Trust(rec.URL(), ci).Must("nix-store", "--realise", c.Path("a"))
		NewNix(t, suite).Trust(rec.URL(), s.Key, ci).Fails(nil, "nix-store", "--realise", c.Path("zoo"))
	})
}

// hashOf is the hash part of a store path.
func hashOf(path string) string { return path[strings.LastIndexByte(path, '/')+1:][:32] }

// Signatures of two uploaders of the same path are both served, and the server's beside them.
func TestSignaturesMerge(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		s, rec, token := aServer(t, nil)
		keys := []Key{NewKey("ci-1"), NewKey("ci-2")}
		// The second one has another compression, so another URL and FileHash for the same path.
		// Since the path is there he only sends its narinfo, by `nix store sign`.
		up := NewNix(t, suite).In(c.Root).Netrc(token)
		up.Push(rec.URL(), "?compression=zstd&secret-key="+up.write("one.sec", keys[0].Secret()), c.Path("a"))
		second := NewNix(t, suite).Netrc(token)
		second.Must("nix", "store", "sign", "-r", "--store", rec.URL(), "-k", second.write("two.sec", keys[1].Secret()), c.Path("a"))

		u := NewUploader(t, s.URL(), "")
		doc := ParseDoc(t, u.Get("/"+hashOf(c.Path("a"))+".narinfo").Body)
		for _, k := range append(keys, s.Key) {
			if doc.SignedBy(k) != 1 {
				t.Errorf("%d good signatures by %s, want 1\n%v", doc.SignedBy(k), k.Name, doc)
			}
		}
		if len(doc.Sigs) != 3 {
			t.Errorf("%d signatures, want 3\n%v", len(doc.Sigs), doc)
		}
		for _, k := range append(keys, s.Key) {
			NewNix(t, suite).Trust(rec.URL(), k).Must("nix-store", "--realise", c.Path("a"))
		}
	})
}

// Two substituters: what one does not have comes from the other, and a cache that is down is no
// obstacle.
func TestSubstituteFromTwo(t *testing.T) {
	t.Parallel()
	suite := newest()
	c := NeedClosures(t, suite)
	one, recOne, tokenOne := aServer(t, nil)
	two, recTwo, tokenTwo := aServer(t, nil)
	NewNix(t, suite).In(c.Root).Netrc(tokenOne).Push(recOne.URL(), "", c.Path("c"))
	NewNix(t, suite).In(c.Root).Netrc(tokenTwo).Push(recTwo.URL(), "", c.Path("a"))
	down := NewNix(t, suite).Trust(recOne.URL()+" "+recTwo.URL(), one.Key, two.Key)
	down.Must("nix-store", "--realise", c.Path("a"))
	down.Verify()
	if len(recTwo.Select(http.MethodGet, "/nar/")) == 0 {
		t.Error("the second cache was not used")
	}
}
