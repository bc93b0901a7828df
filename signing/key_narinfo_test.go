package signing

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"narwharf/narinfo"
)

// vectors are the narinfos that Nix wrote, by the name of their file.
func vectors(t testing.TB) map[string]*narinfo.Info {
	t.Helper()
	files, err := filepath.Glob("../narinfo/testdata/*.narinfo")
	if err != nil || len(files) < 8 {
		t.Fatalf("test vectors: %v, %v", files, err)
	}
	all := make(map[string]*narinfo.Info)
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		i, err := narinfo.Parse(text)
		if err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		all[strings.TrimSuffix(filepath.Base(f), ".narinfo")] = i
	}
	return all
}

// The signatures in the vectors are Nix's: ours must be the same bytes.
func TestSignInfoMakesTheSignaturesOfNix(t *testing.T) {
	keys := map[string]SecretKey{"ci-1": secretKey(t, ciSecret), "narwharf.example.org-1": secretKey(t, serverSecret)}
	checked := 0
	for name, i := range vectors(t) {
		var with []SecretKey
		for _, s := range i.Sigs {
			keyName, _, err := ParseSignature(s)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			with = append(with, keys[keyName])
			public := keys[keyName].Public()
			if got, ok := VerifyAny(i.AppendFingerprint(nil), []string{s}, []PublicKey{public}); !ok || got != public {
				t.Errorf("%s: the signature by %s is refused", name, keyName)
			}
			checked++
		}
		unsigned := i.Clone()
		unsigned.Sigs = nil
		if got := signInfo(unsigned, with); !slices.Equal(got, i.Sigs) {
			t.Errorf("%s: signed %q\nNix signed %q", name, got, i.Sigs)
		}
		if unsigned.Sigs != nil {
			t.Errorf("%s: SignInfo changed its argument", name)
		}
	}
	if checked < 10 {
		t.Errorf("only %d signatures in the vectors", checked)
	}
}

// A signature covers path, NarHash, NarSize and References; and only these.
func TestSignatureCovers(t *testing.T) {
	signed := vectors(t)["ref-a"]
	keys := []PublicKey{publicKey(t, ciPublic), publicKey(t, serverPublic)}
	for _, c := range []struct {
		what   string
		change func(*narinfo.Info)
		good   bool
	}{
		{"nothing", func(*narinfo.Info) {}, true},
		{"StoreDir", func(i *narinfo.Info) { i.StoreDir = "/gnu/store" }, false},
		{"Path", func(i *narinfo.Info) { i.Path += "x" }, false},
		{"NarHash", func(i *narinfo.Info) { i.NarHash[31] ^= 1 }, false},
		{"NarSize", func(i *narinfo.Info) { i.NarSize++ }, false},
		{"a reference less", func(i *narinfo.Info) { i.References = nil }, false},
		{"a reference more", func(i *narinfo.Info) { i.References = append(i.References, i.Path) }, false},
		{"URL", func(i *narinfo.Info) { i.URL = "x" }, true},
		{"Compression", func(i *narinfo.Info) { i.Compression = "none" }, true},
		{"FileHash", func(i *narinfo.Info) { i.FileHash = narinfo.Hash{}; i.FileSize = 0 }, true},
		{"Deriver", func(i *narinfo.Info) { i.Deriver = "" }, true},
		{"CA", func(i *narinfo.Info) { i.CA = "x" }, true},
	} {
		i := signed.Clone()
		c.change(i)
		if _, ok := VerifyAny(i.AppendFingerprint(nil), i.Sigs, keys); ok != c.good {
			t.Errorf("%s changed: verifies %v", c.what, ok)
		}
	}
}

func TestSignInfoMerges(t *testing.T) {
	ci, server := secretKey(t, ciSecret), secretKey(t, serverSecret)
	i := vectors(t)["ref-a"]
	stranger, err := GenerateKey("zebra-1")
	if err != nil {
		t.Fatal(err)
	}
	namesake, err := GenerateKey("ci-1")
	if err != nil {
		t.Fatal(err)
	}
	msg := i.AppendFingerprint(nil)
	want := slices.Sorted(slices.Values([]string{stranger.Sign(msg), namesake.Sign(msg), ci.Sign(msg), server.Sign(msg)}))

	i.Sigs = []string{namesake.Sign(msg), stranger.Sign(msg)}
	slices.Sort(i.Sigs)
	before := i.Clone()
	for range 2 {
		if got := signInfo(i, []SecretKey{server, ci, ci}); !slices.Equal(got, want) {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
	if !reflect.DeepEqual(i, before) {
		t.Error("SignInfo changed its argument")
	}
	i.Sigs = want
	if got := signInfo(i, []SecretKey{ci}); !slices.Equal(got, want) {
		t.Errorf("signing again: %q", got)
	}
	if got := signInfo(i, nil); !slices.Equal(got, want) {
		t.Errorf("no key: %q", got)
	}
	i.Sigs = nil
	if got := signInfo(i, nil); len(got) != 0 {
		t.Errorf("no key, no signature: %q", got)
	}
}

func TestSignInfoVouchesForNothingUnknown(t *testing.T) {
	ci := secretKey(t, ciSecret)
	for _, clear := range []func(*narinfo.Info){
		func(i *narinfo.Info) { i.NarHash = narinfo.Hash{} },
		func(i *narinfo.Info) { i.NarSize = 0 },
		func(i *narinfo.Info) { i.NarSize = -1 },
	} {
		i := vectors(t)["unsigned"]
		clear(i)
		if got := signInfo(i, []SecretKey{ci}); len(got) != 0 {
			t.Errorf("signed %q", i.AppendFingerprint(nil))
		}
	}
}

func BenchmarkSignInfo(b *testing.B) {
	i, keys := vectors(b)["ref-a"], []SecretKey{secretKey(b, ciSecret)}
	b.ReportAllocs()
	for b.Loop() {
		signInfo(i, keys)
	}
}

func BenchmarkVerifyAny(b *testing.B) {
	i, keys := vectors(b)["ref-a"], []PublicKey{publicKey(b, ciPublic)}
	msg := i.AppendFingerprint(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := VerifyAny(msg, i.Sigs, keys); !ok {
			b.Fatal("refused")
		}
	}
}

// signInfo is signing.SignInfo by keys that are here.
func signInfo(i *narinfo.Info, keys []SecretKey) []string {
	sigs, err := SignInfo(i, keys)
	if err != nil {
		panic(err)
	}
	return sigs
}
