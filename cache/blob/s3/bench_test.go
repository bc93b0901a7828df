package s3_test

import (
	"path/filepath"
	"testing"

	"narwharf/cache/blob"
)

// BenchmarkOpenHere is what the fast path pays to open a NAR: of a folder, and of the disk cache.
func BenchmarkOpenHere(b *testing.B) {
	dir := b.TempDir()
	files, err := blob.NewFS(filepath.Join(dir, "files"), filepath.Join(dir, "tmp"))
	if err != nil {
		b.Fatal(err)
	}
	store, _ := fake(b, 1<<30)
	for name, s := range map[string]blob.Store{"folder": files, "copy": store} {
		if err := blob.WriteFile(s, "nar/a", make([]byte, 1000)); err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				f, _, err := blob.OpenHere(s, "nar/a")
				if err != nil {
					b.Fatal(err)
				}
				f.Close()
			}
		})
	}
}
