package serverconfig

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckSections(t *testing.T) {
	const prometheus = "[[check]]\nname = \"a\"\nprometheus = \"http://127.0.0.1:9090\"\nquery = \"up\"\nbound = \"== 1\"\n"
	testSections(t, map[string]string{
		prometheus: "",
		prometheus + "interval = \"5s\"\ntimeout = \"1m\"\nfailures = 3\nno_data = \"yes\"": "",
		prometheus + "interval = 5":                                                "check.interval: 5 is no duration: it has no unit",
		prometheus + "failures = -1":                                               "check a: failures -1 is below 1",
		prometheus + "url = \"http://x\"":                                          `check "a": it has prometheus and url`,
		prometheus + "limit = 3":                                                   "check.limit is not a key that narwharf knows",
		prometheus + prometheus:                                                    `check "a": another has that name`,
		"[[check]]\nurl = \"http://x\"":                                            "check \"\": name \"\" is not 1 to 64",
		"[[check]]\nname = \"a\"\ncommand = \"/bin/true\"":                         "check.command is a list",
		"[[check]]\nname = \"a\"\ncommand = [\"/bin/true\"]":                       "",
		"[fleetlock]\ngroups = {workers = 2}":                                      "",
		"[fleetlock]\ngroups = {workers = 0}":                                      "fleetlock.groups: workers = 0: at least one",
		"[fleetlock]\ngroups = {Workers = 1}":                                      `fleetlock.groups: "Workers" is no group`,
		"[fleetlock]\ngroups = [\"a\"]":                                            "fleetlock.groups",
		"[[check]]\nname = \"a\"\nurl = \"http://x\"\ntoken_file = \"/nowhere/t\"": "", // what is not there, the check says when it is asked
	})
}

// A token that everybody can read is refused, as other secrets are; SIGHUP reads checks again.
func TestReloadChecks(t *testing.T) {
	dir := t.TempDir()
	file, token := filepath.Join(dir, "config.toml"), filepath.Join(dir, "token")
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	const text = "data_dir = \"d\"\n[[check]]\nname = \"a\"\nurl = \"http://127.0.0.1:1\"\n"
	write(file, text, 0o600)
	write(token, "sesame", 0o644)
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil { //nolint:gosec // so that others get there
			t.Fatal(err)
		}
	}
	c, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	write(file, text+"token_file = \"token\"\n", 0o600)
	if _, err := c.ReloadChecks(); err == nil || !strings.Contains(err.Error(), "every user of this machine can read the secret in "+token) {
		t.Errorf("a token for all: %v", err)
	}
	write(token, "sesame", 0o600)
	set, err := c.ReloadChecks()
	if err != nil {
		t.Fatal(err)
	}
	if got := set.Get("a").TokenFile; got != token {
		t.Errorf("the file is %s", got)
	}
}
