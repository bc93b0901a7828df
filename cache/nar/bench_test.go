package nar

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	gonix "github.com/nix-community/go-nix/pkg/nar"
)

// manyFiles is the shape that costs most per byte: 20 000 files of 10 bytes in 100 directories.
var manyFiles = sync.OnceValue(func() []file {
	files := []file{dir("")}
	for d := range 100 {
		files = append(files, dir(fmt.Sprintf("%03d", d)))
		for f := range 200 {
			files = append(files, plainFile(fmt.Sprintf("%03d/f%05d", d, f), fmt.Sprintf("file %05d", f)))
		}
	}
	return files
})

const bigSize = 256 << 20

var bigFile = sync.OnceValue(func() []file {
	return []file{plainFile("", strings.Repeat("0123456789abcdef", bigSize/16))}
})

func benchmarkRead(b *testing.B, read func(io.Reader) error) {
	for name, files := range map[string]func() []file{"many": manyFiles, "big": bigFile, "tiny": func() []file { return []file{plainFile("", "x")} }} {
		b.Run(name, func(b *testing.B) {
			n := write(b, files()...)
			entries := len(files())
			src := bytes.NewReader(n)
			b.SetBytes(int64(len(n)))
			b.ReportAllocs()
			b.ResetTimer()
			for b.Loop() {
				src.Reset(n)
				if err := read(struct{ io.Reader }{src}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(entries), "ns/entry")
		})
	}
}

func BenchmarkCheck(b *testing.B) {
	b.Run("ours", func(b *testing.B) {
		benchmarkRead(b, func(r io.Reader) error {
			_, err := Check(r)
			return err
		})
	})
	b.Run("gonix", func(b *testing.B) { benchmarkRead(b, gonixCheck) })
}

func gonixCheck(r io.Reader) error {
	rd, err := gonix.NewReader(r)
	if err != nil {
		return err
	}
	defer func() { _ = rd.Close() }()
	for {
		if _, err := rd.Next(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func BenchmarkNext(b *testing.B) {
	benchmarkRead(b, func(r io.Reader) error { return drain(NewReader(r)) })
}

func BenchmarkList(b *testing.B) {
	benchmarkRead(b, func(r io.Reader) error {
		_, err := List(r, 1<<20)
		return err
	})
}

func BenchmarkListing(b *testing.B) {
	files := []file{dir("")}
	for d := range 1000 {
		files = append(files, dir(fmt.Sprintf("%03d", d)))
		for f := range 200 {
			files = append(files, plainFile(fmt.Sprintf("%03d/some-file-name-%d.txt", d, f), "x"))
		}
	}
	root, err := List(bytes.NewReader(write(b, sorted(files...)...)), 1<<20)
	if err != nil {
		b.Fatal(err)
	}
	text, err := root.AppendJSON(nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("append200k", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		b.ReportAllocs()
		var dst []byte
		for b.Loop() {
			dst, _ = root.AppendJSON(dst[:0])
		}
	})
	b.Run("parse200k", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := ParseListing(text); err != nil {
				b.Fatal(err)
			}
		}
	})
}
