package nixos

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
		return LoadConfig(name)
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

func TestBackOff(t *testing.T) {
	for tries, want := range map[int]time.Duration{1: 5 * time.Second, 2: 10 * time.Second, 7: 5 * time.Minute, 1000: 5 * time.Minute} {
		if got := backOff(tries); got != want {
			t.Errorf("%d: %s", tries, got)
		}
	}
}
