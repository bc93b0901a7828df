package linux

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"narwharf/cache/nixstore"
	"narwharf/narinfo"
	"narwharf/nixos"
	"narwharf/nixos/config"
)

// Path implements Store.
func (h *Host) Path(ctx context.Context, p narinfo.Path) (*nixos.StorePath, error) {
	i, err := h.lookUp(ctx, p)
	if errors.Is(err, nixstore.ErrUnavailable) {
		if err := h.keepOpen(ctx); err != nil {
			return nil, err
		}
		i, err = h.lookUp(ctx, p)
	}
	if errors.Is(err, nixstore.ErrNotValid) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &nixos.StorePath{Info: i.Info, Ultimate: i.Ultimate}, nil
}

func (h *Host) lookUp(ctx context.Context, p narinfo.Path) (*nixstore.PathInfo, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.store == nil {
		s, err := nixstore.Open(nixstore.Options{StoreDir: h.Config.StoreDir, Root: h.Config.StoreRoot, StateDir: h.Config.NixState})
		if err != nil {
			return nil, err
		}
		h.store = s
	}
	return h.store.PathInfo(ctx, p)
}

// keepOpen lets a Nix process hold the store's database open for a minute.
// Without nix-daemon Nix before 2.22 removes the database's -wal file when its
// last process ends, and then nobody else can read it; a store that was never
// used has no database at all.
func (h *Host) keepOpen(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.holder != nil {
		h.holder()
	}
	// It opens the store and waits for a client's greeting.
	cmd := exec.Command("nix-store", "--serve")
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run nix-store: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait() //nolint:errcheck // it ends because its input does
		close(ended)
	}()
	stop := sync.OnceFunc(func() {
		in.Close()
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			cmd.Process.Kill() //nolint:errcheck // it has ended
		}
	})
	h.holder = stop
	time.AfterFunc(time.Minute, stop)
	wal := filepath.Join(h.Config.NixState, "db", "db.sqlite-wal")
	for range 100 {
		if _, err := os.Stat(wal); err == nil {
			return nil
		}
		select {
		case <-ended:
			return errors.New("nix-store --serve ended at once: the Nix store does not work")
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil // it may be behind nix-daemon
}

func (h *Host) root(name string) string { return filepath.Join(h.Config.StateDir, "gcroots", name) }

// rootArgs makes an indirect root, the same way in Nix 2.8 to 2.34: newer ones
// ignore --indirect, since all roots outside of gcroots/ are that.
func (h *Host) rootArgs(name string) []string {
	return []string{"--add-root", h.root(name), "--indirect"}
}

// realiseArgs are those of nix-store. Nothing is built, nothing comes from
// another cache, and no memory of what the cache had counts.
func (h *Host) realiseArgs(p narinfo.Path, root string, substituters []string) []string {
	c := h.Config
	keys := c.ContentKeys
	if c.Trust == config.TrustServer {
		keys = append(append([]string{}, keys...), c.ServerKeys...)
	}
	args := append([]string{"--realise", p.In(c.StoreDir)}, h.rootArgs(root)...)
	for _, o := range [][2]string{
		{"substituters", strings.Join(substituters, " ")},
		{"trusted-public-keys", strings.Join(keys, " ")},
		{"require-sigs", "true"},
		{"substitute", "true"},
		{"narinfo-cache-negative-ttl", "0"},
		{"narinfo-cache-positive-ttl", "0"},
		{"fallback", "false"},
		{"builders", ""},
		{"max-jobs", "0"},
		{"connect-timeout", "15"},
		{"stalled-download-timeout", "60"},
		{"netrc-file", h.netrcFile()},
	} {
		args = append(args, "--option", o[0], o[1])
	}
	if n := c.Download.Rate.Connections(); c.Download.Rate > 0 && n < config.NixConnections {
		args = append(args, "--option", "http-connections", strconv.Itoa(n))
	}
	return append(args, c.NixOptions...)
}

// substituters are the servers' URLs, the one that answered last first: Nix
// takes its time with one that does not.
func (h *Host) substituters() []string {
	if h.Config.CacheURL != "" {
		return []string{h.Config.CacheURL}
	}
	urls := []string{h.Client.Server()}
	for _, s := range h.Config.Servers {
		if s = strings.TrimRight(s, "/"); !slices.Contains(urls, s) {
			urls = append(urls, s)
		}
	}
	return urls
}

func (h *Host) netrcFile() string { return filepath.Join(h.Config.StateDir, "netrc") }

// writeNetrc gives Nix the token, for a cache that is not open to all.
func (h *Host) writeNetrc(substituters []string) error {
	var b strings.Builder
	if token := h.Client.Token(); token != "" {
		for _, s := range slices.Concat(substituters, h.Config.Servers) {
			if u, err := url.Parse(s); err == nil && !strings.Contains(b.String(), "machine "+u.Hostname()+"\n") {
				fmt.Fprintf(&b, "machine %s\nlogin narwharf\npassword %s\n", u.Hostname(), token)
			}
		}
	}
	return nixos.WriteDurably(h.netrcFile(), []byte(b.String()), 0o600)
}

func (h *Host) nixEnv() []string {
	env := []string{"XDG_CACHE_HOME=" + filepath.Join(h.Config.StateDir, "cache")}
	if h.Config.CAFile != "" {
		env = append(env, "NIX_SSL_CERT_FILE="+h.Config.CAFile)
	}
	return env
}

// Realise implements Store.
func (h *Host) Realise(ctx context.Context, p narinfo.Path, root string) error {
	caches, env := h.substituters(), h.nixEnv()
	names, explain := caches, func(err error) error { return err }
	if rate := h.Config.Download.Rate; rate > 0 {
		through := h.Client.Transport()
		defer through.CloseIdleConnections()
		t, err := newThrottle(int64(rate), through, caches)
		if err != nil {
			return err
		}
		defer t.close() //nolint:errcheck // a listener of this process
		caches, env, explain = t.urls, append(env, withoutProxy(os.Getenv)...), t.why
		names = slices.Concat(names, caches) // a cache may redirect to itself
	}
	if err := h.writeNetrc(names); err != nil {
		return err
	}
	_, _, err := command(ctx, 4096, env, "nix-store", h.realiseArgs(p, root, caches)...)
	return explain(err)
}

// Root implements Store. The path is there, so nothing is fetched.
func (h *Host) Root(ctx context.Context, root, path string) error {
	// Also where the link is there already: a crash may have come between it
	// and its registration with Nix.
	args := append([]string{"--realise", path}, h.rootArgs(root)...)
	_, _, err := command(ctx, 4096, h.nixEnv(), "nix-store", append(args, "--option", "substitute", "false", "--option", "max-jobs", "0")...)
	return err
}

// Unroot implements Store.
func (h *Host) Unroot(_ context.Context, root string) error {
	if err := os.Remove(h.root(root)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nixos.SyncDir(filepath.Dir(h.root(root)))
}

// Delete implements Store.
func (h *Host) Delete(ctx context.Context, paths []narinfo.Path) error {
	if len(paths) == 0 {
		return nil
	}
	args := []string{"--delete"}
	for _, p := range paths {
		args = append(args, p.In(h.Config.StoreDir))
	}
	_, _, err := command(ctx, 4096, h.nixEnv(), "nix-store", args...)
	return err
}

// Verify implements Store.
func (h *Host) Verify(ctx context.Context, p narinfo.Path) (bool, error) {
	_, words, err := command(ctx, 4096, h.nixEnv(), "nix-store", "--verify-path", p.In(h.Config.StoreDir))
	var exit *exec.ExitError
	if errors.As(err, &exit) && ctx.Err() == nil {
		h.Log.Warn("a path is damaged", "path", p, "nix", words)
		return false, nil // also what cannot be read
	}
	return err == nil, err
}

// Free implements Store.
func (h *Host) Free(context.Context) (int64, error) { return freeBytes(h.real(h.Config.StoreDir)) }
