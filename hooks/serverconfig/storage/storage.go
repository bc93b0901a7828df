// Package storage is the section [storage] of the server's configuration: where the state
// and the content files lie.
package storage

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"narwharf/cache/blob/s3/location"
	"narwharf/hooks/configfile"
)

// Config is the section. Without it all is in data_dir, which one server has.
type Config struct {
	Content           string              `toml:"content"`
	CredentialsFile   string              `toml:"credentials_file"`
	CacheSize         configfile.Size     `toml:"cache_size"`
	Redirect          bool                `toml:"redirect"`
	State             string              `toml:"state"`
	StateListen       string              `toml:"state_listen"`
	StatePasswordFile string              `toml:"state_password_file"`
	Stale             configfile.Duration `toml:"stale"`

	bucket *location.Location
}

// Default is what a file without the section means.
func Default() Config {
	return Config{Stale: configfile.Duration(10 * time.Minute), CacheSize: 50 << 30}
}

// Bucket is where the content files lie, nil if that is a folder.
func (c *Config) Bucket() *location.Location { return c.bucket }

// Shared tells whether other servers may have the state, too.
func (c *Config) Shared() bool { return c.State != "" }

// Check says what is wrong with the section of the file at path, and makes names of files
// absolute. serveStore is that the machine's own store is served, too; publicURL is nil if unknown.
func (c *Config) Check(path string, publicURL *url.URL, serveStore, allowReadable bool) error {
	if err := c.checkState(path, allowReadable); err != nil {
		return err
	}
	if c.Shared() && serveStore {
		return errors.New("cache.serve_store and storage.state are given both: a store of one machine cannot be served by others; upload its paths (nix copy), or run a server of its own for it and name that as [[upstream]]")
	}
	if strings.HasPrefix(c.Content, location.Scheme) {
		return c.checkBucket(path, publicURL, allowReadable)
	}
	if c.CredentialsFile != "" || c.Redirect {
		return errors.New("storage.credentials_file and storage.redirect need a bucket: content = \"s3://bucket/prefix?endpoint=https://host\"")
	}
	return c.checkContent()
}

func (c *Config) checkBucket(path string, publicURL *url.URL, allowReadable bool) (err error) {
	if c.bucket, err = location.Parse(c.Content); err != nil {
		return fmt.Errorf("storage.content: %w", err)
	}
	if c.CredentialsFile != "" {
		configfile.Abs(path, &c.CredentialsFile)
		if err := configfile.CheckSecret(c.CredentialsFile, allowReadable, path); err != nil {
			return fmt.Errorf("storage.credentials_file: %w", err)
		}
	}
	switch {
	case !c.Redirect:
	case publicURL == nil:
		return errors.New("storage.redirect needs public_url: where clients send a password for this server must not be where they are sent")
	case sameHost(publicURL.Hostname(), c.bucket.Endpoint.Hostname()):
		return fmt.Errorf("storage.redirect is true, and public_url and the bucket's endpoint are both at %s: Nix would send the password for this server to the bucket, which refuses two kinds of authentication at once. Give one of them another host name", publicURL.Hostname())
	}
	return nil
}

// sameHost tells whether a client takes two names for one host.
func sameHost(a, b string) bool {
	return strings.EqualFold(strings.TrimSuffix(a, "."), strings.TrimSuffix(b, "."))
}

func (c *Config) checkState(path string, allowReadable bool) error {
	for _, a := range []struct{ key, address string }{{"state", c.State}, {"state_listen", c.StateListen}} {
		if a.address == "" {
			continue
		}
		u, err := url.Parse(a.address)
		switch {
		case err != nil, u.Scheme != "postgres" && u.Scheme != "postgresql": // the error has the address
			return fmt.Errorf("storage.%s is no address of a PostgreSQL database: write it as postgres://narwharf@db.example.org/narwharf", a.key)
		case hasPassword(u):
			return fmt.Errorf("storage.%s has a password, which all who read this file would know: put it into a file of its own (state_password_file), or into ~/.pgpass", a.key)
		}
	}
	switch {
	case c.State == "" && (c.StateListen != "" || c.StatePasswordFile != ""):
		return errors.New("storage.state_listen and storage.state_password_file need storage.state")
	case c.StatePasswordFile == "":
		return nil
	}
	configfile.Abs(path, &c.StatePasswordFile)
	if err := configfile.CheckSecret(c.StatePasswordFile, allowReadable, path); err != nil {
		return fmt.Errorf("storage.state_password_file: %w", err)
	}
	return nil
}

func hasPassword(u *url.URL) bool {
	_, has := u.User.Password()
	return has || u.Query().Has("password")
}

func (c *Config) checkContent() error {
	switch {
	case c.Content == "":
		return nil
	case strings.Contains(c.Content, "://"):
		return fmt.Errorf("storage.content: %q is no folder, and no bucket: s3://bucket/prefix?endpoint=https://host", c.Content)
	case !filepath.IsAbs(c.Content):
		return fmt.Errorf("storage.content: %q is not an absolute path", c.Content)
	case !c.Shared():
		return errors.New("storage.content names a folder, and storage.state nothing: a server by itself keeps its files in data_dir")
	}
	c.Content = filepath.Clean(c.Content)
	return nil
}

// Password reads the password for the database; "" if no file is named. It is asked for at each
// connection, so another takes effect without a restart.
func (c *Config) Password() (string, error) {
	if c.StatePasswordFile == "" {
		return "", nil
	}
	text, err := os.ReadFile(c.StatePasswordFile)
	if err != nil {
		return "", fmt.Errorf("storage.state_password_file: %w", err)
	}
	return strings.TrimRight(string(text), "\r\n"), nil
}
