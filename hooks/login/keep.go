package login

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"narwharf/cache/state/durable"
	"narwharf/hooks/configfile"
	"narwharf/hooks/login/netrc"
)

// user is the login of our lines in a netrc; servers do not look at it.
const user = "narwharf"

// Keep puts a token where Nix finds it.
func (r *Result) Keep(file, machine string) error { return netrc.Set(file, machine, user, r.Secret) }

// NameServer makes a server the one that commands talk to, in client.toml. One that is a link is
// left as it is: a configuration manager's.
func NameServer(file, server string) error {
	st, err := os.Lstat(file)
	switch {
	case err == nil && st.Mode()&fs.ModeSymlink != 0:
		return fmt.Errorf("%s is a symbolic link, which is not followed: write server = %q into what it is made of", file, server)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if text, err = configfile.Set(text, "server", server); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return durable.Write(file, text, durable.Options{Mode: 0o600, Exact: true})
}

// NixConfig is a value of $NIX_CONFIG by which Nix reads a netrc file, with what else the variable has.
func NixConfig(was, file string) string {
	var lines []string
	for line := range strings.Lines(was) {
		key, _, _ := strings.Cut(line, "=")
		if line = strings.TrimSpace(line); line != "" && strings.TrimSpace(key) != "netrc-file" {
			lines = append(lines, line)
		}
	}
	return strings.Join(append(lines, "netrc-file = "+file), "\n")
}

// Export is a line for a shell that sets a variable.
func Export(name, value string) string {
	return "export " + name + "='" + strings.ReplaceAll(value, "'", `'\''`) + "'"
}

// TellActions sets a variable for the steps that follow in a job of GitHub Actions or Forgejo, by the
// file that $GITHUB_ENV names.
func TellActions(file, name, value string) error {
	const mark = "narwharf-end"
	if strings.Contains(value, mark) {
		return errors.New("$GITHUB_ENV: the value has our mark in it")
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return fmt.Errorf("$GITHUB_ENV: %w", err)
	}
	_, err = fmt.Fprintf(f, "%s<<%s\n%s\n%[2]s\n", name, mark, value)
	return errors.Join(err, f.Close())
}
