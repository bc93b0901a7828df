package linux

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDifferences(t *testing.T) {
	dir := t.TempDir()
	var h systems
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
