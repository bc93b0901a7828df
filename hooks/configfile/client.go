package configfile

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
)

// Client is client.toml: what programs that talk to a server need.
type Client struct {
	Server      string   `toml:"server"`
	TokenFile   string   `toml:"token_file"`
	CAFile      string   `toml:"ca_file"`
	Keys        []string `toml:"secret_key_files"` // promoter's keys
	TrustedKeys []string `toml:"trusted_keys"`     // public keys of promoters
	ContentKeys []string `toml:"content_keys"`     // public keys that vouch for bytes
	Origin      string   `toml:"origin"`           // without the channel: "cache.example.org"
}

// LoadClient reads a file, or ~/.config/narwharf/client.toml, which need not be there,
// if path is empty. $NARWHARF_SERVER and $NARWHARF_TOKEN_FILE count for more.
func LoadClient(path string) (*Client, error) {
	must := path != ""
	if dir, err := os.UserConfigDir(); err == nil && !must {
		path = filepath.Join(dir, "narwharf", "client.toml")
	}
	c := new(Client)
	if err := Load(path, c); err != nil && (must || !errors.Is(err, os.ErrNotExist)) {
		return nil, err
	}
	Abs(path, &c.TokenFile, &c.CAFile)
	for i := range c.Keys {
		Abs(path, &c.Keys[i])
	}
	c.Server = cmp.Or(os.Getenv("NARWHARF_SERVER"), c.Server)
	c.TokenFile = cmp.Or(os.Getenv("NARWHARF_TOKEN_FILE"), c.TokenFile)
	return c, nil
}
