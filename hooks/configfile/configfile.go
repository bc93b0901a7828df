// Package configfile reads configuration files, the same way for the server, the
// agent and the command line: TOML in which nothing is guessed. A key that is not
// known is an error with its line, and so is a value of the wrong type.
package configfile

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

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

// Duration is written as "400d", "24h" or "90s", and is not below 0.
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	days, inDays := strings.CutSuffix(string(text), "d")
	unit := time.Duration(1)
	if inDays {
		days, unit = days+"h", 24
	}
	v, err := time.ParseDuration(days)
	if err != nil || v < 0 || v > math.MaxInt64/unit {
		return fmt.Errorf("%q is not a duration like \"24h\", \"90s\" or \"90d\"", text)
	}
	*d = Duration(v * unit)
	return nil
}

// Size is a number of bytes, written as 1048576 or "50GiB".
type Size int64

var sizeUnits = []struct {
	name  string
	bytes int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"B", 1}}

// UnmarshalText implements encoding.TextUnmarshaler, for numbers too.
func (s *Size) UnmarshalText(text []byte) error {
	digits, unit := strings.TrimSpace(string(text)), int64(1)
	for _, u := range sizeUnits {
		if n, ok := strings.CutSuffix(digits, u.name); ok {
			digits, unit = strings.TrimSpace(n), u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > (1<<62)/unit {
		return fmt.Errorf("%q is not a size like \"50GiB\" (units KiB, MiB, GiB, TiB)", text)
	}
	*s = Size(n * unit)
	return nil
}

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
