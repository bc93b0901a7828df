package nixconf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A Conf is settings by name, and where each was said last.
type Conf struct {
	values map[string]string
	from   map[string]string
}

// aliases are old names of settings.
var aliases = map[string]string{
	"binary-caches": "substituters", "trusted-binary-caches": "trusted-substituters",
	"binary-cache-public-keys": "trusted-public-keys", "build-use-substitutes": "substitute",
}

// defaults are those that count here.
var defaults = map[string]string{
	"substituters":        "https://cache.nixos.org/",
	"trusted-public-keys": "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=",
	"trusted-users":       "root", "allowed-users": "*", "require-sigs": "true", "substitute": "true",
	"narinfo-cache-negative-ttl": "3600", "narinfo-cache-positive-ttl": "2592000",
}

const maxDepth = 10 // of includes

// New is a configuration in which nothing is said.
func New() *Conf { return &Conf{values: map[string]string{}, from: map[string]string{}} }

// Clone is a copy.
func (c *Conf) Clone() *Conf {
	d := New()
	for k, v := range c.values {
		d.values[k], d.from[k] = v, c.from[k]
	}
	return d
}

// Value is what a setting says, its default if nothing does.
func (c *Conf) Value(name string) string {
	if v, ok := c.values[name]; ok {
		return v
	}
	return defaults[name]
}

// Said tells whether a setting is said at all, and in which file.
func (c *Conf) Said(name string) (file string, ok bool) {
	_, ok = c.values[name]
	return c.from[name], ok
}

// List is a setting that is a list.
func (c *Conf) List(name string) []string { return strings.Fields(c.Value(name)) }

// Is tells whether a setting is true.
func (c *Conf) Is(name string) bool {
	return slices.Contains([]string{"true", "yes", "1"}, c.Value(name))
}

// Read puts what a file says over what is there. A file that is not there says nothing.
func (c *Conf) Read(file string) error { return c.read(file, 0) }

func (c *Conf) read(file string, depth int) error {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return c.parse(string(text), file, depth)
}

// Parse puts a text over what is there; file is where it stands.
func (c *Conf) Parse(text, file string) error { return c.parse(text, file, 0) }

func (c *Conf) parse(text, file string, depth int) error {
	n := 0
	for line := range strings.Lines(text) {
		n++
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if len(words) == 2 && (words[0] == "include" || words[0] == "!include") {
			if err := c.include(words[1], file, words[0] == "include", depth); err != nil {
				return fmt.Errorf("%s:%d: %w", file, n, err)
			}
			continue
		}
		if len(words) < 2 || words[1] != "=" {
			return fmt.Errorf("%s:%d: %q is no line of nix.conf: it should be NAME = VALUE", file, n, strings.TrimSpace(line))
		}
		c.set(words[0], strings.Join(words[2:], " "), file)
	}
	return nil
}

func (c *Conf) include(name, from string, must bool, depth int) error {
	if depth == maxDepth {
		return errors.New("files include each other more than ten deep")
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(filepath.Dir(from), name)
	}
	if _, err := os.Stat(name); must && err != nil {
		return err
	}
	if err := c.read(name, depth+1); must || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}

func (c *Conf) set(name, value, file string) {
	base, extra := strings.CutPrefix(name, "extra-")
	if alias, ok := aliases[base]; ok {
		base = alias
	}
	if extra {
		value = strings.TrimSpace(c.Value(base) + " " + value)
	}
	c.values[base], c.from[base] = value, file
}
