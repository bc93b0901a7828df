package linux

import (
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos/config"
	"narwharf/nixos/journal"
	"narwharf/signing"
)

func TestStatus(t *testing.T) {
	dir := t.TempDir()
	cfg := config.Default()
	cfg.Channel, cfg.Origin, cfg.Target = "prod", "cache.example.org/prod", "web-1"
	cfg.StateDir, cfg.RunDir, cfg.Profile = dir, dir, filepath.Join(dir, "system")
	for name, to := range map[string]string{"current-system": "/nix/store/a", "booted-system": "/nix/store/a", "system-2-link": "/nix/store/b", "system": "system-2-link"} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	until := now.Add(4 * time.Hour)
	if err := WritePause(dir, &api.Hold{Reason: "disk", By: "kim", Until: &until}); err != nil {
		t.Fatal(err)
	}
	exit := 4
	text := Status(cfg, &journal.Journal{
		State: api.Armed, Seq: 7, Refusal: "401: no such token", WaitingFor: &api.Waiting{Kind: api.WaitWindow, Detail: "Sunday"},
		Confirmed: "/nix/store/a", ConfirmedBefore: "/nix/store/z", Denied: map[string]journal.Denial{"sha256:1": {Seq: 3, Path: "/nix/store/x", Reason: "unit web.service: failed"}},
		Attempt: &journal.Attempt{ID: "abc", Phase: journal.Done, Path: "/nix/store/b", Action: signing.Auto, Note: "hooks.post_switch failed",
			Draining:   journal.Draining{Previous: "/nix/store/a", RebootFor: []string{"kernel"}},
			Activation: journal.Activation{SwitchExit: &exit},
			Probation: journal.Probation{Findings: journal.Findings{
				NewFailed: []string{"web.service"}, Checks: []api.Check{{Name: "web", Mode: api.Enforce, Detail: "no"}}, Unconfirmed: true,
			}}},
	}, now)
	for _, line := range []string{
		"state      armed", "channel    prod (cache.example.org/prod)", "target     web-1", "seq        7", "server     401: no such token", "waits for  window: Sunday",
		"paused     until 2026-03-01T16:00:00Z by kim: disk", "runs       /nix/store/a", "will boot  /nix/store/b", "confirmed  /nix/store/a", "before it  /nix/store/z",
		"wanted     /nix/store/b", "action     auto", "attempt    abc, in phase done", "goes back  /nix/store/a", "exit       4 of switch-to-configuration", "reboot for kernel",
		"new failed web.service", "check      web (enforce): no", "confirm    none: committed without the server's word", "note       hooks.post_switch failed",
		"denied     /nix/store/x (seq 3): unit web.service: failed",
	} {
		if !strings.Contains("\n"+text, "\n"+line+"\n") {
			t.Errorf("no line %q in\n%s", line, text)
		}
	}
	if strings.Contains(text, "booted") {
		t.Errorf("what is booted runs:\n%s", text)
	}
}

// TestMetricsTable holds what the agent exports against docs/metrics.md: names,
// types, labels.
func TestMetricsTable(t *testing.T) {
	name := filepath.Join(t.TempDir(), "narwharf.prom")
	file := &textfile{name: name, log: slog.New(slog.DiscardHandler)}
	file.observe(&api.Status{State: api.OK, Durations: map[string]int64{"total": 1500}}, &journal.Journal{Alarm: "x"})
	page, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "narwharf_agent_duration_seconds{part=\"total\"} 1.5\n") ||
		!strings.Contains(string(page), "narwharf_agent_state{state=\"ok\"} 1\n") || !strings.Contains(string(page), "narwharf_agent_alarm 1\n") {
		t.Errorf("%s", page)
	}
	kinds, shown := map[string]string{}, map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\w+) (\w+)$`).FindAllStringSubmatch(string(page), -1) {
		kinds[m[1]] = m[2]
	}
	for _, m := range regexp.MustCompile(`(?m)^(\w+)(?:\{(\w+)=.*\})? \S+$`).FindAllStringSubmatch(string(page), -1) {
		shown[m[1]] = fmt.Sprintf("%s [%s]", kinds[m[1]], m[2])
	}
	doc, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(doc), "\n## The agent\n")
	section, _, _ = strings.Cut(section, "\n## ")
	documented := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (\\w+) \\| ([^|]*) \\| \\S").FindAllStringSubmatch(section, -1) {
		documented[m[1]] = fmt.Sprintf("%s [%s]", m[2], strings.Trim(m[3], "`– "))
	}
	if !maps.Equal(shown, documented) {
		for _, n := range slices.Sorted(maps.Keys(shown)) {
			t.Logf("exported: %s %s", n, shown[n])
		}
		t.Errorf("docs/metrics.md has %v", documented)
	}
}

// node_exporter's folder may be one that others write to, and the agent's unit has
// UMask=0077: the file is there for all to read, and a link that somebody put in its
// place, or in the place of any name that could be guessed, leads nowhere.
func TestMetricsAmongOthers(t *testing.T) {
	umask := syscall.Umask(0o077)
	defer syscall.Umask(umask)
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "x.prom")
	for _, planted := range []string{name, name + ".tmp", name + ".new", filepath.Join(dir, ".x.prom.tmp")} {
		if err := os.Symlink(victim, planted); err != nil {
			t.Fatal(err)
		}
	}
	(&textfile{name: name, log: slog.New(slog.DiscardHandler)}).observe(&api.Status{State: api.OK}, &journal.Journal{})
	st, err := os.Lstat(name)
	if err != nil || st.Mode() != 0o644 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if text, err := os.ReadFile(victim); err != nil || string(text) != "theirs" {
		t.Errorf("the victim has %q, %v", text, err)
	}
	if st, err := os.Stat(victim); err != nil || st.Mode() != 0o600 {
		t.Errorf("the victim is %v, %v", st.Mode(), err)
	}
}
