package encoder

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"narwharf/narinfo"
)

func someFact(n int) (narinfo.Hash, Digest) {
	return narinfo.Hash{1, byte(n), byte(n >> 8)}, Digest{Hash: narinfo.Hash{2, byte(n)}, Size: int64(n) + 1}
}

func TestFactsAreLines(t *testing.T) {
	key, f := someFact(7)
	line := appendDigest(nil, key, f)
	if !bytes.HasPrefix(line, []byte("z1 "+key.Base32()+" "+f.Hash.Base32()+" 8 ")) || !bytes.HasSuffix(line, []byte("\n")) {
		t.Fatalf("%q", line)
	}
	line = line[:len(line)-1]
	if k, got, ok := parseDigest(line); !ok || k != key || got != f {
		t.Fatal(k, got, ok)
	}
	for n := range line {
		for _, bit := range []byte{1, 32} {
			other := bytes.Clone(line)
			other[n] ^= bit
			if k, got, ok := parseDigest(other); ok && (k != key || got != f) {
				t.Errorf("%q is taken for %v", other, got)
			}
		}
		if _, _, ok := parseDigest(line[:n]); ok {
			t.Errorf("%q is taken for a line", line[:n])
		}
	}
	for _, f := range []Digest{{Hash: f.Hash}, {Hash: f.Hash, Size: -1}, {Size: 3}} {
		if _, _, ok := parseDigest(bytes.TrimSuffix(appendDigest(nil, key, f), []byte("\n"))); ok {
			t.Errorf("%v is taken", f)
		}
	}
}

func FuzzParseFact(f *testing.F) {
	key, fact := someFact(7)
	f.Add(bytes.TrimSuffix(appendDigest(nil, key, fact), []byte("\n")))
	f.Add([]byte(" 0"))
	f.Fuzz(func(t *testing.T, line []byte) {
		if key, fact, ok := parseDigest(line); ok {
			if k, again, ok := parseDigest(bytes.TrimSuffix(appendDigest(nil, key, fact), []byte("\n"))); !ok || k != key || again != fact {
				t.Errorf("%q", line)
			}
		}
	})
}

// Whatever a crash leaves of the file, the whole lines count.
func TestFactsAfterACrash(t *testing.T) {
	var text []byte
	ends := []int{0}
	const lines = 5
	for n := range lines {
		key, f := someFact(n)
		text = appendDigest(text, key, f)
		ends = append(ends, len(text))
	}
	for _, damage := range []func(n int) []byte{
		func(n int) []byte { return text[:n] },
		func(n int) []byte { return append(bytes.Clone(text[:n]), make([]byte, len(text)-n)...) },
	} {
		for n := 0; n < len(text); n += 13 {
			dir := t.TempDir()
			name := filepath.Join(dir, "facts")
			if err := os.WriteFile(name, damage(n), 0o644); err != nil {
				t.Fatal(err)
			}
			for round := range 2 {
				l, err := OpenDigests(dir)
				if err != nil {
					t.Fatal(err)
				}
				for k := range lines {
					key, want := someFact(k)
					got, known := l.Get(key)
					if known != (ends[k+1] <= n || round == 1) || known && got != want {
						t.Fatalf("cut at %d: line %d is known: %v", n, k, known)
					}
					// What was lost is learned again.
					if _, _, err := l.Put(key, want); err != nil {
						t.Fatal(err)
					}
				}
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, text) {
				t.Fatalf("cut at %d: %q %v", n, got, err)
			}
		}
	}
}

func TestFactsThatCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	l, err := OpenDigests(dir)
	if err != nil {
		t.Fatal(err)
	}
	a, fa := someFact(1)
	b, fb := someFact(2)
	full := errors.New("full")
	l.Fault = func() error {
		_, err := l.f.Write(appendDigest(nil, a, fa)[:20])
		return errors.Join(err, full)
	}
	if _, _, err := l.Put(a, fa); !errors.Is(err, full) {
		t.Error(err)
	}
	l.Fault = nil
	if got, known := l.Get(a); !known || got != fa {
		t.Error("not even in memory")
	}
	if _, _, err := l.Put(b, fb); err != nil {
		t.Error(err)
	}
	if before, known, err := l.Put(b, fa); err != nil || !known || before != fb {
		t.Error("what was known before:", before, known, err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if l, err = OpenDigests(dir); err != nil {
		t.Fatal(err)
	}
	defer l.f.Close()
	if _, known := l.Get(a); known {
		t.Error("a torn line is believed")
	}
	if got, known := l.Get(b); !known || got != fa {
		t.Error("the line after the torn one is lost, or the last does not count")
	}
}

func TestFactsAreBounded(t *testing.T) {
	dir := t.TempDir()
	var text []byte
	for n := range 30 {
		key, f := someFact(n)
		text = appendDigest(text, key, f)
	}
	if err := os.WriteFile(filepath.Join(dir, "facts"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	defer func(n int) { maxDigests = n }(maxDigests)
	maxDigests = 10
	l, err := OpenDigests(dir)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 30 {
		key, _ := someFact(n)
		if _, known := l.Get(key); known != (n >= 20) {
			t.Errorf("number %d is known: %v", n, known)
		}
	}
	for n := range 50 {
		key, f := someFact(n)
		if _, _, err := l.Put(key, f); err != nil {
			t.Fatal(err)
		}
		if got, known := l.Get(key); !known || got != f || len(l.known) > 10 {
			t.Fatalf("%d are known", len(l.known))
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l, err = OpenDigests(dir); err != nil {
		t.Fatal(err)
	}
	defer l.f.Close()
	text, err = os.ReadFile(filepath.Join(dir, "facts"))
	if err != nil || strings.Count(string(text), "\n") != 10 {
		t.Error("the file is not cut down:", err, fmt.Sprintf("%.300s", text))
	}
}
