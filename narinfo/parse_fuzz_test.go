package narinfo

import (
	"bytes"
	"encoding/base64"
	"reflect"
	"slices"
	"strings"
	"testing"

	gonix "github.com/nix-community/go-nix/pkg/narinfo"
	"github.com/nix-community/go-nix/pkg/nixbase32"
	"pgregory.net/rapid"
)

func paths() *rapid.Generator[Path] {
	return rapid.Custom(func(t *rapid.T) Path {
		hash := rapid.StringOfN(rapid.RuneFrom([]rune(nixbase32.Alphabet)), 32, 32, -1).Draw(t, "hash")
		name := rapid.StringMatching(`[0-9a-zA-Z+._?=-]{1,20}`).
			Filter(func(s string) bool { return checkName(s) == nil }).Draw(t, "name")
		return Path(hash + "-" + name)
	})
}

func signatures() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		name := rapid.StringOfN(rapid.Rune(), 1, 12, -1).Filter(ValidKeyName).Draw(t, "key name")
		return name + ":" + base64.StdEncoding.EncodeToString(rapid.SliceOfN(rapid.Byte(), 64, 64).Draw(t, "sig"))
	})
}

func infos() *rapid.Generator[*Info] {
	return rapid.Custom(func(t *rapid.T) *Info {
		dir := rapid.StringMatching(`(/[a-zA-Z0-9._ +:%-]{1,9}){1,3}`).Filter(validStoreDir).Draw(t, "store dir")
		i := &Info{
			StoreDir:    dir,
			Path:        paths().Draw(t, "path"),
			URL:         rapid.StringMatching(`[!-~]{1,60}`).Draw(t, "url"),
			Compression: rapid.StringMatching(`[a-z0-9-]{1,10}`).Draw(t, "compression"),
			FileSize:    rapid.Int64Min(0).Draw(t, "file size"),
			NarHash:     hashes().Draw(t, "nar hash"),
			NarSize:     rapid.Int64Min(1).Draw(t, "nar size"),
			References:  rapid.SliceOfN(paths(), 0, 6).Draw(t, "references"),
			Sigs:        rapid.SliceOfN(signatures(), 0, 3).Draw(t, "signatures"),
			CA: rapid.SampledFrom([]string{"", "text:sha256:" + helloNix32, "fixed:sha256:" + helloBase16,
				"fixed:r:sha1:f572d396fae9206628714fb2ce00f72e94f2258f", "fixed:git:sha1:9znva9fjzcs4z5x2hdkg7byw4bxfjm3x",
				"fixed:md5:XUFAKrxLKna5cZ2REBfFkg==", "fixed:r:blake3:" + helloNix32}).Draw(t, "ca"),
		}
		if rapid.Bool().Draw(t, "has file hash") {
			i.FileHash = hashes().Draw(t, "file hash")
		}
		if rapid.Bool().Draw(t, "has deriver") {
			i.Deriver = paths().Draw(t, "deriver")
		}
		slices.Sort(i.References)
		slices.Sort(i.Sigs)
		i.References, i.Sigs = slices.Compact(i.References), slices.Compact(i.Sigs)
		// The invariant is nil for none.
		if len(i.References) == 0 {
			i.References = nil
		}
		if len(i.Sigs) == 0 {
			i.Sigs = nil
		}
		return i
	})
}

func TestParseOfAppendIsTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		i := infos().Draw(t, "info")
		text := i.Append(nil)
		if len(text) > i.textLen() {
			t.Fatalf("%d bytes of text were reckoned as at most %d", len(text), i.textLen())
		}
		got, err := Parse(text)
		if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		if !reflect.DeepEqual(got, i) {
			t.Fatalf("got %+v from\n%s", got, text)
		}
	})
}

// Any cut of a document is refused, or the cut was between two lines and what
// was lost is optional.
func TestParseOfACutText(t *testing.T) {
	for n := range len(full) {
		if _, err := Parse([]byte(full[:n])); err == nil && full[n-1] != '\n' {
			t.Errorf("accepted when cut after byte %d: %q", n, full[:n])
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range vectors(f) {
		f.Add(text)
	}
	f.Add([]byte(full))
	f.Add([]byte(strings.ReplaceAll(full, "\n", "\r\n")))
	f.Add([]byte(strings.Replace(full, caLn, "CA: text:sha256:"+helloNix32+"\nSystem: x86_64-linux\n", 1)))
	f.Add([]byte(strings.Replace(full, drvLn, "Deriver: unknown-deriver\n", 1)))
	f.Add([]byte(strings.Replace(full, "/nix/store", "/gnu/store", 1)))
	f.Add([]byte(strings.Replace(full, narLn, "NarHash: "+helloSRI+"\n", 1)))
	f.Fuzz(func(t *testing.T, text []byte) {
		i, err := Parse(text)
		if err != nil {
			if msg := err.Error(); len(msg) >= 512 || hasControl(msg) || !strings.HasPrefix(msg, "narinfo ") {
				t.Errorf("message of %d bytes: %q", len(msg), msg)
			}
			return
		}
		normal := i.Append(nil)
		again, err := Parse(normal)
		if err != nil {
			t.Fatalf("%v in the text printed from\n%s\nwhich is\n%s", err, text, normal)
		}
		if !reflect.DeepEqual(i, again) {
			t.Fatalf("%+v became %+v", i, again)
		}
		if twice := again.Append(nil); !bytes.Equal(normal, twice) {
			t.Fatalf("printed %s\nthen %s", normal, twice)
		}
		if theirs, err := gonix.Parse(bytes.NewReader(text)); err == nil {
			compareWithGoNix(t, i, theirs)
		}
	})
}

// compareWithGoNix takes go-nix as the oracle for texts that both accept.
func compareWithGoNix(t *testing.T, i *Info, theirs *gonix.NarInfo) {
	t.Helper()
	var refs []Path
	for _, r := range theirs.References {
		refs = append(refs, Path(r))
	}
	slices.Sort(refs)
	var sigs []string
	for _, s := range theirs.Signatures {
		sigs = append(sigs, s.String())
	}
	slices.Sort(sigs)
	var file, nar Hash
	if theirs.FileHash != nil {
		copy(file[:], theirs.FileHash.Digest())
	}
	copy(nar[:], theirs.NarHash.Digest())
	if i.Path.In(i.StoreDir) != theirs.StorePath || i.URL != theirs.URL || i.Compression != theirs.Compression ||
		i.FileHash != file || uint64(i.FileSize) != theirs.FileSize ||
		i.NarHash != nar || uint64(i.NarSize) != theirs.NarSize ||
		!slices.Equal(i.References, slices.Compact(refs)) || string(i.Deriver) != theirs.Deriver ||
		i.CA != theirs.CA || !slices.Equal(i.Sigs, slices.Compact(sigs)) {
		t.Fatalf("we read %+v\ngo-nix read %+v", i, theirs)
	}
}

func FuzzParsePath(f *testing.F) {
	for _, c := range nameCases {
		f.Add(someHash + "-" + c.name)
	}
	f.Fuzz(func(t *testing.T, s string) {
		_, base := ParseBase(s)
		p, err := ParsePath("/s", "/s/"+s)
		if (err == nil) != (base == nil) {
			t.Fatalf("ParsePath: %v, ParseBase: %v", err, base)
		}
		if err == nil && (p.Hash()+"-"+p.Name() != s || !ValidHash(p.Hash())) {
			t.Fatalf("%q split into %q and %q", s, p.Hash(), p.Name())
		}
	})
}
