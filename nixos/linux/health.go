package linux

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"narwharf/hooks/api"
	"narwharf/narinfo/clip"
	"narwharf/nixos/config"
	"narwharf/nixos/effect"
	"narwharf/nixos/linux/sys"
	"narwharf/nixos/linux/systemd"
)

// A health implements nixos.Health.
type health struct {
	config  *config.Config
	systems systems
	log     *slog.Logger
}

func (h *health) Units(ctx context.Context, from, to string) ([]effect.Unit, error) {
	return systemd.Units(ctx, func(unit string) bool { return from == "" || h.systems.unit(from, unit) != h.systems.unit(to, unit) })
}

// healthDTimeout bounds each check that a system brings along.
const healthDTimeout = 30 * time.Second

// Checks run side by side.
func (h *health) Checks(ctx context.Context, path string) ([]api.Check, error) {
	todo := slices.Clone(h.config.Checks)
	enforced, err := h.broughtAlong(path, "health.d", h.config.HealthD)
	if err != nil {
		return nil, err
	}
	observed, err := h.broughtAlong(path, "health.observe.d", api.Observe)
	if err != nil {
		return nil, err
	}
	todo = append(append(todo, enforced...), observed...)
	var wait sync.WaitGroup
	todo = slices.DeleteFunc(todo, func(c config.Check) bool { return c.Mode == api.Off })
	results := make([]api.Check, len(todo))
	for i, c := range todo {
		wait.Go(func() { results[i] = runCheck(ctx, c) })
	}
	wait.Wait()
	return results, ctx.Err()
}

// broughtAlong are the checks in a folder of a system's etc/narwharf, none if it has no such folder.
func (h *health) broughtAlong(path, folder string, mode api.CheckMode) (checks []config.Check, err error) {
	if h.config.HealthD == api.Off {
		return nil, nil
	}
	dir := filepath.Join(path, "etc", "narwharf", folder)
	entries, err := os.ReadDir(h.systems.real(dir))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		checks = append(checks, config.Check{Name: folder + "/" + e.Name(), Mode: mode, Command: []string{h.systems.real(filepath.Join(dir, e.Name()))}, Timeout: config.Duration(healthDTimeout)})
	}
	return checks, nil
}

func runCheck(ctx context.Context, c config.Check) api.Check {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(c.Timeout))
	defer cancel()
	start := time.Now()
	err := tryCheck(ctx, c)
	r := api.Check{Name: c.Name, Mode: c.Mode, OK: err == nil, Duration: time.Since(start).Milliseconds()}
	if err != nil {
		r.Detail = clip.Text(err.Error(), 300)
	}
	return r
}

func tryCheck(ctx context.Context, c config.Check) error {
	switch {
	case c.HTTP != "":
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.HTTP, nil)
		if err != nil {
			return err
		}
		t := &http.Transport{DisableKeepAlives: true} // no proxy: it is this host that is asked about
		defer t.CloseIdleConnections()
		resp, err := (&http.Client{Transport: t}).Do(req)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode >= 400 {
			return fmt.Errorf("GET %s: %s", c.HTTP, resp.Status)
		}
		return nil
	case c.TCP != "":
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", c.TCP)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	out, _, err := sys.Run(ctx, 300, nil, c.Command[0], c.Command[1:]...)
	if err != nil && out != "" {
		return fmt.Errorf("%w: %s", err, out)
	}
	return err
}

func (h *health) Hook(ctx context.Context, name effect.HookName, env []string) error {
	argv := h.config.Hook(name)
	if len(argv) == 0 {
		return nil // it was taken out of the configuration since
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(h.config.Hooks.Timeout))
	defer cancel()
	out, _, err := sys.Run(ctx, 4096, env, argv[0], argv[1:]...)
	if out != "" {
		h.log.Info("hook", "name", name, "output", out)
	}
	if err != nil && out != "" {
		return fmt.Errorf("%w (%s)", err, clip.Text(out, 300))
	}
	return err
}
