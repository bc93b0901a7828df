//go:build linux

package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// findNarwharf is the program to measure: NARWHARF_BIN, or one built from this
// tree into dir.
func findNarwharf(dir string) (string, error) {
	if binary := os.Getenv("NARWHARF_BIN"); binary != "" {
		return filepath.Abs(binary)
	}
	binary := filepath.Join(dir, "narwharf")
	cmd := exec.Command("go", "build", "-o", binary, "narwharf/cmd/narwharf")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build narwharf (or name a binary in NARWHARF_BIN): %w\n%s", err, out)
	}
	return binary, nil
}

// startNarwharf runs an empty cache in dir, which must not exist, with one
// signing key and a token for uploads: what `narwharf init` sets up. If root is
// not empty, it also serves the Nix store below it. limits are lines of [limits].
func startNarwharf(binary, dir, root string, limits ...string) (*server, error) {
	return startNarwharfOn(loopback, binary, dir, root, limits...)
}

func startNarwharfOn(host, binary, dir, root string, limits ...string) (*server, error) {
	sections := ""
	if root != "" {
		sections += fmt.Sprintf("\n[cache]\nserve_store = true\nstore_root = %q\n", root)
	}
	if len(limits) > 0 {
		sections += "\n[limits]\n" + strings.Join(limits, "\n") + "\n"
	}
	key, err := output(binary, "key", "generate", "bench-1")
	if err != nil {
		return nil, err
	}
	return startWith(host, binary, dir, key, sections)
}

// startWith runs a cache with a signing key and further sections of its configuration.
func startWith(host, binary, dir string, key []byte, sections string) (*server, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	addr, err := freeAddrOn(host)
	if err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "config.toml")
	text := fmt.Sprintf("listen = [%q]\ndata_dir = %q\n\n[signing]\nsecret_key_files = [%q]\nsign_uploads = true\n\n[access]\nanonymous = [\"pull\"]\n%s",
		addr, "data", "bench.sec", sections)
	if err := os.WriteFile(filepath.Join(dir, "bench.sec"), key, 0o600); err != nil {
		return nil, err
	}
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return nil, err
	}
	token, err := output(binary, "token", "new", "--config", config, "--name", "push-"+filepath.Base(dir), "--scope", "push") // servers may share a state
	if err != nil {
		return nil, err
	}
	admin, err := output(binary, "token", "new", "--config", config, "--name", "admin-"+filepath.Base(dir), "--scope", "admin") // the last delivery knows no scope metrics
	if err != nil {
		return nil, err
	}
	s, err := start("Narwharf", addr, dir, exec.Command(binary, "serve", "--config", config))
	if err != nil {
		return nil, err
	}
	s.admin = strings.TrimSpace(string(admin))
	s.put, s.token, s.nars = addr, strings.TrimSpace(string(token)), filepath.Join(dir, "data", "cache", "nar")
	s.newToken = func(name, scope string) (string, error) {
		token, err := output(binary, "token", "new", "--config", config, "--name", name, "--scope", scope)
		return strings.TrimSpace(string(token)), err
	}
	return s, s.ready()
}

// ready waits until the server answers as a cache.
func (s *server) ready() error {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get("http://" + s.addr + "/nix-cache-info")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = fmt.Errorf("status %s", resp.Status)
		}
		if time.Now().After(deadline) {
			s.stop()
			return fmt.Errorf("%s does not serve /nix-cache-info: %w; it said:\n%s", s.name, err, s.said())
		}
	}
}

func output(binary string, args ...string) ([]byte, error) {
	cmd := exec.Command(binary, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("narwharf %s: %w\n%s", strings.Join(args[:2], " "), err, &stderr)
	}
	return out, nil
}
