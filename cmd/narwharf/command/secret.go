package command

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
)

// CallerName is the person who types, for the record.
func CallerName() string {
	if s := os.Getenv("SUDO_USER"); s != "" && os.Getuid() == 0 {
		return s
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return fmt.Sprintf("uid %d", os.Getuid())
}

// WriteSecret makes a file that nobody else can read, and has fill write to it; without a
// name it is out. What is there is not overwritten.
func WriteSecret(name string, out io.Writer, fill func(out io.Writer) error) error {
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
