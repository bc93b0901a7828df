package narinfo

import "testing"

// typical is a signed narinfo of ten references.
func typical(b *testing.B) (*Info, []byte) {
	b.Helper()
	i, err := Parse(vectors(b)["wide"])
	if err != nil {
		b.Fatal(err)
	}
	i.References = i.References[:10]
	i.Sigs = i.Sigs[:1]
	return i, i.Append(nil)
}

func BenchmarkParse(b *testing.B) {
	_, text := typical(b)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(text); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	i, text := typical(b)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	buf := make([]byte, 0, 4096)
	for b.Loop() {
		buf = i.Append(buf[:0])
	}
}

func BenchmarkFingerprint(b *testing.B) {
	i, _ := typical(b)
	b.ReportAllocs()
	buf := make([]byte, 0, 4096)
	for b.Loop() {
		buf = i.AppendFingerprint(buf[:0])
	}
	b.SetBytes(int64(len(buf)))
}
