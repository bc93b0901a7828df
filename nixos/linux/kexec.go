package linux

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"narwharf/nixos/linux/sys"
)

// bySyscall lets the kernel itself read the files (kexec_file_load(2)), which looks at their signatures, as under lockdown it
// has to (kernel_lockdown(7)); where it cannot, kexec reads them. A kernel that is refused is loaded by neither.
const bySyscall = "--kexec-syscall-auto"

// viaKexec lets the kernel of the system profile take over from this one, as it tells systemd; false where it has
// to be a reboot through the firmware, for which the log has the reason.
func (b *boot) viaKexec(ctx context.Context) bool {
	err := b.load(ctx)
	if err == nil {
		if _, _, err = sys.Run(ctx, 4096, nil, "systemctl", "kexec"); err == nil {
			return true
		}
		_, _, _ = sys.Run(ctx, 4096, nil, "kexec", bySyscall, "--unload") // else a reboot would take it
	}
	b.log.Warn("kexec is not possible, so this is a reboot through the firmware", "error", err)
	return false
}

// load loads what the boot loader would start. systemctl kexec alone loads nothing on machines
// without systemd-boot's entries.
func (b *boot) load(ctx context.Context) error {
	path, err := b.link(b.name)
	if err == nil && path == "" {
		err = fmt.Errorf("%s is not there", b.name)
	}
	if err != nil {
		return err
	}
	dir := b.real(path)
	if _, err := os.Lstat(filepath.Join(dir, "append-initrd-secrets")); err == nil {
		return errors.New("the boot loader's copy of the initrd has secrets (boot.initrd.secrets) that the system's own has not")
	}
	params, err := os.ReadFile(filepath.Join(dir, "kernel-params"))
	if err != nil {
		return err
	}
	args := []string{
		bySyscall, "--load", filepath.Join(dir, "kernel"), "--initrd=" + filepath.Join(dir, "initrd"),
		"--append=init=" + filepath.Join(path, "init") + " " + strings.TrimSpace(string(params)),
	}
	if _, _, err := sys.Run(ctx, 4096, nil, "kexec", args...); err != nil {
		return fmt.Errorf("load %s: %w", path, err)
	}
	return nil
}
