package cache

import (
	"bytes"
	"testing"

	"narwharf/cache/nar"
	"narwharf/cache/probe"
	"narwharf/narinfo"
	"narwharf/signing"
)

// TestProbe: every cache has the probe, signed, though nothing was uploaded and uploads are not signed,
// and it is in no index. A request's own word comes back with its answer, also that of a 404.
func TestProbe(t *testing.T) {
	key := newKey(t, "cache.example.org-1")
	w := newWorld(t, func(s *setup) { s.keys = (&keyring{keys: []signing.SecretKey{key}}).load })
	a := w.must(w.get("/"+probe.Hash+".narinfo"), 200)
	info, err := narinfo.Parse([]byte(a.body))
	if err != nil {
		t.Fatal(err)
	}
	if signer, ok := signing.VerifyAny(info.AppendFingerprint(nil), info.Sigs, []signing.PublicKey{key.Public()}); !ok || info.CA != "" || info.Path != narinfo.Path(probe.Hash+"-probe") {
		t.Errorf("signed by %v: %s", signer, a.body)
	}
	body := w.must(w.get("/"+info.URL), 200).body
	if body != string(probe.NAR) || int64(len(body)) != info.NarSize {
		t.Errorf("its NAR has %d bytes, and should have %d", len(body), info.NarSize)
	}
	if _, err := nar.Check(bytes.NewReader(probe.NAR)); err != nil {
		t.Error(err)
	}
	if part := w.must(w.get("/"+info.URL, "Range", "bytes=8-"), 206).body; part != body[8:] {
		t.Errorf("a part is %q", part)
	}
	for asked, want := range map[string]string{"abc123": "abc123", "": "", "A b": "", "0123456789012345678901234567890123": ""} {
		for _, path := range []string{"/" + probe.Hash + ".narinfo", "/00000000000000000000000000000000.narinfo", "/healthz"} {
			if got := w.get(path, probe.Header, asked).header.Get(probe.Header); got != want {
				t.Errorf("%s, asked %q: %q", path, asked, got)
			}
		}
	}
}
