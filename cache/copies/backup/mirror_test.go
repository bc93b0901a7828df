package backup

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// TestFolderAtOnce: who needs a folder that another is making waits for it. Else the first
// NARs of a backup could not be linked, and counted as lost.
func TestFolderAtOnce(t *testing.T) {
	from := t.TempDir()
	if err := os.MkdirAll(filepath.Join(from, "cache", "nar"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		if err := os.WriteFile(filepath.Join(from, "cache", "nar", fmt.Sprint(i)), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for range 50 {
		m, err := newMirror(from, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		start := make(chan struct{})
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				<-start
				if err := m.file(t.Context(), filepath.Join("cache", "nar", fmt.Sprint(i))); err != nil {
					t.Error(err)
				}
			})
		}
		close(start)
		all.Wait()
		if err := m.close(); err != nil {
			t.Fatal(err)
		}
	}
}
