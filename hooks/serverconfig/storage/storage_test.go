package storage

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "config.toml")
	open, secret := filepath.Join(dir, "open"), filepath.Join(dir, "secret")
	for name, mode := range map[string]os.FileMode{open: 0o644, secret: 0o600} {
		if err := os.WriteFile(name, []byte("word\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	public := &url.URL{Scheme: "https", Host: "cache.example.org:8443"}
	const db = "postgres://narwharf@db/narwharf"
	for _, c := range []struct {
		what  string
		is    Config
		store bool
		want  string
	}{
		{"nothing", Config{}, true, ""},
		{"a database", Config{State: db}, false, ""},
		{"all of it", Config{State: db, StateListen: db, StatePasswordFile: "secret", Content: "/srv/narwharf"}, false, ""},
		{"a local store", Config{State: db}, true, "a store of one machine"},
		{"another scheme", Config{State: "mysql://db"}, false, "storage.state is no address"},
		{"no address", Config{State: db, StateListen: "db:5432"}, false, "storage.state_listen is no address"},
		{"a password", Config{State: "postgres://narwharf:word@db/x"}, false, "storage.state has a password"},
		{"a password in the query", Config{State: db, StateListen: db + "?password=word"}, false, "storage.state_listen has a password"},
		{"state_listen alone", Config{StateListen: db}, false, "need storage.state"},
		{"a folder alone", Config{Content: "/srv/x"}, false, "a server by itself"},
		{"a folder that is not absolute", Config{State: db, Content: "x"}, false, "not an absolute path"},
		{"a bucket", Config{Content: "s3://nix/a?endpoint=https://s3.example.org", CredentialsFile: "secret", Redirect: true}, true, ""},
		{"a bucket and a database", Config{State: db, Content: "s3://nix"}, false, ""},
		{"a bucket that is none", Config{Content: "s3://nix?profile=x"}, false, "storage.content"},
		{"a key in the URL", Config{Content: "s3://id:word@nix"}, false, "credentials_file"},
		{"a key that is relative", Config{Content: "s3://nix", CredentialsFile: "secret"}, true, ""},
		{"a key without a bucket", Config{CredentialsFile: "secret"}, false, "need a bucket"},
		{"redirect without a bucket", Config{Redirect: true}, false, "need a bucket"},
		{"redirect to the same host", Config{Content: "s3://nix?endpoint=http://CACHE.example.org:9000", Redirect: true}, false, "both at cache.example.org"},
		{"a bucket of another kind", Config{State: db, Content: "gs://x"}, false, "no bucket"},
	} {
		err := c.is.Check(config, public, c.store, true)
		switch {
		case c.want == "" && err != nil, c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", c.what, err, c.want)
		case err != nil && strings.Contains(err.Error(), "word@"):
			t.Errorf("%s: the error has the password: %v", c.what, err)
		}
	}
	c := Config{State: db, StatePasswordFile: "secret"}
	if err := c.Check(config, nil, false, false); err != nil {
		t.Fatal(err)
	}
	if word, err := c.Password(); word != "word" || err != nil {
		t.Errorf("password %q, %v", word, err)
	}
	if err := os.Remove(secret); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Password(); err == nil {
		t.Error("a password file that is gone was read")
	}
	if word, err := new(Config).Password(); word != "" || err != nil {
		t.Errorf("no file: %q, %v", word, err)
	}
}
