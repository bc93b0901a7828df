package linux

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRebootOfAHost: what systemctl refuses is told at once; an agent that is
// stopped meanwhile, as by the reboot, has nothing to say.
func TestRebootOfAHost(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	fake := func(script string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "systemctl"), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	var h boot
	fake(`echo "a session is in the way" >&2; exit 1`)
	if err := h.Reboot(t.Context()); err == nil || !strings.Contains(err.Error(), "in the way") {
		t.Error(err)
	}
	fake(`echo "$1" > ` + dir + `/asked`)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for ctx.Err() == nil {
			if text, err := os.ReadFile(dir + "/asked"); err == nil && string(text) == "reboot\n" {
				cancel() // SIGTERM
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	if err := h.Reboot(ctx); err == nil || ctx.Err() == nil {
		t.Error(err)
	}
}

func TestGeneration(t *testing.T) {
	for link, want := range map[string]int64{"system-42-link": 42, "system-0-link": 0, "system-042-link": 0, "system-x-link": 0, "other-1-link": 0, "system-1": 0, "../x": 0} {
		if got := generation("/nix/var/nix/profiles/system", link); got != want {
			t.Errorf("%s: %d", link, got)
		}
	}
}
