package client

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	_ "modernc.org/sqlite" // the driver

	"narwharf/hooks/doctor"
	"narwharf/hooks/nixconf"
)

// A memory is what a Nix remembers of a cache.
type memory struct {
	unsigned, missing int
	example           string // the name of an unsigned path
}

// remembers looks into what Nix has noted of the cache on its own disk: what it uploaded itself, without
// the cache's signature, it does not take from there (NixOS/nix#16175), and what was missing stays so for a while.
func (c *Client) remembers(ctx context.Context, r *doctor.Report) {
	if len(c.keys) == 0 {
		return // what it remembers may be all that there is
	}
	names := make(map[string]bool)
	for _, k := range c.keys {
		names[k.Name()] = true
	}
	looked := false
	for _, dir := range c.Machine.CacheDirs() {
		files, err := filepath.Glob(filepath.Join(dir, "binary-cache-v*.sqlite"))
		if _, denied := os.ReadDir(dir); errors.Is(denied, fs.ErrPermission) {
			r.Note("memory", "what Nix remembers in %s is for root to see: sudo narwharf doctor client %s", dir, c.Cache.URL)
			continue
		}
		if err != nil {
			continue
		}
		for _, file := range files {
			m, err := remembered(ctx, file, c.Cache.URL.String(), names, c.ttl("narinfo-cache-negative-ttl"), c.ttl("narinfo-cache-positive-ttl"))
			if err != nil {
				r.Note("memory", "%s: %v", file, err)
				continue
			}
			looked = true
			c.say(r, file, m)
		}
	}
	if looked && r.Find("memory") == nil {
		r.OK("memory", "Nix remembers nothing of this cache that is in the way")
	}
}

func (c *Client) say(r *doctor.Report, file string, m memory) {
	if m.unsigned > 0 {
		r.Fault("memory", []string{"nix-store --realise --option narinfo-cache-positive-ttl 0 " + m.example, "rm " + file + "   # or all that it remembers",
			"XDG_CACHE_HOME=$(mktemp -d) nix copy --to …   # so that it does not happen again"},
			"%s: Nix remembers %d paths of this cache as it uploaded them, without the cache's signature (%s): it does not take them from there for 30 days (NixOS/nix#16175)", file, m.unsigned, m.example)
	}
	if m.missing > 0 {
		r.Note("memory-missing", "%s: Nix remembers for up to %s that this cache lacked %d paths; nix build --refresh asks again", file, c.ttl("narinfo-cache-negative-ttl"), m.missing)
	}
}

func (c *Client) ttl(name string) time.Duration {
	n, err := strconv.Atoi(c.conf.Value(name))
	if err != nil {
		return 0
	}
	return time.Duration(n) * time.Second
}

// remembered reads one file. Its tables are those of src/libstore/nar-info-disk-cache.cc.
func remembered(ctx context.Context, file, cache string, names map[string]bool, negative, positive time.Duration) (m memory, err error) {
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", OmitHost: true, Path: file, RawQuery: "mode=ro&_pragma=busy_timeout(2000)"}).String())
	if err != nil {
		return m, err
	}
	defer func() { _ = db.Close() }()
	rows, err := db.QueryContext(ctx, `select b.url, b.storeDir, n.hashPart, coalesce(n.namePart, ''), coalesce(n.sigs, ''), coalesce(n.ca, ''), n.timestamp, n.present
		from NARs n join BinaryCaches b on n.cache = b.id`)
	if err != nil {
		return m, err
	}
	defer func() { _ = rows.Close() }()
	now := time.Now().Unix()
	for rows.Next() {
		var at, store, hash, name, sigs, ca string
		var when int64
		var present bool
		if err := rows.Scan(&at, &store, &hash, &name, &sigs, &ca, &when, &present); err != nil {
			return m, err
		}
		switch {
		case !nixconf.SameCache(at, cache):
		case !present && when+int64(negative.Seconds()) > now:
			m.missing++
		case present && ca == "" && when+int64(positive.Seconds()) > now && !signedBy(sigs, names):
			m.unsigned++
			m.example = fmt.Sprintf("%s/%s-%s", store, hash, name)
		}
	}
	return m, rows.Err()
}

func signedBy(sigs string, names map[string]bool) bool {
	for sig := range strings.FieldsSeq(sigs) {
		if name, _, _ := strings.Cut(sig, ":"); names[name] {
			return true
		}
	}
	return false
}
