package narfile

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"strings"
	"testing"

	"narwharf/cache/narfiletest"
	"narwharf/cache/refusal"
)

func TestReadTakesEveryCompression(t *testing.T) {
	archive, packed := narfiletest.Samples(t)
	for name, body := range packed {
		t.Run(name, func(t *testing.T) {
			want := narfiletest.Codec(name)
			f, err := Read("x.nar"+narfiletest.Suffix(want), bytes.NewReader(body), NoLimit)
			if err != nil {
				t.Fatal(err)
			}
			if f.Compression != want || f.FileSize != int64(len(body)) || f.NarSize != int64(len(archive)) {
				t.Errorf("%+v, want %s of %d bytes with %d bytes in it", f, want, len(body), len(archive))
			}
			if f.NarHash != sha256.Sum256(archive) {
				t.Error("the NAR's hash is wrong")
			}
			// Whatever the file is called, unless only the name can tell.
			if want != "br" {
				if _, err := Read("x.nar", &slowReader{body, 7}, NoLimit); err != nil {
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
func TestReadRefusesEveryTruncationAndJunk(t *testing.T) {
	_, packed := narfiletest.Samples(t)
	for name, body := range packed {
		t.Run(name, func(t *testing.T) {
			file := "x.nar" + narfiletest.Suffix(narfiletest.Codec(name))
			whole := map[int]bool{} // prefixes that are whole files too
			switch name {
			case "zstd and a skippable frame", "xz and padding":
				whole[len(packed[narfiletest.Codec(name)])] = true
			}
			for n := 0; n < len(body); n++ {
				if n == 100 && len(body) > 350 {
					n = len(body) - 200 // the middle of a plain NAR is cache/nar's to test
				}
				f, err := Read(file, bytes.NewReader(body[:n]), NoLimit)
				if r := refusal.In(err); !whole[n] && (r == nil || r.Kind != refusal.Nar) {
					t.Errorf("the first %d of %d bytes: %+v, %v", n, len(body), f, err)
				}
			}
			for _, junk := range []string{"\x00", "x", "junk that is longer than any header", string(body), strings.Repeat("\x00", 512)} {
				if narfiletest.Codec(name) == "xz" && strings.Trim(junk, "\x00") == "" && (len(junk) == 512 || name == "xz and padding") {
					continue // more padding
				}
				f, err := Read(file, io.MultiReader(bytes.NewReader(body), strings.NewReader(junk)), NoLimit)
				if r := refusal.In(err); r == nil || r.Kind != refusal.Nar {
					t.Errorf("with %.20q behind it: %+v, %v", junk, f, err)
				}
			}
			for i := 0; i < len(body); i += 5 { // some one bit
				bad := bytes.Clone(body)
				bad[i] ^= 1 << (i % 8)
				f, err := Read(file, bytes.NewReader(bad), NoLimit)
				if err != nil && refusal.In(err) == nil {
					t.Errorf("byte %d flipped: %v is no refusal", i, err)
				} else if err == nil && f.FileHash == sha256.Sum256(body) {
					t.Errorf("byte %d flipped: not seen in the hash", i)
				}
			}
		})
	}
}

func TestReadKeepsTheErrorOfItsSource(t *testing.T) {
	_, packed := narfiletest.Samples(t)
	broken := errors.New("the cable was pulled")
	for name, body := range packed {
		for _, n := range []int{0, 1, len(body) / 2, len(body)} {
			_, err := Read("x.nar"+narfiletest.Suffix(narfiletest.Codec(name)), io.MultiReader(bytes.NewReader(body[:n]), failing{broken}), NoLimit)
			if !errors.Is(err, broken) {
				t.Errorf("%s broken after %d bytes: %v", name, n, err)
			}
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestReadLimits(t *testing.T) {
	archive, packed := narfiletest.Samples(t)
	for name, body := range packed {
		file := "x.nar" + narfiletest.Suffix(narfiletest.Codec(name))
		limit := int64(max(len(body), len(archive)))
		if _, err := Read(file, bytes.NewReader(body), limit); err != nil {
			t.Errorf("%s of just the allowed size: %v", name, err)
		}
		for _, limit := range []int64{limit - 1, 100, 21} {
			_, err := Read(file, bytes.NewReader(body), limit)
			if r := refusal.In(err); r == nil || r.Kind != refusal.TooLarge {
				t.Errorf("%s with a limit of %d: %v", name, limit, err)
			}
		}
	}
}

func TestReadRefusesInWords(t *testing.T) {
	for _, c := range []struct {
		file, body string
		kind       refusal.Kind
		words      string
	}{
		{"x.nar", "", refusal.Nar, "empty"},
		{"x.nar", "hello", refusal.Nar, `neither a NAR nor one packed`},
		{"x.nar.zst", "hello", refusal.Nar, `neither a NAR nor one packed`},
		{"x.nar.lzip", "LZIP\x01\x17", refusal.Encoding, "?compression=zstd"},
		{"x.nar", "LZIP\x01\x17", refusal.Encoding, "lzip"},
		{"x.nar", "\x5d\x00\x00\x80\x00" + strings.Repeat("\xff", 8), refusal.Nar, "lzma"},
		{"x.nar", "\x5d\x00\x00\xff\xff" + strings.Repeat("\xff", 20), refusal.Nar, "lzma"}, // a dictionary of 4 GiB
		{"x.nar", "\x1f\x9d\x90", refusal.Encoding, "cannot check compress: copy with ?compression=zstd"},
		{"x.nar", "\x89LZO\x00\x0d\x0a", refusal.Encoding, "cannot check lzop: copy with ?compression=zstd"},
		{"x.nar", "LRZI\x00\x06", refusal.Encoding, "cannot check lrzip: copy with ?compression=zstd"},
		{"x.nar", "GRZipII\x00\x02\x04", refusal.Encoding, "cannot check grzip: copy with ?compression=zstd"},
		{"x.nar", "\x1f\x8c", refusal.Nar, "neither a NAR nor one packed"},
		{"x.nar.br", "hello", refusal.Nar, "br"},
		{"x.nar", "\x28\xb5\x2f\xfd", refusal.Nar, "zstd"},
		{"x.nar", string(narfiletest.Compress(t, "zstd", []byte("not a NAR"))), refusal.Nar, "malformed nar"},
		{"x.nar", string(narfiletest.Compress(t, "gzip", nil)), refusal.Nar, "malformed nar"},
		{"x.nar", "\x0d\x00\x00\x00\x00\x00\x00\x00nix-archive-1\x00\x00\x00", refusal.Nar, "malformed nar"},
	} {
		_, err := Read(c.file, strings.NewReader(c.body), NoLimit)
		r := refusal.In(err)
		if r == nil || r.Kind != c.kind || !strings.Contains(r.Text, c.words) {
			t.Errorf("%s with %.10q: %v, want %s with %q", c.file, c.body, err, c.kind, c.words)
		}
	}
}
