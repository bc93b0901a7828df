package nix

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/nixos/config"
	"narwharf/nixos/linux/sys"
	"narwharf/nixos/relay"
	"narwharf/signing"
)

// realiseArgs are those of nix-store. Nothing is built, and no memory of what the cache
// had counts. Where it comes from is in the environment: see downloadEnv.
func (s *Store) realiseArgs(p narinfo.Path, root string) []string {
	c := s.config
	keys := c.ContentKeys
	if c.Trust == config.TrustServer {
		keys = append(append([]string{}, keys...), c.ServerKeys...)
	}
	args := append([]string{"--realise", p.In(c.StoreDir)}, s.rootArgs(root)...)
	for _, o := range [][2]string{
		{"trusted-public-keys", strings.Join(keys, " ")},
		{"require-sigs", "true"},
		{"substitute", "true"},
		{"narinfo-cache-negative-ttl", "0"},
		{"narinfo-cache-positive-ttl", "0"},
		{"fallback", "false"},
		{"builders", ""},
		{"max-jobs", "0"},
		{"connect-timeout", "15"},
		{"stalled-download-timeout", "0"}, // the relay ends what stands still
		{"netrc-file", "/dev/null"},
	} {
		args = append(args, "--option", o[0], o[1])
	}
	if n := c.Download.Rate.Connections(); c.Download.Rate > 0 && n < config.NixConnections {
		args = append(args, "--option", "http-connections", strconv.Itoa(n))
	}
	return append(args, c.NixOptions...)
}

// downloadEnv tells Nix the only place that it may download from. An argument would show
// the secret in the URL to everybody on the host.
func (s *Store) downloadEnv(url string) []string {
	config := strings.TrimSpace(os.Getenv("NIX_CONFIG") + "\nsubstituters = " + url)
	return append(append(s.nixEnv(), "NIX_CONFIG="+config), relay.WithoutProxy(os.Getenv)...)
}

// caches are the servers, the one that answered last first, or cache_url. The host's token
// is for the server's own origins, cache_token_file for that of cache_url.
func (s *Store) caches() (all []relay.Cache, err error) {
	c := s.config
	urls := []string{c.CacheURL}
	if c.CacheURL == "" {
		urls = append([]string{s.client.Server()}, c.Servers...)
	}
	var own []*url.URL
	for _, server := range c.Servers {
		if u, err := api.ParseURL(server); err == nil {
			own = append(own, u)
		}
	}
	for _, text := range urls {
		cache, err := relay.ParseCache(text)
		if err != nil {
			return nil, err
		}
		switch {
		case slices.ContainsFunc(all, func(o relay.Cache) bool { return *o.URL == *cache.URL }):
			continue
		case c.CacheURL != "" && c.CacheTokenFile != "":
			if cache.Token, err = tokenIn(c.CacheTokenFile); err != nil {
				return nil, err
			}
		case cache.Token == "" && slices.ContainsFunc(own, func(u *url.URL) bool { return relay.Origin(u) == relay.Origin(cache.URL) }):
			cache.Token = s.client.Token()
		}
		all = append(all, cache)
	}
	return all, nil
}

func tokenIn(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("cache_token_file: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// Realise implements nixos.Store.
func (s *Store) Realise(ctx context.Context, p narinfo.Path, root string, lines []signing.Line) error {
	caches, err := s.caches()
	if err != nil {
		return err
	}
	through := s.client.Transport()
	defer through.CloseIdleConnections()
	r, err := relay.New(relay.Options{
		StoreDir: s.config.StoreDir, Lines: lines, Caches: caches, Hosts: s.config.Download.Hosts,
		Transport: through, Rate: int64(s.config.Download.Rate),
	})
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // a listener of this process
	// What Nix remembers of a cache is of no use for the next relay. Older agents left a token.
	memory := filepath.Join(s.config.StateDir, "cache")
	if err := errors.Join(os.RemoveAll(memory), os.RemoveAll(filepath.Join(s.config.StateDir, "netrc"))); err != nil {
		return err
	}
	defer os.RemoveAll(memory) //nolint:errcheck // the next download sees to it
	_, _, err = sys.Run(ctx, 4096, s.downloadEnv(r.URL), "nix-store", s.realiseArgs(p, root)...)
	if err != nil {
		err = errors.Join(r.Why(err), s.tidy(context.WithoutCancel(ctx), lines))
	}
	return err
}

// tidy deletes what a download that failed left in the store: files of paths that are not
// valid. Nix itself leaves them for the garbage collector.
func (s *Store) tidy(ctx context.Context, lines []signing.Line) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var left []narinfo.Path
	for _, l := range lines {
		if _, err := os.Lstat(s.config.StoreRoot + l.Path.In(s.config.StoreDir)); err != nil {
			continue
		}
		if have, err := s.Path(ctx, l.Path); err != nil {
			return fmt.Errorf("look up %s in the store: %w", l.Path, err)
		} else if have == nil {
			left = append(left, l.Path)
		}
	}
	if err := s.Delete(ctx, left); err != nil {
		return fmt.Errorf("delete what the download left: %w", err)
	}
	for _, l := range lines {
		removeLock(s.config.StoreRoot + l.Path.In(s.config.StoreDir) + ".lock")
	}
	return nil
}

// removeLock removes a lock file that nobody holds, as Nix does (deleteLockFile in
// src/libstore/pathlocks.cc): whoever waits for it sees by its content that it is stale. Where
// the store is mounted read only it stays, which does no harm.
func removeLock(path string) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil && os.Remove(path) == nil {
		_, _ = f.WriteString("d")
	}
}
