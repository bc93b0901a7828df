package nix

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"narwharf/cache/state/durable"
	"narwharf/narinfo"
	"narwharf/nixos/config"
	"narwharf/nixos/linux/sys"
	"narwharf/nixos/relay"
)

// realiseArgs are those of nix-store. Nothing is built, nothing comes from
// another cache, and no memory of what the cache had counts.
func (s *Store) realiseArgs(p narinfo.Path, root string, substituters []string) []string {
	c := s.config
	keys := c.ContentKeys
	if c.Trust == config.TrustServer {
		keys = append(append([]string{}, keys...), c.ServerKeys...)
	}
	args := append([]string{"--realise", p.In(c.StoreDir)}, s.rootArgs(root)...)
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
		{"netrc-file", s.netrcFile()},
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
func (s *Store) substituters() []string {
	if s.config.CacheURL != "" {
		return []string{s.config.CacheURL}
	}
	urls := []string{s.client.Server()}
	for _, url := range s.config.Servers {
		if url = strings.TrimRight(url, "/"); !slices.Contains(urls, url) {
			urls = append(urls, url)
		}
	}
	return urls
}

func (s *Store) netrcFile() string { return filepath.Join(s.config.StateDir, "netrc") }

// writeNetrc gives Nix the token, for a cache that is not open to all.
func (s *Store) writeNetrc(substituters []string) error {
	var b strings.Builder
	if token := s.client.Token(); token != "" {
		for _, cache := range slices.Concat(substituters, s.config.Servers) {
			if u, err := url.Parse(cache); err == nil && !strings.Contains(b.String(), "machine "+u.Hostname()+"\n") {
				fmt.Fprintf(&b, "machine %s\nlogin narwharf\npassword %s\n", u.Hostname(), token)
			}
		}
	}
	return durable.WriteFile(s.netrcFile(), []byte(b.String()), 0o600)
}

// Realise implements nixos.Store.
func (s *Store) Realise(ctx context.Context, p narinfo.Path, root string) error {
	caches, env := s.substituters(), s.nixEnv()
	names, explain := caches, func(err error) error { return err }
	if rate := s.config.Download.Rate; rate > 0 {
		through := s.client.Transport()
		defer through.CloseIdleConnections()
		t, err := relay.New(int64(rate), through, caches)
		if err != nil {
			return err
		}
		defer t.Close() //nolint:errcheck // a listener of this process
		caches, env, explain = t.URLs, append(env, relay.WithoutProxy(os.Getenv)...), t.Why
		names = slices.Concat(names, caches) // a cache may redirect to itself
	}
	if err := s.writeNetrc(names); err != nil {
		return err
	}
	_, _, err := sys.Run(ctx, 4096, env, "nix-store", s.realiseArgs(p, root, caches)...)
	return explain(err)
}
