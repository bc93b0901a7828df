package linux

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"narwharf/nixos"
	"narwharf/nixos/config"
)

func hookHost(t *testing.T, argv ...string) *Host {
	t.Helper()
	c := config.Default()
	c.Hooks.PreSwitch = argv
	return &Host{Config: c, Log: slog.New(slog.DiscardHandler)}
}

func TestHookOfAHost(t *testing.T) {
	a := &nixos.Attempt{Phase: nixos.PhasePre, ID: "abc", Seq: 7, Action: "auto", Path: "/nix/store/b", Previous: "/nix/store/a", After: "ok"}
	out := filepath.Join(t.TempDir(), "out")
	h := hookHost(t, "/bin/sh", "-c", `echo "$NARWHARF_ATTEMPT $NARWHARF_SEQ $NARWHARF_ACTION $NARWHARF_PATH $NARWHARF_PREVIOUS $NARWHARF_STATE" > `+out)
	if err := h.Hook(t.Context(), nixos.HookPreSwitch, new(nixos.Machine).Effect(&nixos.Journal{Attempt: a}).(nixos.RunHook).Env); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(out); err != nil || string(text) != "abc 7 auto /nix/store/b /nix/store/a ok\n" {
		t.Errorf("%q %v", text, err)
	}
	if err := h.Hook(t.Context(), nixos.HookPostSwitch, nil); err != nil {
		t.Errorf("a hook that is not there: %v", err)
	}
	err := hookHost(t, "/bin/sh", "-c", "echo three backends left; exit 3").Hook(t.Context(), nixos.HookPreSwitch, nil)
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "three backends") {
		t.Error(err)
	}
	if err := hookHost(t, "/does/not/exist").Hook(t.Context(), nixos.HookPreSwitch, nil); err == nil {
		t.Error("a program that is not there")
	}
}

// TestHookThatHangs is ended with all that it started.
func TestHookThatHangs(t *testing.T) {
	h := hookHost(t, "/bin/sh", "-c", "sleep 1000 & sleep 1000")
	h.Config.Hooks.Timeout = config.Duration(100 * time.Millisecond)
	if err := h.Hook(t.Context(), nixos.HookPreSwitch, nil); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Error(err)
	}
}

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
	h := hookHost(t)
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

// TestStateIsBelowNix: with a root of tmpfs /nix is all that there is after a
// boot. What else is used comes with the system, or is of one boot.
func TestStateIsBelowNix(t *testing.T) {
	c := config.Default()
	for _, p := range []string{c.StateDir, c.StoreDir, c.NixState, c.Profile} {
		if !strings.HasPrefix(p, "/nix/") {
			t.Errorf("%s", p)
		}
	}
	if c.RunDir != "/run" || c.TokenFile != "" || c.CAFile != "" || c.Metrics.Textfile != "" {
		t.Errorf("%+v", c)
	}
	var files []string
	for _, pattern := range []string{"../*.go", "../config/*.go", "../linux/*.go", "../linux/*/*.go", "../journal/*.go", "../machine/*.go", "../relay/*.go", "../remote/*.go"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, dir := range []string{`"/var/`, `"/etc/`, `"/tmp`, `"/root`, "os.TempDir", "os.MkdirTemp", "os.CreateTemp", "UserHomeDir", "UserCacheDir"} {
			if !strings.HasSuffix(name, "_test.go") && strings.Contains(strings.ReplaceAll(string(text), `"/etc/machine-id"`, ""), dir) {
				t.Errorf("%s uses %s", name, dir)
			}
		}
	}
}
