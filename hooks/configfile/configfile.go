// Package configfile reads configuration files, the same way for the server, the
// agent and the command line: TOML in which nothing is guessed. A key that is not
// known is an error with its line, and so is a value of the wrong type.
package configfile

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// Load reads a file over what v, a pointer to a struct, holds already. It wraps
// the error of a file that cannot be opened.
func Load(path string, v any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	err = toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(v)
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
		return fmt.Errorf("%s: line %d, column %d: %s", path, row, col, typeText(strings.Join(syntax.Key(), "."), strings.TrimPrefix(syntax.Error(), "toml: ")))
	}
	var plain map[string]any
	if err == nil {
		err = toml.Unmarshal(text, &plain)
	}
	if err == nil {
		err = checkDurations("", reflect.TypeOf(v).Elem(), plain)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// checkDurations refuses a number where a duration is meant, which the decoder takes for
// nanoseconds. of is the type that value was decoded to.
func checkDurations(key string, of reflect.Type, value any) error {
	switch v := value.(type) {
	case map[string]any:
		if of.Kind() != reflect.Struct {
			break // a map, or a type that reads it by itself
		}
		for name, x := range v {
			field, ok := of.FieldByNameFunc(func(f string) bool {
				is, _ := of.FieldByName(f)
				return strings.EqualFold(is.Tag.Get("toml"), name)
			})
			if !ok {
				continue
			}
			if err := checkDurations(strings.TrimPrefix(key+"."+name, "."), field.Type, x); err != nil {
				return err
			}
		}
	case []any:
		for _, x := range v {
			if of.Kind() != reflect.Slice {
				break
			}
			if err := checkDurations(key, of.Elem(), x); err != nil {
				return err
			}
		}
	case string:
	default:
		if of == reflect.TypeFor[Duration]() {
			return fmt.Errorf("%s: %v is no duration: %w \"%[2]vs\"", key, v, ErrNoUnit)
		}
	}
	return nil
}

var wrongType = regexp.MustCompile(`^cannot decode TOML (\w+) into .*of type (\S+)$`)

// goTypes are types of keys as people call them.
var goTypes = map[string]string{"string": "a text in quotes", "bool": "true or false", "int": "a number", "int64": "a number", "float64": "a number"}

// typeText says in words that a value is of the wrong type. Other texts stay.
func typeText(key, text string) string {
	m := wrongType.FindStringSubmatch(text)
	switch {
	case m == nil:
		return text
	case strings.HasPrefix(m[2], "[]") && m[1] == "string":
		return fmt.Sprintf(`%s is a list: put the value in brackets, as %s = ["…"]`, key, key)
	case strings.HasPrefix(m[2], "[]"):
		return fmt.Sprintf("%s is a list in brackets, and this is a %s", key, m[1])
	case goTypes[m[2]] != "":
		return fmt.Sprintf("%s is %s, and this is a %s", key, goTypes[m[2]], m[1])
	}
	return fmt.Sprintf("%s cannot be a %s", key, m[1])
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

// CheckSecret refuses a file with a secret that every user of this machine can read,
// unless the file config allows that. What is not there, whoever reads it will say.
func CheckSecret(name string, allow bool, config string) error {
	if readable, err := Readable(name); err == nil && readable && !allow {
		return fmt.Errorf("every user of this machine can read the secret in %s: chmod o-rwx %[1]s (or allow_readable_secrets = true in %s, as for secrets of containers)", name, config)
	}
	return nil
}

// Readable tells whether every user of this machine can read a file: others have the
// right to, and no folder on its way shuts them out. Groups are not looked at: somebody
// has given them the file. Pipes are nobody else's.
func Readable(name string) (bool, error) {
	st, err := os.Stat(name)
	if err != nil || !st.Mode().IsRegular() || st.Mode()&0o004 == 0 {
		return false, err
	}
	real, err := filepath.EvalSymlinks(name)
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err != nil {
		return false, err
	}
	for dir := filepath.Dir(real); ; dir = filepath.Dir(dir) {
		st, err := os.Stat(dir)
		if err != nil {
			return false, err
		}
		if st.Mode()&0o001 == 0 {
			return false, nil
		}
		if dir == filepath.Dir(dir) {
			return true, nil
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

// ErrNoUnit is of a number where a duration is meant.
var ErrNoUnit = errors.New("it has no unit, write")

// Set makes it, with String and Type, the value of a flag.
func (d *Duration) Set(s string) error { return d.UnmarshalText([]byte(s)) }
func (d *Duration) String() string     { return time.Duration(*d).String() }

// Type is what a flag's usage calls its value.
func (d *Duration) Type() string { return "duration" }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	days, inDays := strings.CutSuffix(string(text), "d")
	unit := time.Duration(1)
	if inDays {
		days, unit = days+"h", 24
	}
	v, err := time.ParseDuration(days)
	if err != nil || v < 0 || v > math.MaxInt64/unit {
		if _, err := strconv.ParseFloat(string(text), 64); err == nil {
			return fmt.Errorf("%q is no duration: %w \"%ss\"", text, ErrNoUnit, text)
		}
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
	CertFile    string   `toml:"cert_file"`        // the client's certificate
	KeyFile     string   `toml:"key_file"`         // and its secret key
	Keys        []string `toml:"secret_key_files"` // promoter's keys
	SignCommand string   `toml:"sign_cmd"`         // signs for those of them that are public
	TrustedKeys []string `toml:"trusted_keys"`     // public keys of promoters
	ContentKeys []string `toml:"content_keys"`     // public keys that vouch for bytes
	Origin      string   `toml:"origin"`           // without the channel: "cache.example.org"

	AllowReadableSecrets bool `toml:"allow_readable_secrets"`

	path string
}

// File is where it stands, or would; "" if that is nowhere.
func (c *Client) File() string { return c.path }

// Netrc is the file beside it with what narwharf login got.
func (c *Client) Netrc() string {
	if c.path == "" {
		return ""
	}
	return filepath.Join(filepath.Dir(c.path), "netrc")
}

// CheckSecret refuses a file with a secret that every user of this machine can read.
func (c *Client) CheckSecret(name string) error {
	return CheckSecret(name, c.AllowReadableSecrets, c.path)
}

// LoadClient reads a file, or ~/.config/narwharf/client.toml, which need not be there,
// if path is empty. $NARWHARF_SERVER, $NARWHARF_TOKEN_FILE, $NARWHARF_CA_FILE, $NARWHARF_CERT_FILE
// and $NARWHARF_KEY_FILE count for more.
func LoadClient(path string) (*Client, error) { return loadClient(path, path != "") }

// LoadClientToMake is LoadClient of a file that need not be there, since login makes it.
func LoadClientToMake(path string) (*Client, error) { return loadClient(path, false) }

func loadClient(path string, must bool) (*Client, error) {
	if dir, err := os.UserConfigDir(); err == nil && path == "" {
		path = filepath.Join(dir, "narwharf", "client.toml")
	}
	c := &Client{path: path}
	if err := Load(path, c); err != nil && (must || !errors.Is(err, os.ErrNotExist)) {
		if errors.Is(err, os.ErrNotExist) {
			err = fmt.Errorf("%w: narwharf login URL --client-config %[2]s makes it", err, path)
		}
		return nil, err
	}
	Abs(path, &c.TokenFile, &c.CAFile, &c.CertFile, &c.KeyFile)
	for i := range c.Keys {
		Abs(path, &c.Keys[i])
	}
	c.Server = cmp.Or(os.Getenv("NARWHARF_SERVER"), c.Server)
	c.TokenFile = cmp.Or(os.Getenv("NARWHARF_TOKEN_FILE"), c.TokenFile)
	c.CAFile = cmp.Or(os.Getenv("NARWHARF_CA_FILE"), c.CAFile)
	c.CertFile = cmp.Or(os.Getenv("NARWHARF_CERT_FILE"), c.CertFile)
	c.KeyFile = cmp.Or(os.Getenv("NARWHARF_KEY_FILE"), c.KeyFile)
	return c, nil
}
