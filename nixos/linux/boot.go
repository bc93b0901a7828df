package linux

import (
	"context"
	"fmt"
	"os"
	"time"

	"narwharf/nixos/linux/command"
	"narwharf/nixos/linux/kernel"
)

// A boot implements nixos.Boot.
type boot struct {
	profile
	systems
	stateDir string
}

// rebootPatience is how long a host may take to go down.
const rebootPatience = 10 * time.Minute

// Reboot implements nixos.Boot. The agent's end comes with the host's.
func (b *boot) Reboot(ctx context.Context) error {
	asking, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if _, _, err := command.Run(asking, 4096, nil, "systemctl", "reboot"); err != nil {
		return err
	}
	if err := sleep(ctx, rebootPatience); err != nil {
		return err
	}
	return fmt.Errorf("systemctl reboot did not end this boot in %s", rebootPatience)
}

// Sync implements nixos.Boot.
func (b *boot) Sync(context.Context) error {
	for _, d := range []string{b.real(b.storeDir), b.stateDir, b.dir(), "/boot", "/efi", "/boot/efi"} {
		if _, err := os.Stat(d); err != nil {
			continue
		}
		if err := kernel.Sync(d); err != nil {
			return fmt.Errorf("sync %s: %w", d, err)
		}
	}
	return nil
}

// BootRoom implements nixos.Boot.
func (b *boot) BootRoom(context.Context) error {
	for _, d := range []string{"/boot", "/efi", "/boot/efi"} {
		own, err := kernel.Mounted(d)
		if err != nil || !own { // the root's room is min_free's business
			continue
		}
		if free, err := kernel.Free(d); err == nil && free == 0 {
			return fmt.Errorf("a full %s", d)
		}
	}
	return nil
}
