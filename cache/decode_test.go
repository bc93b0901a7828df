package cache

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// compressAs compresses as one stream. There is no Go encoder for xz and bzip2 here:
// of those only testdata has some.
func compressAs(t testing.TB, compression string, data []byte) []byte {
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
	data, err := os.ReadFile(filepath.Join("testdata", name+suffix))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// packedSamples are one NAR in every compression, and in two streams one after
// the other where a format allows that.
func packedSamples(t testing.TB) (archive []byte, packed map[string][]byte) {
	t.Helper()
	archive = sample(t, "")
	packed = map[string][]byte{
		"xz":              sample(t, ".xz"),
		"xz two streams":  sample(t, "two.xz"),
		"bzip2":           sample(t, ".bz2"),
		"bzip2 two files": sample(t, "two.bz2"),
	}
	for _, c := range []string{"none", "zstd", "gzip", "lz4", "br"} {
		packed[c] = compressAs(t, c, archive)
	}
	for name, c := range map[string]string{"zstd two frames": "zstd", "gzip two members": "gzip", "lz4 two frames": "lz4"} {
		packed[name] = append(compressAs(t, c, archive[:300]), compressAs(t, c, archive[300:])...)
	}
	// Nix 2.35 makes frames of 16 MiB; other tools add skippable ones.
	packed["zstd and a skippable frame"] = append(bytes.Clone(packed["zstd"]), "\x50\x2a\x4d\x18\x03\x00\x00\x00abc"...)
	packed["xz and padding"] = append(bytes.Clone(packed["xz"]), 0, 0, 0, 0)
	return archive, packed
}

// codecName is the compression of a key of packedSamples.
func codecName(key string) string {
	name, _, _ := strings.Cut(key, " ")
	return name
}

func suffixOf(compression string) string {
	for _, c := range codecs {
		if c.name == compression {
			return c.suffix
		}
	}
	return ""
}

func TestReadNarTakesEveryCompression(t *testing.T) {
	archive, packed := packedSamples(t)
	for name, body := range packed {
		t.Run(name, func(t *testing.T) {
			want := codecName(name)
			f, err := readNar("x.nar"+suffixOf(want), bytes.NewReader(body), noLimit)
			if err != nil {
				t.Fatal(err)
			}
			if f.compression != want || f.fileSize != int64(len(body)) || f.narSize != int64(len(archive)) {
				t.Errorf("%+v, want %s of %d bytes with %d bytes in it", f, want, len(body), len(archive))
			}
			if f.narHash != rawUpload(t, "x", archive, want, body).info.NarHash {
				t.Error("the NAR's hash is wrong")
			}
			// Whatever the file is called, unless only the name can tell.
			if want != "br" {
				if _, err := readNar("x.nar", &slowReader{body, 7}, noLimit); err != nil {
					t.Errorf("in small pieces and without suffix: %v", err)
				}
			}
		})
	}
}

// slowReader hands out n bytes at a time.
type slowReader struct {
	data []byte
	n    int
}

func (s *slowReader) Read(p []byte) (int, error) {
	if len(s.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), s.n)], s.data)
	s.data = s.data[n:]
	return n, nil
}

// Every proper prefix must be refused, as must anything behind the end: a file
// that a client cannot unpack whole must never be taken in.
func TestReadNarRefusesEveryTruncationAndJunk(t *testing.T) {
	_, packed := packedSamples(t)
	for name, body := range packed {
		t.Run(name, func(t *testing.T) {
			file := "x.nar" + suffixOf(codecName(name))
			whole := map[int]bool{} // prefixes that are whole files too
			switch name {
			case "zstd and a skippable frame", "xz and padding":
				whole[len(packed[codecName(name)])] = true
			}
			for n := 0; n < len(body); n++ {
				if n == 100 && len(body) > 350 {
					n = len(body) - 200 // the middle of a plain NAR is cache/nar's to test
				}
				f, err := readNar(file, bytes.NewReader(body[:n]), noLimit)
				if r := new(Refusal); !whole[n] && (!errors.As(err, &r) || r.Status != http.StatusUnprocessableEntity) {
					t.Errorf("the first %d of %d bytes: %+v, %v", n, len(body), f, err)
				}
			}
			for _, junk := range []string{"\x00", "x", "junk that is longer than any header", string(body), strings.Repeat("\x00", 512)} {
				if codecName(name) == "xz" && strings.Trim(junk, "\x00") == "" && (len(junk) == 512 || name == "xz and padding") {
					continue // more padding
				}
				f, err := readNar(file, io.MultiReader(bytes.NewReader(body), strings.NewReader(junk)), noLimit)
				if r := new(Refusal); !errors.As(err, &r) || r.Status != http.StatusUnprocessableEntity {
					t.Errorf("with %.20q behind it: %+v, %v", junk, f, err)
				}
			}
			for i := 0; i < len(body); i += 5 { // some one bit
				bad := bytes.Clone(body)
				bad[i] ^= 1 << (i % 8)
				f, err := readNar(file, bytes.NewReader(bad), noLimit)
				if r := new(Refusal); err != nil && !errors.As(err, &r) {
					t.Errorf("byte %d flipped: %v is no refusal", i, err)
				} else if err == nil && f.fileHash == rawUpload(t, "x", nil, codecName(name), body).info.FileHash {
					t.Errorf("byte %d flipped: not seen in the hash", i)
				}
			}
		})
	}
}

func TestReadNarKeepsTheErrorOfItsSource(t *testing.T) {
	_, packed := packedSamples(t)
	broken := errors.New("the cable was pulled")
	for name, body := range packed {
		for _, n := range []int{0, 1, len(body) / 2, len(body)} {
			_, err := readNar("x.nar"+suffixOf(codecName(name)), io.MultiReader(bytes.NewReader(body[:n]), failing{broken}), noLimit)
			if !errors.Is(err, broken) {
				t.Errorf("%s broken after %d bytes: %v", name, n, err)
			}
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestReadNarLimits(t *testing.T) {
	archive, packed := packedSamples(t)
	for name, body := range packed {
		file := "x.nar" + suffixOf(codecName(name))
		limit := int64(max(len(body), len(archive)))
		if _, err := readNar(file, bytes.NewReader(body), limit); err != nil {
			t.Errorf("%s of just the allowed size: %v", name, err)
		}
		for _, limit := range []int64{limit - 1, 100, 21} {
			_, err := readNar(file, bytes.NewReader(body), limit)
			if r := new(Refusal); !errors.As(err, &r) || r.Status != http.StatusRequestEntityTooLarge {
				t.Errorf("%s with a limit of %d: %v", name, limit, err)
			}
		}
	}
}

func TestReadNarRefusesInWords(t *testing.T) {
	for _, c := range []struct {
		file, body string
		status     int
		words      string
	}{
		{"x.nar", "", 422, "empty"},
		{"x.nar", "hello", 422, `neither a NAR nor one packed`},
		{"x.nar.zst", "hello", 422, `neither a NAR nor one packed`},
		{"x.nar.lzip", "LZIP\x01\x17", 415, "?compression=zstd"},
		{"x.nar", "LZIP\x01\x17", 415, "lzip"},
		{"x.nar.br", "hello", 422, "br"},
		{"x.nar", "\x28\xb5\x2f\xfd", 422, "zstd"},
		{"x.nar", string(compressAs(t, "zstd", []byte("not a NAR"))), 422, "malformed nar"},
		{"x.nar", string(compressAs(t, "gzip", nil)), 422, "malformed nar"},
		{"x.nar", "\x0d\x00\x00\x00\x00\x00\x00\x00nix-archive-1\x00\x00\x00", 422, "malformed nar"},
	} {
		_, err := readNar(c.file, strings.NewReader(c.body), noLimit)
		r := new(Refusal)
		if !errors.As(err, &r) || r.Status != c.status || !strings.Contains(r.Text, c.words) {
			t.Errorf("%s with %.10q: %v, want %d with %q", c.file, c.body, err, c.status, c.words)
		}
	}
}

func TestDecodeBody(t *testing.T) {
	text := strings.Repeat("hello ", 1000)
	for encoding, body := range map[string][]byte{
		"": []byte(text), "none": []byte(text), "identity": []byte(text), " None ": []byte(text),
		"zstd": compressAs(t, "zstd", []byte(text)), "gzip": compressAs(t, "gzip", []byte(text)), "x-gzip": compressAs(t, "gzip", []byte(text)),
		"br": compressAs(t, "br", []byte(text)), "GZIP": compressAs(t, "gzip", []byte(text)),
	} {
		r, err := decodeBody(bytes.NewReader(body), encoding)
		if err != nil {
			t.Errorf("%q: %v", encoding, err)
			continue
		}
		got, err := io.ReadAll(r)
		if err != nil || string(got) != text {
			t.Errorf("%q: %d bytes, %v", encoding, len(got), err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, encoding := range []string{"compress", "gzip, zstd", "deflate", "nonsense\x00"} {
		if _, err := decodeBody(strings.NewReader("x"), encoding); err == nil {
			t.Errorf("%q was taken", encoding)
		}
	}
}

func TestSizeText(t *testing.T) {
	for n, want := range map[int64]string{0: "0 bytes", 10239: "10239 bytes", 10240: "10 KiB", 64 << 20: "64 MiB", 64 << 30: "64 GiB", 1 << 60: "1048576 TiB"} {
		if got := sizeText(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}
