package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"narwharf/cache/state"
	"narwharf/cmd/narwharf/server"
	"narwharf/hooks/serverconfig"
)

// A command that is typed while the server is starting, and holds data_dir but
// has no socket yet, waits for it.
func TestCommandWhileTheServerStarts(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(config, []byte("data_dir = \".\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := serverconfig.Load(config)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	d, err := server.Open(cfg, "", log)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	if _, err := server.Open(cfg, "", log); !errors.Is(err, state.ErrInUse) {
		t.Fatalf("a second time: %v", err)
	}
	stop := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		time.Sleep(500 * time.Millisecond) // the command finds data_dir locked, and no socket
		srv, err := d.ServeAdmin()
		if err == nil {
			<-stop
			srv.Close()
		}
		done <- err
	}()
	var out, errs strings.Builder
	if code := run([]string{"token", "list", "--config", config, "--json"}, strings.NewReader(""), &out, &errs); code != 0 {
		t.Errorf("exit %d: %s", code, errs.String())
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
