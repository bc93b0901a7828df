// Package configfile reads configuration files, the same way for the server, the
// agent and the command line: TOML in which nothing is guessed. A key that is not
// known is an error with its line, and so is a value of the wrong type.
package configfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Load reads a file over what v, a pointer to a struct, holds already. It wraps
// the error of a file that cannot be opened.
func Load(path string, v any) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	defer f.Close()
	err = toml.NewDecoder(f).DisallowUnknownFields().Decode(v)
	var strict *toml.StrictMissingError
	var syntax *toml.DecodeError
	switch {
	case errors.As(err, &strict):
		lines := make([]string, 0, len(strict.Errors))
		for _, e := range strict.Errors {
			row, _ := e.Position()
			lines = append(lines, fmt.Sprintf("line %d: %s is not a key that narwharf knows", row, strings.Join(e.Key(), ".")))
		}
		return fmt.Errorf("%s: %s", path, strings.Join(lines, "; "))
	case errors.As(err, &syntax):
		row, col := syntax.Position()
		return fmt.Errorf("%s: line %d, column %d: %s", path, row, col, strings.TrimPrefix(syntax.Error(), "toml: "))
	case err != nil:
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// Abs makes names that a file gives relative to its own folder absolute. Empty
// ones stay empty.
func Abs(path string, names ...*string) {
	for _, p := range names {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(filepath.Dir(path), *p)
		}
	}
}

// BySystem reads values that are each for one kind of machine, SYSTEM=VALUE, or for
// all others: then the system is "".
func BySystem(values []string) (map[string]string, error) {
	m := make(map[string]string)
	for _, v := range values {
		system, value, ok := strings.Cut(v, "=")
		if !ok {
			system, value = "", v
		}
		if _, twice := m[system]; twice {
			return nil, fmt.Errorf("two paths for the same system (%q)", system)
		}
		m[system] = value
	}
	return m, nil
}
