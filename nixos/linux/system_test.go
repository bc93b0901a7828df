package linux

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
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
			_, _, err := h.Desired(t.Context(), `"x"`, api.Have{}, 10*time.Minute)
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
	if _, _, err := h.Desired(ctx, `"x"`, api.Have{}, 10*time.Minute); err == nil || errors.Is(err, api.ErrNotModified) {
		t.Error(err)
	}
}

func TestPauseFile(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	later := now.Add(time.Hour)
	if err := WritePause(dir, &api.Hold{Reason: "x", By: "kim", Until: &later}); err != nil {
		t.Fatal(err)
	}
	if p, err := ReadPause(dir, now); err != nil || p == nil || p.Reason != "x" {
		t.Error(p, err)
	}
	if p, err := ReadPause(dir, later); err != nil || p != nil {
		t.Error(p, err)
	}
	if err := errors.Join(WritePause(dir, nil), WritePause(dir, nil)); err != nil {
		t.Error(err)
	}
	if p, err := ReadPause(dir, now); err != nil || p != nil {
		t.Error(p, err)
	}
}

func TestDifferences(t *testing.T) {
	dir := t.TempDir()
	var h systems
	system := func(name string, files map[string]string, links map[string]string) string {
		d := filepath.Join(dir, name)
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		for f, text := range files {
			if err := os.WriteFile(filepath.Join(d, f), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for l, target := range links {
			if err := os.Symlink(target, filepath.Join(d, l)); err != nil {
				t.Fatal(err)
			}
		}
		return d
	}
	a := system("a", map[string]string{"kernel-params": "quiet", "init-interface-version": "1"}, map[string]string{"kernel": "/nix/store/k1/bzImage", "initrd": "/nix/store/i1/initrd"})
	b := system("b", map[string]string{"kernel-params": "quiet", "init-interface-version": "1"}, map[string]string{"kernel": "/nix/store/k2/bzImage", "initrd": "/nix/store/i1/initrd"})
	c := system("c", map[string]string{"kernel-params": "loud", "init-interface-version": "2"}, nil)
	x := system("x", map[string]string{"reboot-triggers": `{"kernel":"1","firmware":"1"}`, "kernel-params": "a"}, nil)
	y := system("y", map[string]string{"reboot-triggers": `{"kernel":"1","firmware":"2"}`, "kernel-params": "b"}, nil)
	for _, p := range []struct {
		a, b string
		want string
	}{{a, a, ""}, {a, b, "kernel"}, {a, c, "init-interface-version, initrd, kernel, kernel-params"}, {x, y, "firmware"}} {
		if got := strings.Join(h.differences(p.a, p.b), ", "); got != p.want {
			t.Errorf("%s against %s: %q, want %q", p.a, p.b, got, p.want)
		}
	}
	i := system("i", map[string]string{"switch-inhibitors": `{"dbus":"broker","a":"1"}`}, nil)
	k := system("k", map[string]string{"switch-inhibitors": `{"dbus":"dbus","b":"1"}`}, nil)
	if got := h.inhibitors(i, k); strings.Join(got, ", ") != "switch-inhibitors: dbus" {
		t.Error(got)
	}
}

// TestUnitOfSystem: everything that systemd reads of a unit tells two systems apart, and nothing of others.
func TestUnitOfSystem(t *testing.T) {
	dir := t.TempDir()
	write := func(system, file, text string) {
		name := filepath.Join(dir, system, "etc", "systemd", "system", file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	var s systems
	for i, c := range []struct {
		file, unit string
		changed    bool
	}{
		{"web.service", "web.service", true}, {"web.service.d/a.conf", "web.service", true}, {"web@.service", "web@a.b.service", true},
		{"web@.service.d/a.conf", "web@a.service", true}, {"web@a.service.d/a.conf", "web@a.service", true}, {"service.d/all.conf", "web.service", true},
		{"web-.service.d/a.conf", "web-front-1.service", true}, {"web-front-.service.d/a.conf", "web-front-1.service", true}, {"service.d/all.conf", "web@a.service", true},
		{"db.service", "web.service", false}, {"timer.d/all.conf", "web.service", false}, {"web-.service.d/a.conf", "web.service", false},
		{"web-.service.d/a.conf", "website.service", false}, {"db-.service.d/a.conf", "web-db.service", false}, {"web@b.service", "web@a.service", false},
	} {
		a, b := fmt.Sprint(i, "a"), fmt.Sprint(i, "b")
		write(a, c.file, "one")
		write(b, c.file, "two")
		if got := s.unit(filepath.Join(dir, a), c.unit) != s.unit(filepath.Join(dir, b), c.unit); got != c.changed {
			t.Errorf("%s, of which %s is another: changed %v", c.unit, c.file, got)
		}
	}
}
