//go:build linux

package main

import (
	"crypto/sha256"
	"io"
	"testing"

	"github.com/klauspost/compress/zstd"

	"narwharf/cache/nar"
	"narwharf/narinfo"
)

func TestBigNarIsOne(t *testing.T) {
	b, err := newBigNar(2 * bigBlock)
	if err != nil {
		t.Fatal(err)
	}
	packed := sha256.New()
	z, err := zstd.NewReader(io.TeeReader(b.reader(), packed))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	plain := sha256.New()
	n, err := nar.Check(io.TeeReader(z, plain))
	if err != nil {
		t.Fatal(err)
	}
	if got := narinfo.Hash(plain.Sum(nil)); n != b.size || got != b.hash || n < 2*bigBlock {
		t.Errorf("NAR of %d bytes with hash %s, announced %d with %s", n, got, b.size, b.hash)
	}
	if got := narinfo.Hash(packed.Sum(nil)); got != b.fileHash {
		t.Errorf("file hash %s, announced %s", got, b.fileHash)
	}
	if share := float64(b.fileSize) / float64(b.size); share < 0.5 || share > 0.95 {
		t.Errorf("packed to %.2f of its size, want something like a real NAR", share)
	}
	if _, err := narinfo.Parse(b.info("/nar/" + b.fileHash.Base32() + ".nar.zst").Append(nil)); err != nil {
		t.Error(err)
	}
}
