package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/api"
	"narwharf/hooks/configfile"
	"narwharf/signing"
)

// command is one that takes from least to most arguments, any number if most is -1.
func command(use, short string, least, most int, long string) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Long: long, Args: func(c *cobra.Command, args []string) error {
		name := strings.TrimPrefix(c.CommandPath(), "narwharf ")
		switch {
		case len(args) < least:
			return fmt.Errorf("%s: %s is missing; it is used as\n    %s\n    (%s --help says more)", name, terminal.MissingArgument(use, len(args)), c.UseLine(), c.CommandPath())
		case most < 0 || len(args) <= most:
			return nil
		case c.Flags().Lookup("config") != nil && c.Flags().Lookup("config").Value.String() == "" && most == 0:
			return fmt.Errorf("%s takes no argument: is %q its configuration? Then it is\n    %s --config %s", name, args[0], c.CommandPath(), args[0])
		}
		return fmt.Errorf("%s: %q is too much; it is used as\n    %s", name, args[most], c.UseLine())
	}}
}

// group is a command that others belong to.
func group(use, short, long string, members ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Long: long, SuggestionsMinimumDistance: 2}
	c.AddCommand(members...)
	return c
}

// configFlag adds --config to a command.
func configFlag(c *cobra.Command) *string {
	return c.Flags().String("config", "", "the configuration `FILE` (else $NARWHARF_CONFIG, data/config.toml, /etc/narwharf/config.toml)")
}

// must is for mistakes of the program that show on its first start.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// parseAge reads a duration that may be in days.
func parseAge(s string) (time.Duration, error) {
	var d configfile.Duration
	err := d.UnmarshalText([]byte(s))
	if err != nil && !errors.Is(err, configfile.ErrNoUnit) || err == nil && d == 0 {
		err = fmt.Errorf("%q is not a time like 12h or 90d", s)
	}
	return time.Duration(d), err
}

// newHold is a hold that ends by itself after until, if that says something.
func newHold(reason, by, until string) (*api.Hold, error) {
	hold := &api.Hold{Reason: reason, By: by}
	if until != "" {
		d, err := parseAge(until)
		if err != nil {
			return nil, fmt.Errorf("--until: %w", err)
		}
		t := time.Now().Add(d).UTC().Truncate(time.Second)
		hold.Until = &t
	}
	return hold, nil
}

// callerName is the person who types, for the record.
func callerName() string {
	if s := os.Getenv("SUDO_USER"); s != "" && os.Getuid() == 0 {
		return s
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return fmt.Sprintf("uid %d", os.Getuid())
}

// readSecretKeys reads keys, as client.toml says.
func readSecretKeys(files []string, cfg *configfile.Client) ([]signing.SecretKey, error) {
	var keys []signing.SecretKey
	for _, f := range files {
		err := cfg.CheckSecret(f)
		if err != nil {
			return nil, fmt.Errorf("--key: %w", err)
		}
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

// writeSecret makes a file that nobody else can read, and has fill write to it; without a
// name it is out. What is there is not overwritten.
func writeSecret(name string, out io.Writer, fill func(out io.Writer) error) error {
	if name == "" {
		return fill(out)
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("--out: %s exists already, and a secret is not overwritten: name another file", name)
	}
	if err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	if err = fill(f); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(name) // half a secret, or none
	}
	return err
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

// firstOf is what flags say, else what the file says.
func firstOf(flags, file []string) []string {
	if len(flags) > 0 {
		return flags
	}
	return file
}

// pairs reads values of the form K=V. Of a flag the last one of a key counts, and
// arguments have each once.
func pairs(flag, form string, values []string) (map[string]string, error) {
	var m map[string]string
	for _, kv := range values {
		k, v, ok := strings.Cut(kv, "=")
		if !ok {
			return nil, fmt.Errorf("%s is not of the form %s", strings.TrimSpace(fmt.Sprintf("%s %q", flag, kv)), form)
		}
		if _, twice := m[k]; twice && flag == "" {
			return nil, fmt.Errorf("target %s is there twice", k)
		}
		if m == nil {
			m = make(map[string]string)
		}
		m[k] = v
	}
	return m, nil
}
