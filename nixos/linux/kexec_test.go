package linux

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestKexec: what is asked of kexec-tools and systemd, and when it is a reboot instead.
func TestKexec(t *testing.T) {
	const path = "/nix/store/00000000000000000000000000000000-nixos-system-h1"
	const load = "kexec --kexec-syscall-auto --load ROOT/kernel --initrd=ROOT/initrd --append=init=" + path + "/init quiet loglevel=4"
	for name, c := range map[string]struct {
		kexec, systemctl string // the programs; no kexec for ""
		secrets, off     bool
		want             []string
		says             string
	}{
		"by kexec":             {kexec: "exit 0", want: []string{load, "systemctl kexec"}},
		"not wanted":           {kexec: "exit 0", off: true, want: []string{"systemctl reboot"}},
		"loading fails":        {kexec: "echo no memory >&2; exit 1", want: []string{load, "systemctl reboot"}, says: "no memory"},
		"no kexec-tools":       {want: []string{"systemctl reboot"}, says: "kexec"},
		"secrets of an initrd": {kexec: "exit 0", secrets: true, want: []string{"systemctl reboot"}, says: "boot.initrd.secrets"},
		"systemd says no":      {kexec: "exit 0", systemctl: `[ "$1" = reboot ]`, want: []string{load, "systemctl kexec", "kexec --kexec-syscall-auto --unload", "systemctl reboot"}, says: "systemctl"},
	} {
		t.Run(name, func(t *testing.T) {
			root, bin := t.TempDir(), t.TempDir()
			calls := filepath.Join(bin, "calls")
			program := func(name, text string) {
				t.Helper()
				if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\necho "+name+" \"$*\" >> "+calls+"\n"+text+"\n"), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			write := func(name, text string) {
				t.Helper()
				name = filepath.Join(root, name)
				if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("PATH", bin+":/bin") // where there is no kexec
			program("systemctl", c.systemctl)
			if c.kexec != "" {
				program("kexec", c.kexec)
			}
			write(path+"/kernel-params", "quiet loglevel=4\n")
			if c.secrets {
				write(path+"/append-initrd-secrets", "")
			}
			profile := profile{filepath.Join(root, "system")}
			if err := os.Symlink("system-1-link", profile.name); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(path, filepath.Join(root, "system-1-link")); err != nil {
				t.Fatal(err)
			}
			var words bytes.Buffer
			b := &boot{
				profile: profile, systems: systems{root: root, storeDir: "/nix/store"}, kexec: !c.off,
				patience: time.Millisecond, log: slog.New(slog.NewTextHandler(&words, nil)),
			}
			if err := b.Reboot(t.Context()); err == nil || !strings.Contains(err.Error(), "did not end this boot") {
				t.Errorf("it ended, and the machine is up: %v", err)
			}
			text, err := os.ReadFile(calls)
			if err != nil {
				t.Fatal(err)
			}
			want := strings.ReplaceAll(strings.Join(c.want, "\n")+"\n", "ROOT", root+path)
			if string(text) != want {
				t.Errorf("asked\n%s, want\n%s", text, want)
			}
			if !strings.Contains(words.String(), c.says) || c.says == "" && words.Len() > 0 {
				t.Errorf("the log says %s", words.String())
			}
		})
	}
}
