package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strings"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/api"
	"narwharf/hooks/configfile"
	"narwharf/signing"
)

// newHold is a hold that ends by itself after until, if that says something.
func newHold(reason, by, until string) (*api.Hold, error) {
	end, err := command.ParseUntil(until)
	return &api.Hold{Reason: reason, By: by, Until: end}, err
}

// session is a call of a command that talks to a server, with what several of them do.
type session struct{ *command.Session }

// withServer makes a command one that talks to a server.
func withServer(c *cobra.Command, run func(s *session, args []string) error) *cobra.Command {
	return command.WithServer(c, func(s *command.Session, args []string) error { return run(&session{s}, args) })
}

// entryTable shows what targets are to run.
func entryTable(out io.Writer, entries []signing.Entry) error {
	return terminal.Table(out, "TARGET\tACTION\tSYSTEM\tSTORE PATH", func(row func(...any)) {
		for _, e := range entries {
			row(e.Target, e.Action, e.System, e.StorePath)
		}
	})
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
