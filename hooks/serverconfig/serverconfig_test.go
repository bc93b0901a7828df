package serverconfig

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

// The example says what the defaults are, and has every key.
func TestExampleIsTheDefault(t *testing.T) {
	got, err := Load("../../config.example.toml")
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.path, want.DataDir = got.path, "/var/lib/narwharf"
	want.Signing.SecretKeyFiles, want.Signing.RequireUploadSig = []string{}, []string{}
	want.FleetLock.Groups = map[string]int{}
	want.Signing.SignCommand, want.Signing.SignKeys = []string{}, []string{}
	if err := want.check(); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("config.example.toml is\n%+v\nand the defaults are\n%+v", got, want)
	}
}

func TestEveryKeyIsDocumented(t *testing.T) {
	for _, file := range []struct{ name, before, after string }{
		{"../../config.example.toml", "\n", " ="},
		{"../../docs/config.md", "\n### `", "`"},
	} {
		text, err := os.ReadFile(file.name)
		if err != nil {
			t.Fatal(err)
		}
		want := make(map[string]int)
		for _, key := range configKeys(reflect.TypeFor[Config](), "") {
			if strings.HasSuffix(file.name, ".toml") {
				none := strings.HasPrefix(key, "upstream.") || strings.HasPrefix(key, "notify.") || strings.HasPrefix(key, "access.oidc.") || strings.HasPrefix(key, "access.certificate.") ||
					strings.HasPrefix(key, "access.ssh.") || strings.HasPrefix(key, "access.aws.") || strings.HasPrefix(key, "check.") // by default
				key = key[strings.LastIndexByte(key, '.')+1:] // sections have keys of one name
				if none {
					key = "# " + key
				}
			}
			want[key]++
		}
		for key, times := range want {
			if n := strings.Count(string(text), file.before+key+file.after); n != times {
				t.Errorf("%s has the key %s %d times, want %d", file.name, key, n, times)
			}
		}
	}
}

// configKeys are the full names of all keys: "cache.store_dir".
func configKeys(of reflect.Type, prefix string) (keys []string) {
	for i := range of.NumField() {
		f := of.Field(i)
		switch name := f.Tag.Get("toml"); {
		case name == "":
		case f.Type.Kind() == reflect.Struct:
			keys = append(keys, configKeys(f.Type, prefix+name+".")...)
		case f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct:
			keys = append(keys, configKeys(f.Type.Elem(), prefix+name+".")...)
		default:
			keys = append(keys, prefix+name)
		}
	}
	return keys
}

const someAgent = "/nix/store/0c0vbw3cxnvd6dpyvnp8y4s5j9zcwg0m-narwharf-1"

func TestBootstrapSection(t *testing.T) {
	for want, text := range map[string]string{
		"":                                 "public_url = \"https://c\"\n[bootstrap]\ntrust = \"server\"\nagents = [\"" + someAgent + "\"]",
		"is neither":                       "[bootstrap]\ntrust = \"promoter\"",
		"needs public_url":                 "[bootstrap]\ntrust = \"server\"\nagents = [\"" + someAgent + "\"]",
		"bootstrap.agents is empty":        "public_url = \"https://c\"\n[bootstrap]\ntrust = \"server\"",
		"bootstrap.trust is not":           "[bootstrap]\nagents = [\"" + someAgent + "\"]",
		"bootstrap.agents: two paths":      "public_url = \"https://c\"\n[bootstrap]\ntrust = \"server\"\nagents = [\"/a\", \"/b\"]",
		"bootstrap.truth is not a key tha": "[bootstrap]\ntruth = 1",
	} {
		name := t.TempDir() + "/config.toml"
		if err := os.WriteFile(name, []byte("data_dir = \"d\"\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(name); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
}

func TestAccessSection(t *testing.T) {
	testSections(t, map[string]string{
		`public_url = "https://cache.example.org"`: "",
		`[access]
anonymous = ["push"]`: "",
		`[access]
anonymous = ["pull", "metrics"]`: "",
		`listen = [":8080"]
[access]
anonymous = ["pull", "metrics"]`: "",
		`listen = [":8080"]
[access]
anonymous = ["push"]`: "access.anonymous has push and listen has :8080",
		`public_url = "https://cache.example.org"
[access]
anonymous = ["push"]`: "access.anonymous has push and public_url is https://cache.example.org: that would let everybody do it who reaches that",
		`public_url = "http://10.0.0.7:8080"
[access]
anonymous = ["operate"]`: "access.anonymous has operate and public_url",
		`public_url = "http://localhost.example.org"
[access]
anonymous = ["follow:*"]`: "access.anonymous has follow:* and public_url",
		`listen = ["unix:/run/n.sock"]
public_url = "https://cache.example.org"
[access]
anonymous = ["pull", "push"]`: "access.anonymous has push and public_url",
		`[access]
anonymous = ["push"]
trusted_proxies = ["127.0.0.1"]`: "access.anonymous has push and access.trusted_proxies has 127.0.0.1",
		`public_url = "http://localhost:8080"
[access]
anonymous = ["push"]`: "",
		`public_url = "http://127.0.0.2:8080"
[access]
anonymous = ["push"]`: "",
		`public_url = "http://[::1]:8080"
[access]
anonymous = ["push"]`: "",
		`[access]
hosts = ["cache.lan", "10.0.0.7"]`: "",
		`[access]
hosts = ["cache.lan:80"]`: `access.hosts: "cache.lan:80" is not the name of a host`,
		`[access]
hosts = ["http://cache.lan"]`: "access.hosts",
		`[access]
hosts = [""]`: "access.hosts",
		`[access]
hosts = ["cache.lan/nix"]`: "access.hosts",
		`[metrics]
hosts = true`: "",
	})
}

func TestRetentionSection(t *testing.T) {
	testSections(t, map[string]string{
		`[retention]
grace = "2d"
max_size = "2TiB"
max_age = "90d"
min_free = "50GiB"`: "",
		`[retention]
lease = "0s"`: "retention.lease: 0s would",
		`[retention]
grace = "12h"`: "retention.grace: 12h0m0s is below retention.lease, 24h0m0s",
		`[retention]
keep_releases = 0`: "retention.keep_releases",
		`[retention]
forget_hosts = "0s"`: "retention.forget_hosts",
		`[retention]
max_age = "7d"`: "retention.max_age: 168h0m0s is below retention.grace",
		`[retention]
interval = "0s"`: "retention.interval",
	})
}

// testSections loads configurations, and wants an error with these words of each.
func testSections(t *testing.T, sections map[string]string) {
	t.Helper()
	for text, want := range sections {
		name := t.TempDir() + "/config.toml"
		if err := os.WriteFile(name, []byte("data_dir = \"d\"\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(name); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n%v; want %q", text, err, want)
		}
	}
}
