package linux

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"narwharf/hooks/api"
	"narwharf/narinfo/clip"
	"narwharf/nixos/config"
)

// FailedUnits implements Units. A unit that waits to be started again has
// failed, too, and may yet come up.
func (h *Host) FailedUnits(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	out, _, err := command(ctx, 1<<20, nil, "systemctl", "list-units", "--all", "--full", "--plain", "--no-legend", "--no-pager", "--state=failed,auto-restart")
	if err != nil {
		return nil, err
	}
	return parseUnits(out), nil
}

// parseUnits reads the first column of systemctl list-units; some versions
// put a dot before it.
func parseUnits(text string) []string {
	var units []string
	for line := range strings.Lines(text) {
		fields := strings.Fields(strings.TrimLeft(line, "●*× \t"))
		if len(fields) > 0 && strings.Contains(fields[0], ".") && fields[0] != switchUnit {
			units = append(units, fields[0])
		}
	}
	slices.Sort(units)
	return slices.Compact(units)
}

// healthDTimeout bounds each check that a system brings along.
const healthDTimeout = 30 * time.Second

// Checks implements Units. They run side by side.
func (h *Host) Checks(ctx context.Context, path string) ([]api.Check, error) {
	todo := slices.Clone(h.Config.Checks)
	if h.Config.HealthD != api.Off {
		dir := filepath.Join(path, "etc", "narwharf", "health.d")
		entries, err := os.ReadDir(h.real(dir))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			todo = append(todo, config.Check{Name: "health.d/" + e.Name(), Mode: h.Config.HealthD, Command: []string{h.real(filepath.Join(dir, e.Name()))}, Timeout: config.Duration(healthDTimeout)})
		}
	}
	var results []api.Check
	var wait sync.WaitGroup
	todo = slices.DeleteFunc(todo, func(c config.Check) bool { return c.Mode == api.Off })
	results = make([]api.Check, len(todo))
	for i, c := range todo {
		wait.Go(func() { results[i] = runCheck(ctx, c) })
	}
	wait.Wait()
	return results, ctx.Err()
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
	out, _, err := command(ctx, 300, nil, c.Command[0], c.Command[1:]...)
	if err != nil && out != "" {
		return fmt.Errorf("%w: %s", err, out)
	}
	return err
}
