package linux

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"narwharf/nixos/config"
)

// TestStateIsBelowNix: with a root of tmpfs /nix is all that there is after a
// boot. What else is used comes with the system, or is of one boot.
func TestStateIsBelowNix(t *testing.T) {
	c := config.Default()
	for _, p := range []string{c.StateDir, c.StoreDir, c.NixState, c.Profile} {
		if !strings.HasPrefix(p, "/nix/") {
			t.Errorf("%s", p)
		}
	}
	if c.RunDir != "/run" || c.TokenFile != "" || c.CAFile != "" || c.Metrics.Textfile != "" {
		t.Errorf("%+v", c)
	}
	var files []string
	for _, pattern := range []string{"../*.go", "../config/*.go", "../linux/*.go", "../linux/*/*.go", "../journal/*.go", "../machine/*.go", "../relay/*.go", "../remote/*.go"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, dir := range []string{`"/var/`, `"/etc/`, `"/tmp`, `"/root`, "os.TempDir", "os.MkdirTemp", "os.CreateTemp", "UserHomeDir", "UserCacheDir"} {
			if !strings.HasSuffix(name, "_test.go") && strings.Contains(strings.ReplaceAll(string(text), `"/etc/machine-id"`, ""), dir) {
				t.Errorf("%s uses %s", name, dir)
			}
		}
	}
}
