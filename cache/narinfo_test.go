package cache

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"

	"narwharf/narinfo"
	"narwharf/signing"
)

func TestGetNarinfo(t *testing.T) {
	w := newWorld(t)
	p := newUpload(t, "p", "zstd")
	w.putAll(p)
	a := w.must(w.get(p.infoURL()), 200)
	if a.body != string(p.text()) || a.header.Get("Content-Type") != "text/x-nix-narinfo" || a.header.Get("Content-Length") != fmt.Sprint(len(a.body)) {
		t.Errorf("%v\n%v", a, a.header)
	}
	if a.header.Get("Content-Encoding") != "" || a.header.Get("Vary") != "" {
		t.Errorf("a small text: %v", a.header)
	}
	if b := w.get(p.infoURL(), "Accept-Encoding", "gzip, zstd"); b.body != a.body {
		t.Error("a small text is packed, which saves nothing")
	}
	etag := a.header.Get("Etag")
	for match, status := range map[string]int{
		etag: 304, "W/" + etag: 304, `"x", ` + etag: 304, "*": 304, `"x"`: 200, strings.Trim(etag, `"`): 200,
	} {
		a := w.must(w.get(p.infoURL(), "If-None-Match", match), status)
		if status == 304 && (a.body != "" || a.header.Get("Etag") != etag) {
			t.Errorf("304 with %v and the ETag %s", a, a.header.Get("Etag"))
		}
		sameHead(t, a, w.head(p.infoURL(), "If-None-Match", match))
	}
	// Other compressions are not offered, and the rest of HTTP is not minded.
	w.must(w.get(p.infoURL(), "Accept-Encoding", "br, deflate, *", "Range", "bytes=0-3"), 200)
}

func TestGetNarinfoPacked(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.uploads.AllowIncomplete = true })
	p := newUpload(t, "large", "none")
	for i := range 100 {
		p.info.References = append(p.info.References, pathNamed(fmt.Sprint("lib", i)))
	}
	slices.Sort(p.info.References)
	w.putAll(p)
	plain := w.must(w.get(p.infoURL()), 200)
	if plain.body != string(p.text()) || plain.header.Get("Vary") != "Accept-Encoding" || plain.header.Get("Content-Encoding") != "" {
		t.Errorf("without Accept-Encoding: %v", plain.header)
	}
	for _, accept := range []string{"gzip", "zstd, br, gzip, deflate, bzip2, xz", "GZIP;q=0.5"} {
		packed := w.must(w.get(p.infoURL(), "Accept-Encoding", accept), 200)
		z, err := gzip.NewReader(strings.NewReader(packed.body))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(z)
		if err != nil || string(text) != plain.body || packed.header.Get("Content-Encoding") != "gzip" || packed.header.Get("Vary") != "Accept-Encoding" {
			t.Errorf("%s: %d bytes, %v, %v", accept, len(text), err, packed.header)
		}
		etag := packed.header.Get("Etag")
		if etag != "W/"+plain.header.Get("Etag") {
			t.Errorf("the ETag is %s, plain %s", etag, plain.header.Get("Etag"))
		}
		for _, match := range []string{etag, plain.header.Get("Etag")} {
			a := w.must(w.get(p.infoURL(), "Accept-Encoding", accept, "If-None-Match", match), 304)
			if a.header.Get("Content-Encoding") != "" || a.header.Get("Vary") != "Accept-Encoding" {
				t.Errorf("304 with %v", a.header)
			}
		}
		sameHead(t, packed, w.head(p.infoURL(), "Accept-Encoding", accept))
	}
	for _, accept := range []string{"", "zstd", "gzip;q=0", "identity, gzip; q=0.000", "xgzip"} {
		if a := w.get(p.infoURL(), "Accept-Encoding", accept); a.body != plain.body {
			t.Errorf("Accept-Encoding %q got %d bytes", accept, len(a.body))
		}
	}
}

func TestRequireUploadSig(t *testing.T) {
	ci1, ci2, other, own := newKey(t, "ci-1"), newKey(t, "ci-1"), newKey(t, "other"), newKey(t, "own")
	w := newWorld(t, func(s *setup) {
		s.RequireUploadSig = []signing.PublicKey{ci1.Public(), ci2.Public()} // two of one name
		s.keys = (&keyring{keys: []signing.SecretKey{own}}).load
	})
	p := newUpload(t, "p", "none")
	w.must(w.put(p.narURL(), p.body), 201)
	signed := func(keys ...signing.SecretKey) []byte {
		return p.edited(func(i *narinfo.Info) { i.Sigs = signInfo(i, keys) })
	}
	forged := func() []byte { // by the name of the key, over something else
		sig := ci1.Sign([]byte("something else"))
		return p.edited(func(i *narinfo.Info) { i.Sigs = []string{sig} })
	}
	for name, body := range map[string][]byte{
		"none": p.text(), "by another": signed(other), "by the server": signed(own), "forged": forged(),
	} {
		a := w.put(p.infoURL(), body)
		if a.status != 403 || !strings.Contains(a.body, "ci-1") || !strings.Contains(a.body, "nix store sign") {
			t.Errorf("%s: %v", name, a)
		}
		w.must(w.get(p.infoURL()), 404)
	}
	w.must(w.put(p.infoURL(), signed(ci2, other)), 201)
	if got := w.signers(p, ci1, ci2, other, own); !slices.Equal(got, []string{"ci-1", "other", "own"}) {
		t.Errorf("signed by %q", got)
	}
	w.check()
}

// A signature that claims to be by a key that we know, and is not, is left out:
// it would only mislead.
func TestWrongSignatureOfAKnownKey(t *testing.T) {
	own, other := newKey(t, "own"), newKey(t, "other")
	w := newWorld(t, func(s *setup) { s.keys = (&keyring{keys: []signing.SecretKey{own}}).load })
	p := newUpload(t, "p", "none")
	w.must(w.put(p.narURL(), p.body), 201)
	wrong, unknown := own.Sign([]byte("x")), other.Sign([]byte("x"))
	w.must(w.put(p.infoURL(), p.edited(func(i *narinfo.Info) { i.Sigs = []string{unknown, wrong} })), 201)
	r, err := w.index.Get(p.info.Path.Hash())
	if err != nil || !slices.Equal(r.Info.Sigs, []string{unknown}) {
		t.Errorf("stored %q, %v", r.Info.Sigs, err)
	}
	if !strings.Contains(w.log.String(), "dropped a wrong signature") {
		t.Error("nobody was told")
	}
	if got := w.signers(p, own); !slices.Equal(got, []string{"other", "own"}) {
		t.Errorf("signed by %q", got)
	}
}
