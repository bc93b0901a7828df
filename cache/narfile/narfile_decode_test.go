package narfile

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"narwharf/cache/narfiletest"
	"narwharf/cache/refusal"
)

func TestDecode(t *testing.T) {
	text := strings.Repeat("hello ", 1000)
	for encoding, body := range map[string][]byte{
		"": []byte(text), "none": []byte(text), "identity": []byte(text), " None ": []byte(text),
		"zstd": narfiletest.Compress(t, "zstd", []byte(text)), "gzip": narfiletest.Compress(t, "gzip", []byte(text)), "x-gzip": narfiletest.Compress(t, "gzip", []byte(text)),
		"br": narfiletest.Compress(t, "br", []byte(text)), "GZIP": narfiletest.Compress(t, "gzip", []byte(text)),
	} {
		r, err := Decode(bytes.NewReader(body), encoding, 1<<20, "the log", refusal.Content)
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
		if _, err := Decode(strings.NewReader("x"), encoding, 1<<20, "the log", refusal.Content); err == nil {
			t.Errorf("%q was taken", encoding)
		}
	}
}
