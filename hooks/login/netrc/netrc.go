// Package netrc reads and changes netrc files: which password a client sends to which
// machine. Nix reads one, curl's way: a machine is a name without a port, the first line for
// it counts, and `default` counts for all others.
//
// A change is durable, keeps what stands there of other machines, and the comments, and
// leaves the file with mode 0600. A link is not followed. Two programs that change a file at
// once do so one after the other.
package netrc

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"narwharf/cache/state/durable"
)

// MaxPassword is the longest password that every Nix sends (2.8: 4,085 bytes). A longer one it
// silently does not send.
const MaxPassword = 4000

// maxFile bounds a file that is read.
const maxFile = 4 << 20

// Password is what the file has for a machine: "" if it has nothing, or is not there. A link is followed.
func Password(name, machine string) (string, error) {
	text, err := os.ReadFile(name)
	if name == "" || errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	for _, e := range parse(text) {
		if e.machine == machine {
			return e.password, nil
		}
	}
	return "", nil
}

// Set gives a machine a login and a password, in place of all that the file had for it.
func Set(name, machine, login, password string) error {
	for _, word := range []string{machine, login, password} {
		if word == "" || strings.ContainsFunc(word, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }) || strings.HasPrefix(word, "#") {
			return errors.New("netrc: a machine, login or password is empty, or has characters that do not belong there")
		}
	}
	if len(password) > MaxPassword {
		return fmt.Errorf("the password has %d bytes, and Nix sends none of more than %d", len(password), MaxPassword)
	}
	return change(name, true, func(text []byte) []byte {
		text, at := without(text, machine)
		if at < 0 {
			at = end(text)
		}
		line := fmt.Sprintf("machine %s login %s password %s\n", machine, login, password)
		if at > 0 && text[at-1] != '\n' {
			line = "\n" + line
		}
		return bytes.Join([][]byte{text[:at], text[at:]}, []byte(line))
	})
}

// Remove takes a machine out of the file, and tells whether it was there.
func Remove(name, machine string) (found bool, err error) {
	if _, err := os.Lstat(name); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	err = change(name, false, func(text []byte) []byte {
		text, at := without(text, machine)
		found = at >= 0
		return text
	})
	return found, err
}

// change rewrites a file while nobody else does.
func change(name string, create bool, edit func(text []byte) []byte) error {
	dir := filepath.Dir(name)
	if create {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close() // ends the lock
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", dir, err)
	}
	text, err := read(name)
	if err != nil {
		return err
	}
	return durable.Write(name, edit(text), durable.Options{Mode: 0o600, Exact: true})
}

// read is the text of a file, nothing of one that is not there.
func read(name string) ([]byte, error) {
	st, err := os.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case st.Mode()&fs.ModeSymlink != 0:
		return nil, fmt.Errorf("%s is a symbolic link, which is not followed: what manages it should have the password, or remove the link", name)
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no file", name)
	case st.Size() > maxFile:
		return nil, fmt.Errorf("%s has %d bytes: that is no netrc", name, st.Size())
	}
	return os.ReadFile(name)
}
