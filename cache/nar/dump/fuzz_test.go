package dump

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"
)

func TestAnyTree(t *testing.T) {
	tmp := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		files := trees().Draw(rt, "tree")
		dst := filepath.Join(tmp, "dst")
		plant(t, dst, files...)
		again, err := dump(dst)
		if err != nil || !bytes.Equal(again, write(files...)) {
			rt.Fatalf("the dump is another NAR (%v)", err)
		}
		if err := os.RemoveAll(dst); err != nil {
			rt.Fatal(err)
		}
	})
}

// Whatever the range of whatever tree: it is that part of the whole, or refused.
func FuzzRange(f *testing.F) {
	f.Add(0, int64(0), int64(100))
	f.Add(1, int64(90), int64(5))
	f.Add(7, int64(-1), int64(1<<40))
	f.Fuzz(func(t *testing.T, seed int, from, n int64) {
		root := filepath.Join(t.TempDir(), "root")
		files := trees().Example(seed)
		plant(t, root, files...)
		want := write(files...)
		tree, err := Measure(context.Background(), root)
		if err != nil {
			t.Fatal(err)
		}
		if tree.Size() != int64(len(want)) {
			t.Fatalf("measured %d bytes, they are %d", tree.Size(), len(want))
		}
		got, err := writeRange(tree, from, from+n)
		if from < 0 || n < 0 || from+n > int64(len(want)) || from+n < from {
			if err == nil || len(got) > 0 {
				t.Fatalf("[%d, %d) of %d bytes gives %d (%v)", from, from+n, len(want), len(got), err)
			}
		} else if err != nil || !bytes.Equal(got, want[from:from+n]) {
			t.Fatalf("[%d, %d) gives %d other bytes (%v)", from, from+n, len(got), err)
		}
	})
}
