// Package serverconfig is the server's configuration, config.toml. An unsafe default
// cannot start: what would open a cache to strangers by mistake is an error here.
package serverconfig

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/configfile"
	"narwharf/hooks/serverconfig/mirror"
	"narwharf/hooks/serverconfig/storage"
	"narwharf/signing"
	"narwharf/signing/access/scope"
)

// Config is config.toml, whose every key config.example.toml explains. After
// Load all paths are absolute and all values are checked.
type Config struct {
	Listen    []string `toml:"listen"`
	DataDir   string   `toml:"data_dir"`
	PublicURL string   `toml:"public_url"`

	AllowReadableSecrets bool `toml:"allow_readable_secrets"`

	TLS TLS `toml:"tls"`

	Storage storage.Config `toml:"storage"`

	Cache struct {
		StoreDir        string              `toml:"store_dir"`
		StoreRoot       string              `toml:"store_root"`
		ServeStore      bool                `toml:"serve_store"`
		Priority        int                 `toml:"priority"`
		NarCacheSize    configfile.Size     `toml:"nar_cache_size"`
		CompressAhead   bool                `toml:"compress_ahead"`
		AllowIncomplete bool                `toml:"allow_incomplete"`
		MaxNarSize      configfile.Size     `toml:"max_nar_size"`
		NarGrace        configfile.Duration `toml:"nar_grace"`
		ScrubInterval   configfile.Duration `toml:"scrub_interval"`
	} `toml:"cache"`

	Upstreams []Upstream    `toml:"upstream"`
	Mirror    mirror.Config `toml:"mirror"`

	Signing struct {
		SecretKeyFiles   []string `toml:"secret_key_files"`
		SignUploads      bool     `toml:"sign_uploads"`
		RequireUploadSig []string `toml:"require_upload_sig"`
		SignCommand      []string `toml:"sign_cmd"`  // a program and its arguments, which signs for SignKeys
		SignKeys         []string `toml:"sign_keys"` // public keys
	} `toml:"signing"`

	Access Access `toml:"access"`

	Metrics struct {
		Hosts bool `toml:"hosts"`
	} `toml:"metrics"`

	Checks    []Check   `toml:"check"`
	FleetLock FleetLock `toml:"fleetlock"`

	Bootstrap struct {
		Trust  string   `toml:"trust"`
		Agents []string `toml:"agents"`
	} `toml:"bootstrap"`

	Audit struct {
		Keep    configfile.Duration `toml:"keep"`
		MaxSize configfile.Size     `toml:"max_size"`
	} `toml:"audit"`

	Retention Retention `toml:"retention"`

	Notify []Notify `toml:"notify"`

	Log struct {
		Level string `toml:"level"`
	} `toml:"log"`

	Limits struct {
		BodyIdle configfile.Duration `toml:"body_idle"`
		Stop     configfile.Duration `toml:"stop"`
		FastPath bool                `toml:"fast_path"`

		Connections           int `toml:"connections"`
		ConnectionsPerAddress int `toml:"connections_per_address"`
		ConnectionsPerToken   int `toml:"connections_per_token"`
		Uploads               int `toml:"uploads"`
		HostsPerCredential    int `toml:"hosts_per_credential"`
	} `toml:"limits"`

	path       string   // of the file
	publicURL  *url.URL // nil if PublicURL is empty
	centre     *Upstream
	anonymous  scope.Set
	requireSig []signing.PublicKey
	signKeys   []signing.PublicKey
	proxies    []netip.Prefix
}

// Name is what people call this server by among those that share its state: machine and port.
func (c *Config) Name() string {
	host, _ := os.Hostname() // nothing rests on it
	if _, port, err := net.SplitHostPort(c.Listen[0]); err == nil {
		return host + ":" + port
	}
	return host
}

// Path is the file's.
func (c *Config) Path() string { return c.path }

// URL is public_url, nil if there is none.
func (c *Config) URL() *url.URL { return c.publicURL }

// AnonymousScopes are what everybody may.
func (c *Config) AnonymousScopes() scope.Set { return c.anonymous }

// Proxies are those whose word is taken for whom they ask.
func (c *Config) Proxies() []netip.Prefix { return c.proxies }

// UploadKeys are those of which one must have signed what is uploaded.
func (c *Config) UploadKeys() []signing.PublicKey { return c.requireSig }

// Default is what a file that says nothing means. It lacks a data_dir.
func Default() *Config {
	c := &Config{Listen: []string{"127.0.0.1:8080"}, Storage: storage.Default()}
	c.Mirror.Channels = []string{}
	c.Cache.StoreDir = "/nix/store"
	c.Cache.Priority = 30
	c.Cache.NarCacheSize = 50 << 30
	c.Cache.MaxNarSize = 64 << 30
	c.Cache.NarGrace = configfile.Duration(24 * time.Hour)
	c.Cache.ScrubInterval = configfile.Duration(30 * 24 * time.Hour)
	c.Signing.SignUploads = true
	c.Access.Anonymous, c.Access.Hosts = []string{"pull"}, []string{}
	c.Bootstrap.Agents = []string{}
	c.Audit.Keep = configfile.Duration(400 * 24 * time.Hour)
	c.Audit.MaxSize = 256 << 20
	c.Retention = retention()
	c.Log.Level = "info"
	c.Limits.BodyIdle = configfile.Duration(30 * time.Second)
	c.Limits.Stop = configfile.Duration(5 * time.Minute)
	c.Limits.FastPath = true
	c.Access.TrustedProxies = []string{}
	c.Limits.Uploads = 64
	c.Limits.HostsPerCredential = 1000
	return c
}

// find is the file that commands use without --config.
func find() (string, error) {
	if p := os.Getenv("NARWHARF_CONFIG"); p != "" {
		return p, nil
	}
	places := []string{"data/config.toml", "/etc/narwharf/config.toml"}
	for _, p := range places {
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("no configuration: give --config FILE, set NARWHARF_CONFIG, or make one with `narwharf init ./data` (looked for %s)", strings.Join(places, " and "))
}

// Load reads and checks a configuration; "" is the file that is found without a name.
// An unknown key is an error
// with its line; nothing is guessed.
func Load(path string) (*Config, error) {
	if path == "" {
		var err error
		if path, err = find(); err != nil {
			return nil, err
		}
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	c := Default()
	c.path = path
	if err := configfile.Load(path, c); err != nil {
		return nil, err
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

func (c *Config) check() error {
	if c.DataDir == "" {
		return errors.New("data_dir is missing: name the folder that holds what is uploaded")
	}
	configfile.Abs(c.path, &c.DataDir)
	for i := range c.Signing.SecretKeyFiles {
		configfile.Abs(c.path, &c.Signing.SecretKeyFiles[i])
	}
	public, err := c.checkListen()
	if err != nil {
		return err
	}
	if c.PublicURL != "" {
		if c.publicURL, err = api.ParseURL(c.PublicURL); err != nil {
			return fmt.Errorf("public_url %w", err)
		}
	}
	if err := c.checkTLS(); err != nil {
		return err
	}
	if err := c.Storage.Check(c.path, c.publicURL, c.Cache.ServeStore, c.AllowReadableSecrets); err != nil {
		return err
	}
	if err := c.checkCache(); err != nil {
		return err
	}
	if err := c.checkAccess(public); err != nil {
		return err
	}
	if err := c.checkUpstreams(); err != nil {
		return err
	}
	if err := c.checkSigning(); err != nil {
		return err
	}
	if err := c.checkNotify(); err != nil {
		return err
	}
	if err := c.Retention.check(); err != nil {
		return err
	}
	if err := c.checkGates(); err != nil {
		return err
	}
	return c.checkBootstrap()
}

// checkListen returns an address that is not of this machine alone, "" if there is
// none.
func (c *Config) checkListen() (public string, err error) {
	if len(c.Listen) == 0 {
		return "", errors.New("listen is empty: give host:port or unix:PATH")
	}
	for i, l := range c.Listen {
		if p, ok := strings.CutPrefix(l, "unix:"); ok {
			if p == "" {
				return "", errors.New(`listen: "unix:" needs a path`)
			}
			configfile.Abs(c.path, &p)
			c.Listen[i] = "unix:" + p
			continue
		}
		host, err := CheckAddress(l)
		if err != nil {
			return "", fmt.Errorf("listen: %w", err)
		}
		if !loopback(host) {
			public = l
		}
	}
	return public, nil
}

// CheckAddress says what is wrong with an address to listen on, and returns its host.
func CheckAddress(address string) (host string, err error) {
	host, port, err := net.SplitHostPort(address)
	if err == nil {
		if n, err := net.LookupPort("tcp", port); err == nil && n >= 0 && port != "" {
			return host, nil
		}
		return "", fmt.Errorf("%q has no port that there is: write it as 127.0.0.1:8080", address)
	}
	like := "127.0.0.1:8080"
	switch _, numeric := strconv.Atoi(address); {
	case numeric == nil:
		like = fmt.Sprintf("127.0.0.1:%s for this machine alone, or as 0.0.0.0:%[1]s for all who reach it", address)
	case strings.HasPrefix(address, "/") || strings.HasSuffix(address, ".sock"):
		like = "unix:" + address
	case strings.Contains(address, "://"):
		like = strings.TrimRight(address[strings.Index(address, "://")+3:], "/") + ", without a scheme"
	case address != "" && !strings.ContainsAny(address, ": "):
		like = address + ":8080"
	}
	return "", fmt.Errorf("%q is neither host:port nor unix:PATH: write it as %s", address, like)
}

// checkCache checks the sections [cache] and [limits].
func (c *Config) checkCache() error {
	if r := c.Cache.StoreRoot; r != "" {
		c.Cache.StoreRoot = strings.TrimSuffix(filepath.Clean(r), "/")
	}
	switch d, r := c.Cache.StoreDir, c.Cache.StoreRoot; {
	case !filepath.IsAbs(d) || filepath.Clean(d) != d:
		return fmt.Errorf("cache.store_dir: %q is not an absolute path like /nix/store, without a slash at its end", d)
	case r != "" && !filepath.IsAbs(r):
		return fmt.Errorf("cache.store_root: %q is not an absolute path", r)
	case c.Cache.Priority < 0:
		return fmt.Errorf("cache.priority: %d is below 0", c.Cache.Priority)
	case c.Cache.MaxNarSize == 0:
		return errors.New("cache.max_nar_size: 0 would refuse every upload")
	case c.Limits.BodyIdle == 0:
		return errors.New("limits.body_idle: 0 would refuse every upload")
	}
	l := &c.Limits
	for _, n := range []struct {
		name       string
		value, min int
	}{{"connections", l.Connections, 0}, {"connections_per_address", l.ConnectionsPerAddress, 0}, {"connections_per_token", l.ConnectionsPerToken, 0},
		{"uploads", l.Uploads, 1}, {"hosts_per_credential", l.HostsPerCredential, 1}} {
		if n.value < n.min {
			return fmt.Errorf("limits.%s: %d is below %d", n.name, n.value, n.min)
		}
	}
	return nil
}

// LoadKeys reads the secret key files.
func (c *Config) LoadKeys() ([]signing.SecretKey, error) {
	var keys []signing.SecretKey
	for _, f := range c.Signing.SecretKeyFiles {
		err := configfile.CheckSecret(f, c.AllowReadableSecrets, c.path)
		if err != nil {
			return nil, fmt.Errorf("signing.secret_key_files: %w", err)
		}
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("signing.secret_key_files: %w", err)
		}
		key, err := signing.ParseSecretKey(string(text))
		if err != nil {
			return nil, fmt.Errorf("signing.secret_key_files: %s: %w", f, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// checkBootstrap checks the section [bootstrap].
func (c *Config) checkBootstrap() error {
	b := &c.Bootstrap
	switch {
	case b.Trust == "" && len(b.Agents) == 0:
		return nil
	case b.Trust == "":
		return errors.New(`bootstrap.agents is given and bootstrap.trust is not: scripts are made here with trust = "server" alone`)
	case b.Trust != "server":
		return fmt.Errorf("bootstrap.trust: %q is neither \"server\" nor \"\"", b.Trust)
	case c.PublicURL == "":
		return errors.New("bootstrap.trust needs public_url: hosts have to know where this server is")
	case len(b.Agents) == 0:
		return errors.New("bootstrap.agents is empty: name the store path of the narwharf package, as \"x86_64-linux=/nix/store/…\"")
	}
	_, err := c.Agents()
	return err
}

// Agents are the store paths in bootstrap.agents, each PATH or SYSTEM=PATH, by system.
func (c *Config) Agents() (map[string]string, error) {
	agents, err := configfile.BySystem(c.Bootstrap.Agents)
	if err != nil {
		return nil, fmt.Errorf("bootstrap.agents: %w", err)
	}
	return agents, nil
}
