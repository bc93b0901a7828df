package linux

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos"
	"narwharf/nixos/config"
)

func TestParseUnits(t *testing.T) {
	got := parseUnits("web.service loaded failed failed Web\n● db.service  loaded activating auto-restart DB\n\nnixos-rebuild-switch-to-configuration.service loaded failed failed x\n")
	if !slices.Equal(got, []string{"db.service", "web.service"}) {
		t.Error(got)
	}
}

func TestOutcome(t *testing.T) {
	for _, c := range []struct {
		r    resultRecord
		exit int
		text string
	}{
		{resultRecord{"success", "exited", "0"}, 0, ""},
		{resultRecord{"exit-code", "exited", "100"}, 100, ""},
		{resultRecord{"timeout", "killed", "TERM"}, -1, "the time limit"},
		{resultRecord{"timeout", "exited", "0"}, -1, "the time limit"},
		{resultRecord{"signal", "killed", "KILL"}, -1, "signal KILL"},
		{resultRecord{"oom-kill", "killed", "KILL"}, -1, "oom-kill killed KILL"},
	} {
		if exit, text := outcome(c.r); exit != c.exit || text != c.text {
			t.Errorf("%+v: %d %q", c.r, exit, text)
		}
	}
}

func TestRecord(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "abc-1-test")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"INVOCATION_ID": "i", "SERVICE_RESULT": "exit-code", "EXIT_CODE": "exited", "EXIT_STATUS": "4"}
	for _, what := range []string{"begin", "end"} {
		if err := Record(dir, what, func(k string) string { return env[k] }); err != nil {
			t.Fatal(err)
		}
	}
	var b begunRecord
	var r resultRecord
	if ok, err := readRecord(filepath.Join(dir, "begun"), &b); !ok || err != nil || b.BootID == "" || b.Invocation != "i" {
		t.Error(b, err)
	}
	if ok, err := readRecord(filepath.Join(dir, "result"), &r); !ok || err != nil || r != (resultRecord{"exit-code", "exited", "4"}) {
		t.Error(r, err)
	}
	if Record(dir, "x", os.Getenv) == nil || Record(filepath.Dir(dir), "begin", os.Getenv) == nil {
		t.Error("it takes anything")
	}
}

func TestGeneration(t *testing.T) {
	for link, want := range map[string]int64{"system-42-link": 42, "system-0-link": 0, "system-042-link": 0, "system-x-link": 0, "other-1-link": 0, "system-1": 0, "../x": 0} {
		if got := generation("/nix/var/nix/profiles/system", link); got != want {
			t.Errorf("%s: %d", link, got)
		}
	}
}

func TestGateways(t *testing.T) {
	dir := t.TempDir()
	v4, v6 := filepath.Join(dir, "route"), filepath.Join(dir, "ipv6_route")
	write := func(name, text string) {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(v4, "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\neth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\neth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n")
	write(v6, "00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003 eth0\n00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200 lo\n")
	if got := gateways(v4, v6); !slices.Equal(got, []string{"192.168.1.1", "fe80::1%eth0"}) {
		t.Error(got)
	}
}

func TestUnitOf(t *testing.T) {
	for text, want := range map[string]string{
		"0::/system.slice/narwharf.service\n":                         "narwharf.service",
		"12:pids:/x\n1:name=systemd:/system.slice/narwharf.service\n": "narwharf.service",
		"0::/user.slice/user-0.slice/session-1.scope\n":               "",
		"": "",
	} {
		if got := unitOf(text); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}

func TestRunArgs(t *testing.T) {
	c := config.Default()
	h := &Host{Config: c, Program: "/bin/narwharf"}
	args := h.runArgs(nixos.Run{ID: "ab-1-test", Path: "/nix/store/x", Action: "test"})
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

func TestPauseFile(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	later := now.Add(time.Hour)
	if err := WritePause(dir, &api.Hold{Reason: "x", By: "kim", Until: &later}); err != nil {
		t.Fatal(err)
	}
	if p, err := ReadPause(dir, now); err != nil || p == nil || p.Reason != "x" {
		t.Error(p, err)
	}
	if p, err := ReadPause(dir, later); err != nil || p != nil {
		t.Error(p, err)
	}
	if err := errors.Join(WritePause(dir, nil), WritePause(dir, nil)); err != nil {
		t.Error(err)
	}
	if p, err := ReadPause(dir, now); err != nil || p != nil {
		t.Error(p, err)
	}
}

func TestDifferences(t *testing.T) {
	dir := t.TempDir()
	h := &Host{Config: config.Default()}
	system := func(name string, files map[string]string, links map[string]string) string {
		d := filepath.Join(dir, name)
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		for f, text := range files {
			if err := os.WriteFile(filepath.Join(d, f), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for l, target := range links {
			if err := os.Symlink(target, filepath.Join(d, l)); err != nil {
				t.Fatal(err)
			}
		}
		return d
	}
	a := system("a", map[string]string{"kernel-params": "quiet", "init-interface-version": "1"}, map[string]string{"kernel": "/nix/store/k1/bzImage", "initrd": "/nix/store/i1/initrd"})
	b := system("b", map[string]string{"kernel-params": "quiet", "init-interface-version": "1"}, map[string]string{"kernel": "/nix/store/k2/bzImage", "initrd": "/nix/store/i1/initrd"})
	c := system("c", map[string]string{"kernel-params": "loud", "init-interface-version": "2"}, nil)
	x := system("x", map[string]string{"reboot-triggers": `{"kernel":"1","firmware":"1"}`, "kernel-params": "a"}, nil)
	y := system("y", map[string]string{"reboot-triggers": `{"kernel":"1","firmware":"2"}`, "kernel-params": "b"}, nil)
	for _, p := range []struct {
		a, b string
		want string
	}{{a, a, ""}, {a, b, "kernel"}, {a, c, "init-interface-version, initrd, kernel, kernel-params"}, {x, y, "firmware"}} {
		if got := strings.Join(h.differences(p.a, p.b), ", "); got != p.want {
			t.Errorf("%s against %s: %q, want %q", p.a, p.b, got, p.want)
		}
	}
	i := system("i", map[string]string{"switch-inhibitors": `{"dbus":"broker","a":"1"}`}, nil)
	k := system("k", map[string]string{"switch-inhibitors": `{"dbus":"dbus","b":"1"}`}, nil)
	if got := h.inhibitors(i, k); strings.Join(got, ", ") != "switch-inhibitors: dbus" {
		t.Error(got)
	}
}
