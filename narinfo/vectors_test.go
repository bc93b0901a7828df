package narinfo

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// The files of testdata were written by Nix 2.34.8 (`nix copy` to a file://
// cache with two secret keys); the other versions write the same bytes.
func vectors(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/*.narinfo")
	if err != nil || len(files) < 8 {
		t.Fatalf("test vectors: %v, %v", files, err)
	}
	all := make(map[string][]byte)
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimSuffix(filepath.Base(f), ".narinfo")] = text
	}
	return all
}

func TestVectorsPrintAsNixWroteThem(t *testing.T) {
	for name, text := range vectors(t) {
		i, err := Parse(text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := i.Append(nil); string(got) != string(text) {
			t.Errorf("%s: printed\n%swant\n%s", name, got, text)
		}
	}
}

func TestVectorFields(t *testing.T) {
	i, err := Parse(vectors(t)["ca-b"])
	if err != nil {
		t.Fatal(err)
	}
	hash, err := ParseBase32("1lxjc5v99ihbmxm6ad3m37hdd7fyiwxsx9l9ni3cdgbykmv1ybcd")
	if err != nil {
		t.Fatal(err)
	}
	want := &Info{
		StoreDir:    "/nix/store",
		Path:        "2skf6yqmj2agdi1rlxjqg7fabifrwndw-ca-b",
		URL:         "nar/1lxjc5v99ihbmxm6ad3m37hdd7fyiwxsx9l9ni3cdgbykmv1ybcd.nar",
		Compression: "none",
		FileHash:    hash,
		FileSize:    576,
		NarHash:     hash,
		NarSize:     576,
		References:  []Path{"2skf6yqmj2agdi1rlxjqg7fabifrwndw-ca-b", "dlg53l4m6iqb84a2ydrd8ls2hs91riy7-ca-c"},
		Deriver:     "x1cwdi7psipl5lds9h8diy4bhyaiyk8j-ca-b.drv",
		CA:          "fixed:r:sha256:0jq7ilz3zliz0a6mgbgmfz2a54b67n6xa4p6ajs5j1amcmnrbcfi",
		Sigs:        []string{"narwharf.example.org-1:5bDWAyITrD5Zu/sbRbeujHsYDicMw203IRLnbWidkf1xyWlkH8W4oizlMB3mnjo0h8lr8du/KclcWtOYw5QmAw=="},
	}
	if !reflect.DeepEqual(i, want) {
		t.Errorf("got  %+v\nwant %+v", i, want)
	}
}

// The signatures of the vectors, made by Nix, are checked over these texts in
// package signing; here the text itself is pinned.
func TestVectorFingerprint(t *testing.T) {
	for name, want := range map[string]string{
		"ca-b": "1;/nix/store/2skf6yqmj2agdi1rlxjqg7fabifrwndw-ca-b;" +
			"sha256:1lxjc5v99ihbmxm6ad3m37hdd7fyiwxsx9l9ni3cdgbykmv1ybcd;576;" +
			"/nix/store/2skf6yqmj2agdi1rlxjqg7fabifrwndw-ca-b,/nix/store/dlg53l4m6iqb84a2ydrd8ls2hs91riy7-ca-c",
		"fixed-output": "1;/nix/store/1x8msdfs1824d2l95acyvr9yssp1rb3c-fixed-output;" +
			"sha256:0sg9f58l1jj88w6pdrfdpj5x9b1zrwszk84j81zvby36q9whhhqa;120;",
	} {
		i, err := Parse(vectors(t)[name])
		if err != nil {
			t.Fatal(err)
		}
		if got := i.AppendFingerprint([]byte("before ")); string(got) != "before "+want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestUnsortedListsPrintSorted(t *testing.T) {
	i, err := Parse(vectors(t)["wide"])
	if err != nil {
		t.Fatal(err)
	}
	text, fingerprint := i.Append(nil), i.AppendFingerprint(nil)
	j := i.Clone()
	j.References[0], j.References[59] = j.References[59], j.References[0]
	j.References = append(j.References, j.References[7])
	j.Sigs[0], j.Sigs[1] = j.Sigs[1], j.Sigs[0]
	unsorted := j.Clone()
	if got := j.Append(nil); string(got) != string(text) {
		t.Errorf("text of an unsorted Info differs:\n%s", got)
	}
	if got := j.AppendFingerprint(nil); string(got) != string(fingerprint) {
		t.Errorf("fingerprint of an unsorted Info differs:\n%s", got)
	}
	if !reflect.DeepEqual(j, unsorted) {
		t.Error("printing changed the Info")
	}
	if got := i.Append(nil); string(got) != string(text) {
		t.Error("Clone shares its lists with the original")
	}
}
