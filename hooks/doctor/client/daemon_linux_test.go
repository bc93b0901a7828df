package client

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestStarted: a process' begin is read as proc(5) has it, also where its name has blanks and brackets.
func TestStarted(t *testing.T) {
	proc := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		file := filepath.Join(proc, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	boot, ok := bootTime(write("stat", "cpu  1 2\nbtime 1000000\nprocesses 3\n"))
	if !ok || boot.Unix() != 1000000 {
		t.Fatal(boot, ok)
	}
	file := write("7/stat", "7 (nix-daemon) S 1 7 7 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4200 0 0")
	if began, comm, ok := started(file, boot); !ok || comm != "nix-daemon" || began.Sub(boot) != 42*time.Second {
		t.Error(began, comm, ok)
	}
	for _, text := range []string{"", "7 (x) S", "7 (x"} {
		if _, _, ok := started(write("8/stat", text), boot); ok {
			t.Errorf("%q is taken", text)
		}
	}
	if _, ok := bootTime(filepath.Join(proc, "none")); ok {
		t.Error("a boot of no file")
	}
}
