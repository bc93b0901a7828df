package serverconfig

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"narwharf/hooks/notify"
)

func TestNotify(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("url", "https://hooks.example.org/secret\n")
	write("secret", "whsec_"+strings.Repeat("QUJD", 11)+"\n")
	write("bad", "secret")
	load := func(sections string) ([]notify.Target, error) {
		write("config.toml", "data_dir = \"data\"\n"+sections)
		c, err := Load(filepath.Join(dir, "config.toml"))
		if err != nil {
			return nil, err
		}
		return c.NotifyTargets()
	}
	list, err := load(`
[[notify]]
name = "ops"
url_file = "url"
format = "slack"
alarms = true
secret_file = "secret"
[[notify]]
name = "inside"
url = "http://10.0.0.7:9000/hook?x=1"
events = ["channel.*"]
channels = ["web*"]
private_addresses = true
`)
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	if a := list[0]; a.Name != "ops" || a.URL.String() != "https://hooks.example.org/secret" || a.Format != notify.Slack || !a.Alarms || len(a.Secrets) != 1 || a.Private {
		t.Errorf("%+v", a)
	}
	if b := list[1]; b.URL.String() != "http://10.0.0.7:9000/hook?x=1" || b.Format != notify.JSON || b.Alarms || !b.Private || b.Channels[0] != "web*" {
		t.Errorf("%+v", b)
	}
	const good = "[[notify]]\nname = \"ops\"\nalarms = true\n"
	for section, want := range map[string]string{
		good: "one of url and url_file",
		good + "url = \"https://a.example/\"\nurl_file = \"url\"\n":                 "one of url and url_file",
		"[[notify]]\nalarms = true\nurl = \"https://a.example/\"\n":                 "section 1 needs a name",
		"[[notify]]\nname = \"a b\"\nalarms = true\nurl = \"https://a.example/\"\n": "section 1 needs a name",
		"[[notify]]\nname = \"ops\"\nurl = \"https://a.example/\"\n":                "it would never be told anything",
		strings.Repeat(good+"url = \"https://a.example/\"\n", 2):                    "notify ops: it is there twice",
		good + "url = \"http://a.example/\"\n":                                      "say private_addresses = true",
		good + "url = \"ftp://a.example/\"\nprivate_addresses = true\n":             `"ftp" is neither`,
		good + "url = \"https://me:secret@a.example/\"\n":                           "without user",
		good + "url = \"secret\"\n":                                                 "it is no URL like",
		good + "url = \"https://a.example/\"\nformat = \"xml\"\n":                   `"xml" is neither "json" nor "slack"`,
		good + "url = \"https://a.example/\"\nevents = [\"[\"]\n":                   "is no pattern",
		good + "url = \"https://a.example/\"\nchannels = [\"\"]\n":                  "is no pattern",
		good + "url_file = \"none\"\n":                                              "url_file: open ",
		good + "url_file = \"bad\"\n":                                               "it is no URL like",
		good + "url = \"https://a.example/\"\nsecret_file = \"none\"\n":             "secret_file: open ",
		good + "url = \"https://a.example/\"\nsecret_file = \"bad\"\n":              "openssl rand -base64 32",
		good + "url = \"https://a.example/\"\nsecret = \"x\"\n":                     "secret",
	} {
		_, err := load(section)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "me:secret") {
			t.Errorf("%s: %v, want %q", section, err, want)
		}
	}
}
