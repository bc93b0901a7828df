package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"narwharf/hooks/api"
	"narwharf/hooks/configfile"
	"narwharf/signing"
)

// clientConfig is client.toml: what commands that talk to a server need when
// no flag and no variable says it.
type clientConfig struct {
	Server      string   `toml:"server"`
	TokenFile   string   `toml:"token_file"`
	CAFile      string   `toml:"ca_file"`
	Keys        []string `toml:"secret_key_files"` // promoter's keys
	TrustedKeys []string `toml:"trusted_keys"`     // public keys of promoters
	ContentKeys []string `toml:"content_keys"`     // public keys that vouch for bytes
	Origin      string   `toml:"origin"`           // without the channel: "cache.example.org"
}

// clientFlags are the flags of commands that talk to a server.
type clientFlags struct {
	server, tokenFile, caFile, config string
	json                              bool
}

func addClientFlags(c *cobra.Command) *clientFlags {
	f := new(clientFlags)
	c.Flags().StringVar(&f.server, "server", "", "`URL` of the server (else $NARWHARF_SERVER, client.toml)")
	c.Flags().StringVar(&f.tokenFile, "token-file", "", "`FILE` with the token, may be a pipe (else $NARWHARF_TOKEN_FILE, client.toml)")
	c.Flags().StringVar(&f.caFile, "ca-file", "", "`FILE` with certificates to trust instead of the system's")
	c.Flags().StringVar(&f.config, "client-config", "", "`FILE` to read instead of ~/.config/narwharf/client.toml")
	c.Flags().BoolVar(&f.json, "json", false, "print JSON")
	return f
}

// load reads client.toml and puts variables and flags over it.
func (f *clientFlags) load() (*clientConfig, error) {
	cfg := new(clientConfig)
	path, must := f.config, f.config != ""
	if path == "" {
		if dir, err := os.UserConfigDir(); err == nil {
			path = filepath.Join(dir, "narwharf", "client.toml")
		}
	}
	if err := configfile.Load(path, cfg); err != nil && (must || !errors.Is(err, os.ErrNotExist)) {
		return nil, err
	}
	configfile.Abs(path, &cfg.TokenFile, &cfg.CAFile)
	for i := range cfg.Keys {
		configfile.Abs(path, &cfg.Keys[i])
	}
	first := func(values ...string) string {
		for _, v := range values {
			if v != "" {
				return v
			}
		}
		return ""
	}
	cfg.Server = first(f.server, os.Getenv("NARWHARF_SERVER"), cfg.Server)
	cfg.TokenFile = first(f.tokenFile, os.Getenv("NARWHARF_TOKEN_FILE"), cfg.TokenFile)
	cfg.CAFile = first(f.caFile, cfg.CAFile)
	if cfg.Server == "" {
		return nil, errors.New("no server is named: give --server URL, or set NARWHARF_SERVER")
	}
	return cfg, nil
}

func (cfg *clientConfig) client() (*api.Client, error) {
	return api.NewClient(api.ClientOptions{
		Servers: []string{cfg.Server}, TokenFile: cfg.TokenFile, CAFile: cfg.CAFile, UserAgent: "narwharf/" + versionText(),
	})
}

// origin is what heads say they are of. It must be what hosts have in their
// configuration; the server's host name and the channel are the custom.
func (cfg *clientConfig) origin(flag, channel string) (string, error) {
	if flag != "" {
		return flag, nil
	}
	if cfg.Origin != "" {
		return strings.TrimRight(cfg.Origin, "/") + "/" + channel, nil
	}
	u, err := url.Parse(cfg.Server)
	if err != nil {
		return "", err
	}
	return u.Hostname() + "/" + channel, nil
}

func readSecretKeys(files []string) ([]signing.SecretKey, error) {
	var keys []signing.SecretKey
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("--key: %w", err)
		}
		k, err := signing.ParseSecretKey(string(text))
		if err != nil {
			return nil, fmt.Errorf("--key %s: %w", f, err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// parsePublicKeys reads public keys, each given as itself or as a file.
func parsePublicKeys(what string, values []string) ([]signing.PublicKey, error) {
	var keys []signing.PublicKey
	for _, v := range values {
		text := v
		if !strings.Contains(v, ":") || strings.HasPrefix(v, "/") || strings.HasPrefix(v, ".") {
			b, err := os.ReadFile(v)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", what, err)
			}
			text = string(b)
		}
		k, err := signing.ParsePublicKey(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

func channelPath(name string) string { return "/api/v1/channels/" + url.PathEscape(name) }

func printJSON(c *cobra.Command, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.OutOrStdout(), string(text))
	return err
}
