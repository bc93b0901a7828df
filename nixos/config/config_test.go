package config

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"narwharf/hooks/window"
	"narwharf/signing"
)

func TestConfig(t *testing.T) {
	key, err := signing.GenerateKey("k-1")
	if err != nil {
		t.Fatal(err)
	}
	pub := key.Public().String()
	good := "server = [\"https://cache.example.org\"]\norigin = \"cache.example.org/prod\"\nchannel = \"prod\"\nhost = \"h1\"\nkeys = [\"" + pub + "\"]\ncontent_keys = [\"" + pub + "\"]\n"
	load := func(text string) (*Config, error) {
		name := filepath.Join(t.TempDir(), "agent.toml")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return Load(name)
	}
	c, err := load(good)
	if err != nil || c.Target != "h1" || c.Rules().ConfirmTimeout != 2*time.Minute {
		t.Fatal(c, err)
	}
	for text, words := range map[string]string{
		good + "chanel = \"x\"\n":                                        "line 7: chanel is not a key",
		good + "threshold = 2\n":                                         "threshold: 2 of 1",
		good + "server_keys = [\"" + pub + "\"]\n":                       "are not believed",
		good + "trust = \"me\"\n":                                        "neither promoter nor server",
		good + "target = \"*\"\n":                                        "not a name that one host can have",
		good + "[[check]]\nname = \"a\"\n":                               "exactly one of",
		good + "[[check]]\nname = \"a\"\ntcp = \"x:1\"\nmode = \"on\"\n": "none of enforce",
		good + "witnesses = [\"x\"]\n":                                   "neither tcp:",
		good + "[probation]\nconfirm_timeout = \"0s\"\n":                 "confirm_timeout",
		good + "[probation]\nsettle = \"-1s\"\n":                         "not a duration",
		good + "state_dir = \"/a b\"\n":                                  "state_dir",
		strings.Replace(good, "channel", "#", 1):                         "channel",
		strings.Replace(good, "content_keys", "#", 1):                    "content_keys is empty",
		strings.Replace(good, "\nkeys", "\n#", 1):                        "keys is empty",
	} {
		if _, err := load(text); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%q: %v", text[len(text)-40:], err)
		}
	}
}

func configKeys(of reflect.Type, prefix string) (keys []string) {
	for i := range of.NumField() {
		f := of.Field(i)
		name, ok := f.Tag.Lookup("toml")
		switch {
		case !ok:
		case f.Type.Kind() == reflect.Struct:
			keys = append(keys, configKeys(f.Type, prefix+name+".")...)
		case f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct && f.Type.Elem() != reflect.TypeFor[window.Window]():
			keys = append(keys, "[["+prefix+name+"]]")
		default:
			keys = append(keys, prefix+name)
		}
	}
	return keys
}

// TestConfigurationInDocs: each key has its place in the first column of the
// table, and what stands there is a key.
func TestConfigurationInDocs(t *testing.T) {
	text, err := os.ReadFile("../../docs/agent.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n## Configuration\n")
	if !ok {
		t.Fatal("docs/agent.md has no section Configuration")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var documented []string
	for line := range strings.Lines(section) {
		if first, _, ok := strings.Cut(strings.TrimPrefix(line, "| "), " |"); ok && strings.HasPrefix(line, "| `") {
			for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(first, -1) {
				documented = append(documented, m[1])
			}
		}
	}
	keys := append(configKeys(reflect.TypeFor[Config](), ""), "store_root")
	slices.Sort(keys)
	keys = slices.DeleteFunc(slices.Compact(keys), func(k string) bool { return k == "store_root" }) // of tests alone
	slices.Sort(documented)
	if !slices.Equal(keys, documented) {
		t.Errorf("the keys are\n%q\nand in docs/agent.md\n%q", keys, documented)
	}
}
