package serverconfig

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestMachines(t *testing.T) {
	dir := t.TempDir()
	known := filepath.Join(dir, "known_hosts")
	if err := os.WriteFile(known, []byte("web-1 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJSPyjs3tjgu1G/PHC5Lk6CPRjGhgQvO1X5B+yHZGZNE\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	load := func(text string) (*Config, error) {
		file := filepath.Join(dir, "config.toml")
		if err := os.WriteFile(file, []byte("data_dir = \"data\"\npublic_url = \"https://cache.example.org\"\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
		return Load(file)
	}
	aws := "[[access.aws]]\nname = \"asg\"\naccount = \"123456789012\"\nrole = \"host\"\nscopes = [\"follow:web\"]\nhosts = \"asg-*\"\n"
	c, err := load("[access.ssh]\nknown_hosts = \"known_hosts\"\nscopes = [\"follow:prod-*\"]\n" + aws)
	if err != nil {
		t.Fatal(err)
	}
	if l, err := c.Access.SSH.List(); err != nil || l.Len() != 1 || c.Access.SSH.Follows().String() != "follow:prod-*" {
		t.Errorf("%v, %v", c.Access.SSH, err)
	}
	if a := c.Access.AWS[0]; time.Duration(a.ForgetAfter) != 24*time.Hour || a.Names()[0] != "asg-*" {
		t.Errorf("%+v", a)
	}
	for text, want := range map[string]string{
		"[access.ssh]\nknown_hosts = \"known_hosts\"\n":                            "access.ssh.scopes is missing",
		"[access.ssh]\nscopes = [\"push\"]\n":                                      "push is not for machines",
		"[access.ssh]\nscopes = [\"follow:web\"]\nknown_hosts = \"none\"\n":        "no such file",
		"[access.ssh]\nscopes = [\"follow:web\"]\nknown_hosts = \"config.toml\"\n": "line 1: it is no line of known_hosts",
		"[access.ssh]\nscopes = [\"follow:web\"]\nttl = \"13h\"\n":                 "ttl",
		strings.Replace(aws, "123456789012", "*", 1):                               "twelve digits",
		strings.Replace(aws, "\"host\"", "\"host-*\"", 1):                          "without path and patterns",
		strings.Replace(aws, "hosts = \"asg-*\"", "", 1):                           "which names machines may have",
		strings.Replace(aws, "follow:web", "promote:web", 1):                       "hosts",
		aws + aws: "another section has that name",
	} {
		if _, err := load(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	file := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(file, []byte("data_dir = \"data\"\n[access.ssh]\nscopes = [\"follow:web\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(file); err == nil || !strings.Contains(err.Error(), "public_url is missing") {
		t.Error(err)
	}
}
