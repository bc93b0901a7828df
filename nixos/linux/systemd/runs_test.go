package systemd

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"narwharf/nixos/journal"
)

// The unit of a run that is over is there for a moment more: that of a check is
// when the switch comes right after it. Only another's is in the way.
func TestBusyWithOneself(t *testing.T) {
	dir := t.TempDir()
	unit := filepath.Join(dir, "unit")
	script := "#!/bin/sh\nif description=$(cat '" + unit + "' 2> /dev/null); then echo ActiveState=deactivating; echo \"Description=$description\"\nelse echo ActiveState=inactive; echo Description=x; fi\n"
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin", "systemctl"), []byte(script), 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	t.Setenv("PATH", filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
	h := &Runs{Dir: filepath.Join(dir, "runs"), RunDir: filepath.Join(dir, "run")}
	const ended, begun = "06b0-1-check", "06b0-2-test"
	for _, id := range []string{ended, begun} {
		if err := os.MkdirAll(h.dir(id), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(h.dir(ended), "result"), []byte("{}\n"), 0o600); err != nil {
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

func TestRunArgs(t *testing.T) {
	h := &Runs{Dir: "/nix/var/narwharf/runs", Program: "/bin/narwharf", Timeout: 15 * time.Minute}
	args := h.args(journal.Run{ID: "ab-1-test", Path: "/nix/store/x", Action: "test"})
	for _, want := range []string{
		"--unit=nixos-rebuild-switch-to-configuration.service", "--collect", "--service-type=exec",
		"--property=ExecStartPre=/bin/narwharf agent record /nix/var/narwharf/runs/ab-1-test begin",
		"--property=ExecStopPost=/bin/narwharf agent record /nix/var/narwharf/runs/ab-1-test end", "--property=RuntimeMaxSec=900",
	} {
		if !slices.Contains(args, want) {
			t.Errorf("no %s in %q", want, args)
		}
	}
	if !slices.Equal(args[len(args)-3:], []string{"--", "/nix/store/x/bin/switch-to-configuration", "test"}) {
		t.Error(args)
	}
}
