// Package setup makes what a first try of a server needs in a folder: narwharf init.
package setup

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"narwharf/cache/nixstore"
	"narwharf/cache/state/durable"
	"narwharf/cmd/narwharf/server"
	"narwharf/cmd/narwharf/server/place"
	"narwharf/cmd/narwharf/server/token"
	"narwharf/hooks/serverconfig"
	"narwharf/signing"
)

//go:embed config.toml
var configText string

// Make makes what a first try needs in a folder, which is also the data_dir, and
// prints what is next. It never overwrites. by is the person who types.
func Make(ctx context.Context, out io.Writer, dir, keyName, listen, storeRoot, by string) (err error) {
	keyName = cmp.Or(keyName, defaultKeyName())
	key, err := signing.GenerateKey(keyName)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(listen, "unix:") {
		if _, err := serverconfig.CheckAddress(listen); err != nil {
			return fmt.Errorf("--listen: %w", err)
		}
	}
	keyFile := filepath.Join("keys", strings.ReplaceAll(keyName, "/", "_")+".sec")
	files := []string{"config.toml", keyFile, strings.TrimSuffix(keyFile, ".sec") + ".pub", "upload-token", "netrc", "narwharf.db"}
	if err := newFolder(dir, files); err != nil {
		return err
	}
	// Half an init would be in the way of the next one.
	defer func() {
		if err != nil {
			for _, f := range files {
				_ = os.Remove(filepath.Join(dir, f))
			}
		}
	}()
	secret, err := uploadToken(ctx, dir, by)
	if err != nil {
		return err
	}
	serve, err := findStore(storeRoot)
	if err != nil {
		return err
	}
	config, err := configOf(keyFile, listen, storeRoot, serve)
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name, text string
		mode       os.FileMode
	}{
		{keyFile, key.String() + "\n", 0o600},
		{files[2], key.Public().String() + "\n", 0o644},
		{"upload-token", secret, 0o600},
		{"netrc", netrcText(listen, secret), 0o600},
		{"config.toml", config, 0o644}, // last: with it, init is done
	} {
		if err := durable.WriteFile(filepath.Join(dir, f.name), []byte(f.text), f.mode); err != nil {
			return err
		}
	}
	served := ""
	if serve {
		served = storeRoot + serverconfig.Default().Cache.StoreDir
	}
	return sayMade(out, dir, keyFile, served)
}

// sayMade prints what Make made, and what is next. served is the store that is served, "" if none is.
func sayMade(out io.Writer, dir, keyFile, served string) error {
	width := max(len(keyFile), len("upload-token"))
	var text strings.Builder
	line := func(name, what string) { fmt.Fprintf(&text, "  %-*s  %s\n", width, name, what) }
	fmt.Fprintf(&text, "Made %s:\n", dir)
	line("config.toml", "the configuration; read it, it has comments")
	if served != "" {
		line("", served+" of this machine is served (cache.serve_store)")
	}
	line(keyFile, "the signing key: keep it secret, and keep a copy")
	line("upload-token", "a token that may upload; netrc has it for nix copy")
	fmt.Fprintf(&text, "Next:\n  narwharf serve --config %s\n", filepath.Join(dir, "config.toml"))
	_, err := io.WriteString(out, text.String())
	return err
}

func defaultKeyName() string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "narwharf"
	}
	return strings.Map(func(r rune) rune {
		if r == ':' || r <= ' ' {
			return '-'
		}
		return r
	}, host) + "-1"
}

// newFolder makes the folder, in which none of the files may be.
func newFolder(dir string, files []string) error {
	for _, f := range files {
		if _, err := os.Lstat(filepath.Join(dir, f)); err == nil {
			return fmt.Errorf("%s exists already; init never overwrites: choose another folder, or go on with narwharf serve --config %s", filepath.Join(dir, f), filepath.Join(dir, "config.toml"))
		} else if !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := place.BecomeOwner(dir); err != nil {
		return err
	}
	return os.MkdirAll(filepath.Join(dir, "keys"), 0o700)
}

// uploadToken makes a token that may upload, and returns it as a line.
func uploadToken(ctx context.Context, dir, by string) (string, error) {
	cfg := serverconfig.Default()
	cfg.DataDir = dir
	var line strings.Builder
	_, err := server.RunJob(ctx, cfg, "", "token-new", token.New{Name: "upload", Scopes: []string{"push"}, By: by}, &line, slog.New(slog.DiscardHandler))
	return line.String(), err
}

// netrcText has the token for the names under which the address is reached from
// here. In netrc they stand without a port.
func netrcText(listen, secret string) (text string) {
	hosts := []string{"localhost"}
	if host, _, err := net.SplitHostPort(listen); err == nil {
		hosts = append(hosts, "127.0.0.1")
		if host != "" && host != "localhost" && host != "127.0.0.1" && host != "0.0.0.0" && host != "::" {
			hosts = append(hosts, host)
		}
	}
	for _, host := range hosts {
		text += fmt.Sprintf("machine %s\nlogin upload\npassword %s", host, secret)
	}
	return text
}

// findStore tells whether there is a Nix store to serve, and that we can read it.
// One that was asked for and cannot be read is an error.
func findStore(root string) (bool, error) {
	if root != "" && !filepath.IsAbs(root) {
		return false, fmt.Errorf("--store-root: %q is not an absolute path", root)
	}
	store, err := nixstore.Open(nixstore.Options{Root: strings.TrimSuffix(root, "/")})
	if err != nil && root != "" {
		return false, fmt.Errorf("--store-root: %w", err)
	}
	if err != nil {
		return false, nil // a machine without Nix, or not for this user; serve_store = true says why
	}
	return true, store.Close()
}

func configOf(keyFile, listen, storeRoot string, serve bool) (string, error) {
	t, err := template.New("config").Parse(configText)
	if err != nil {
		return "", err
	}
	var text bytes.Buffer
	err = t.Execute(&text, map[string]any{"Key": keyFile, "Listen": listen, "Root": storeRoot, "Serve": serve})
	return text.String(), err
}
