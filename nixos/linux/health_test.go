package linux

import (
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos/config"
	"narwharf/nixos/effect"
	"narwharf/nixos/journal"
	"narwharf/nixos/machine"
)

func hookHost(t *testing.T, argv ...string) *health {
	t.Helper()
	c := config.Default()
	c.Hooks.PreSwitch = argv
	return &health{config: c, log: slog.New(slog.DiscardHandler)}
}

func TestHookOfAHost(t *testing.T) {
	a := &journal.Attempt{Phase: journal.PreSwitch, ID: "abc", Seq: 7, Action: "auto", Path: "/nix/store/b", Draining: journal.Draining{Previous: "/nix/store/a"}, After: "ok"}
	out := filepath.Join(t.TempDir(), "out")
	h := hookHost(t, "/bin/sh", "-c", `echo "$NARWHARF_ATTEMPT $NARWHARF_SEQ $NARWHARF_ACTION $NARWHARF_PATH $NARWHARF_PREVIOUS $NARWHARF_STATE" > `+out)
	if err := h.Hook(t.Context(), effect.HookPreSwitch, new(machine.Machine).Effect(&journal.Journal{Attempt: a}).(effect.RunHook).Env); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(out); err != nil || string(text) != "abc 7 auto /nix/store/b /nix/store/a ok\n" {
		t.Errorf("%q %v", text, err)
	}
	if err := h.Hook(t.Context(), effect.HookPostSwitch, nil); err != nil {
		t.Errorf("a hook that is not there: %v", err)
	}
	err := hookHost(t, "/bin/sh", "-c", "echo three backends left; exit 3").Hook(t.Context(), effect.HookPreSwitch, nil)
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "three backends") {
		t.Error(err)
	}
	if err := hookHost(t, "/does/not/exist").Hook(t.Context(), effect.HookPreSwitch, nil); err == nil {
		t.Error("a program that is not there")
	}
}

// TestHookThatHangs is ended with all that it started.
func TestHookThatHangs(t *testing.T) {
	h := hookHost(t, "/bin/sh", "-c", "sleep 1000 & sleep 1000")
	h.config.Hooks.Timeout = config.Duration(100 * time.Millisecond)
	if err := h.Hook(t.Context(), effect.HookPreSwitch, nil); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Error(err)
	}
}

// A system brings checks along that decide, and such as are looked at only.
func TestChecksOfASystem(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"health.d/web": "exit 0", "health.d/db": "echo no database; exit 1", "health.observe.d/slow": "exit 1"} {
		name = filepath.Join(dir, "etc", "narwharf", name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	h := hookHost(t)
	h.systems = systems{storeDir: dir}
	found, err := h.Checks(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	is := make(map[string]string)
	for _, c := range found {
		is[c.Name] = strings.TrimSpace(fmt.Sprintf("%s %v %s", c.Mode, c.OK, strings.TrimPrefix(c.Detail, filepath.Join(dir, "etc", "narwharf", c.Name)+":")))
	}
	want := map[string]string{"health.d/web": "enforce true", "health.d/db": "enforce false  exit status 1: no database", "health.observe.d/slow": "observe false  exit status 1"}
	if !maps.Equal(is, want) {
		t.Errorf("%q, want %q", is, want)
	}
	h.config.HealthD = api.Off
	if found, err := h.Checks(t.Context(), dir); err != nil || len(found) > 0 {
		t.Errorf("with health_d = off: %v, %v", found, err)
	}
}
