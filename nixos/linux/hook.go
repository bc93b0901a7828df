package linux

import (
	"context"
	"fmt"
	"time"

	"narwharf/narinfo/clip"
	"narwharf/nixos"
)

// Hook implements System.
func (h *Host) Hook(ctx context.Context, name nixos.HookName, env []string) error {
	argv := h.Config.Hook(name)
	if len(argv) == 0 {
		return nil // it was taken out of the configuration since
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(h.Config.Hooks.Timeout))
	defer cancel()
	out, _, err := command(ctx, 4096, env, argv[0], argv[1:]...)
	if out != "" {
		h.Log.Info("hook", "name", name, "output", out)
	}
	if err != nil && out != "" {
		return fmt.Errorf("%w (%s)", err, clip.Text(out, 300))
	}
	return err
}
