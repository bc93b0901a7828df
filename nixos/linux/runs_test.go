package linux

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"narwharf/nixos/config"
)

// The unit of a run that is over is there for a moment more: that of a check is
// when the switch comes right after it. Only another's is in the way.
func TestBusyWithOneself(t *testing.T) {
	dir := t.TempDir()
	unit := filepath.Join(dir, "unit")
	script := "#!/bin/sh\nif [ -e '" + unit + "' ]; then echo ActiveState=deactivating; echo \"Description=$(cat '" + unit + "')\"\nelse echo ActiveState=inactive; echo Description=x; fi\n"
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin", "systemctl"), []byte(script), 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	t.Setenv("PATH", filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
	h := &Host{Config: &config.Config{StateDir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run")}}
	const ended, begun = "06b0-1-check", "06b0-2-test"
	for _, id := range []string{ended, begun} {
		if err := os.MkdirAll(h.runDir(id), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(h.runDir(ended), "result"), []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	set := func(description string) {
		t.Helper()
		if err := os.WriteFile(unit, []byte(description), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, other := range []string{"narwharf " + begun, "nixos-rebuild of a person", "narwharf ../../etc"} {
		set(other)
		if busy, err := h.Busy(t.Context()); err != nil || !strings.Contains(busy, other) {
			t.Errorf("%s: busy %q, %v", other, busy, err)
		}
	}
	set("narwharf " + ended)
	gone := make(chan error, 1)
	go func() {
		time.Sleep(300 * time.Millisecond)
		gone <- os.Remove(unit)
	}()
	if busy, err := h.Busy(t.Context()); err != nil || busy != "" {
		t.Errorf("after the end of its own run: busy %q, %v", busy, err)
	}
	if err := <-gone; err != nil {
		t.Fatal(err)
	}
}
