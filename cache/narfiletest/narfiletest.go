// Package narfiletest makes NAR files for tests.
package narfiletest

import (
	"bytes"
	"embed"
	"io"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz/lzma"
)

// Compress compresses as one stream, as a NAR file of that compression is. There is no Go encoder for xz and bzip2 here:
// of those only testdata has some.
func Compress(t testing.TB, compression string, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	var err error
	switch compression {
	case "none":
		return bytes.Clone(data)
	case "zstd":
		w, err = zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1))
	case "gzip":
		w = gzip.NewWriter(&out)
	case "lz4":
		w = lz4.NewWriter(&out)
	case "br":
		w = brotli.NewWriter(&out)
	case "lzma":
		w, err = lzma.NewWriter(&out)
	default:
		t.Fatalf("cannot pack with %s", compression)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

//go:embed testdata
var testdata embed.FS

// sample reads testdata/sample.nar and what the command line tools made of it:
//
//	xz -k sample.nar; bzip2 -k sample.nar
//	(head -c 300 sample.nar | xz; tail -c +301 sample.nar | xz) > two.nar.xz
//	(head -c 300 sample.nar | bzip2; tail -c +301 sample.nar | bzip2) > two.nar.bz2
func sample(t testing.TB, suffix string) []byte {
	t.Helper()
	name := "sample.nar"
	if after, ok := strings.CutPrefix(suffix, "two."); ok {
		name, suffix = "two.nar", "."+after
	}
	data, err := testdata.ReadFile("testdata/" + name + suffix)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Samples returns one NAR in every compression, and in two streams one after
// the other where a format allows that.
func Samples(t testing.TB) (archive []byte, packed map[string][]byte) {
	t.Helper()
	archive = sample(t, "")
	packed = map[string][]byte{
		"xz":              sample(t, ".xz"),
		"xz two streams":  sample(t, "two.xz"),
		"bzip2":           sample(t, ".bz2"),
		"bzip2 two files": sample(t, "two.bz2"),
	}
	for _, c := range []string{"none", "zstd", "gzip", "lz4", "br", "lzma"} {
		packed[c] = Compress(t, c, archive)
	}
	for name, c := range map[string]string{"zstd two frames": "zstd", "gzip two members": "gzip", "lz4 two frames": "lz4"} {
		packed[name] = append(Compress(t, c, archive[:300]), Compress(t, c, archive[300:])...)
	}
	// Nix 2.35 makes frames of 16 MiB; other tools add skippable ones.
	packed["zstd and a skippable frame"] = append(bytes.Clone(packed["zstd"]), "\x50\x2a\x4d\x18\x03\x00\x00\x00abc"...)
	packed["xz and padding"] = append(bytes.Clone(packed["xz"]), 0, 0, 0, 0)
	return archive, packed
}

// Codec returns the compression of a key of Samples.
func Codec(key string) string {
	name, _, _ := strings.Cut(key, " ")
	return name
}

// Suffix returns what Nix puts behind the name of a NAR file.
func Suffix(compression string) string {
	return map[string]string{"zstd": ".zst", "xz": ".xz", "bzip2": ".bz2", "lz4": ".lz4", "br": ".br"}[compression]
}
