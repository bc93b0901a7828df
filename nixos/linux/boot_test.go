package linux

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"narwharf/nixos/linux/sys"
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

// TestBootRoomOfMounts: file systems that are really mounted, where nobody has said that a boot loader
// has its files there. One that is full is no place for a boot entry.
func TestBootRoomOfMounts(t *testing.T) {
	missing := testing.TB.Skip
	if os.Getenv("NARWHARF_CI") == "1" {
		missing = testing.TB.Fatal
	}
	if os.Getuid() != 0 {
		missing(t, "needs root")
	}
	for kind, c := range map[string]struct{ make, holds string }{
		"vfat": {"mkfs.vfat", "EFI/BOOT/BOOTX64.EFI"},
		"ext4": {"mkfs.ext4", "grub/grub.cfg"},
	} {
		t.Run(kind, func(t *testing.T) {
			if _, err := exec.LookPath(c.make); err != nil {
				missing(t, "needs ", c.make)
			}
			dir := t.TempDir()
			image, mount := filepath.Join(dir, "image"), filepath.Join(dir, "a mirror")
			if err := os.WriteFile(image, make([]byte, 8<<20), 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command(c.make, image).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if err := os.Mkdir(mount, 0o755); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("mount", "-t", kind, "-o", "loop", image, mount).CombinedOutput(); err != nil {
				t.Skipf("this kernel mounts no image of %s: %s", kind, out)
			}
			t.Cleanup(func() {
				if out, err := exec.Command("umount", mount).CombinedOutput(); err != nil {
					t.Errorf("%v: %s", err, out)
				}
			})
			if slices.Contains(sys.BootMounts(), mount) {
				t.Error("nobody boots from it")
			}
			files(t, mount, map[string]string{c.holds: "x"})
			if got := sys.BootMounts(); !slices.Contains(got, mount) {
				t.Errorf("%q is not among %q", mount, got)
			}
			b := &boot{systems: systems{storeDir: dir}, stateDir: dir, profile: profile{filepath.Join(dir, "system")}}
			if err := b.Sync(t.Context()); err != nil {
				t.Error(err)
			}
			if err := b.BootRoom(t.Context()); err != nil {
				t.Error(err)
			}
			full, err := os.Create(filepath.Join(mount, "initrd"))
			if err != nil {
				t.Fatal(err)
			}
			defer full.Close()
			for block := bytes.Repeat([]byte("x"), 4096); err == nil; {
				_, err = full.Write(block)
			}
			if err := b.BootRoom(t.Context()); err == nil || !strings.Contains(err.Error(), "a full "+mount) {
				t.Errorf("a full one: %v", err)
			}
		})
	}
}
