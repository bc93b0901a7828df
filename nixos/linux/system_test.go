package linux

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos/config"
	"narwharf/nixos/remote"
)

// TestParkedPollEnds when a person does something on the host, and not
// otherwise.
func TestParkedPollEnds(t *testing.T) {
	parked := make(chan struct{}, 8)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		parked <- struct{}{}
		<-r.Context().Done()
	}))
	defer server.Close()
	client, err := api.NewClient(api.ClientOptions{Servers: []string{server.URL}})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c := config.Default()
	c.RunDir, c.StateDir, c.Profile = dir, dir, filepath.Join(dir, "system")
	h := remote.New(remote.Options{Client: client, Host: "h1", Channel: "prod", Target: "h1", Look: (&system{config: c}).look})
	defer h.Close(t.Context())
	link := func(name, to string) {
		t.Helper()
		if err := os.Symlink(to, filepath.Join(dir, "tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "tmp"), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("current-system", "/nix/store/a")
	for name, do := range map[string]func(){
		"switch":  func() { link("current-system", "/nix/store/b") },
		"profile": func() { link("system", "system-2-link") },
		"pause": func() {
			if err := WritePause(dir, &api.Hold{Reason: "x", By: "kim"}); err != nil {
				t.Error(err)
			}
		},
	} {
		ended := make(chan error, 1)
		go func() {
			_, _, err := h.Desired(t.Context(), `"x"`, 10*time.Minute)
			ended <- err
		}()
		<-parked
		select {
		case err := <-ended:
			t.Fatalf("%s: it ended before: %v", name, err)
		default:
		}
		do()
		select {
		case err := <-ended:
			if !errors.Is(err, api.ErrNotModified) {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s: nobody looks", name)
		}
	}
	// An agent that is stopped is stopped.
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-parked; cancel() }()
	if _, _, err := h.Desired(ctx, `"x"`, 10*time.Minute); err == nil || errors.Is(err, api.ErrNotModified) {
		t.Error(err)
	}
}
