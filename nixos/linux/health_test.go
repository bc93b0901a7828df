package linux

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
