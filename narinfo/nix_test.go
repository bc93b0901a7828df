package narinfo

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestNamesAsNixDecides asks Nix 2.34 about every name of nameCases: toFile puts
// a file of that name into a private store.
func TestNamesAsNixDecides(t *testing.T) {
	nix := filepath.Join(os.Getenv("NARWHARF_NIX_DIR"), "bin", "nix-2.34")
	if _, err := os.Stat(nix); err != nil {
		const missing = "needs Nix 2.34: NARWHARF_NIX_DIR must name a directory with bin/nix-2.34"
		if os.Getenv("NARWHARF_CI") == "1" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	dir := t.TempDir()
	env := append(os.Environ(),
		"HOME="+dir, "XDG_CACHE_HOME="+dir+"/cache", "NIX_CONF_DIR="+dir+"/etc", "NIX_STORE_DIR="+dir+"/store",
		"NIX_STATE_DIR="+dir+"/var", "NIX_LOG_DIR="+dir+"/log", "NIX_REMOTE=",
		"NIX_CONFIG=experimental-features = nix-command\nbuild-users-group =\nsubstituters =\n")
	// Nix leaves the store without write permission, which TempDir cannot remove.
	t.Cleanup(func() { _ = exec.Command("chmod", "-R", "u+w", dir).Run() })
	for _, c := range nameCases {
		cmd := exec.Command(nix, "eval", "--raw", "--impure", "--expr", fmt.Sprintf(`builtins.toFile "%s" ""`, c.name))
		cmd.Env = env
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if (err == nil) != c.good {
			t.Errorf("%q: Nix says %v: %s", c.name, err, stderr.String())
		}
		if err != nil && !strings.Contains(stderr.String(), "name") {
			t.Errorf("%q: Nix failed for another reason: %s", c.name, stderr.String())
		}
		if err == nil {
			if p, err := ParsePath(dir+"/store", string(out)); err != nil || p.Name() != c.name {
				t.Errorf("Nix made %s, read as %q, %v", out, p, err)
			}
		}
	}
}
