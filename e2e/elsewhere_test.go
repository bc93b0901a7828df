package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestContentKeyElsewhere: paths that Nix uploads without a signature are signed in the cache by a
// command that has the key, and Nix substitutes them with that key alone.
func TestContentKeyElsewhere(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		s, _, token := aServer(t, func(c *Config) { c.SecretKeyFiles = nil })
		up := aMachine(t, suite, c, "a").Netrc(token)
		paths := c.Paths("a")
		up.Push(s.URL(), "?compression=zstd", paths...)
		keepOpen(t, up)
		key := NewKey("ci-1")
		dir := t.TempDir()
		write := func(name, text string, mode os.FileMode) string {
			t.Helper()
			file := filepath.Join(dir, name)
			if err := os.WriteFile(file, []byte(text), mode); err != nil {
				t.Fatal(err)
			}
			return file
		}
		public, tokenFile := write("ci.pub", key.Public()+"\n", 0o644), write("token", token+"\n", 0o600)
		kms := write("kms", `#!/bin/sh
set -e
{ printf '\060\056\002\001\000\060\005\006\003\053\145\160\004\042\004\040'; printf %s '`+key.Secret()+`' | sed 's/.*://' | base64 -d | head -c 32; } > "$0.$$.der"
cat > "$0.$$.in"
openssl pkeyutl -sign -rawin -keyform DER -inkey "$0.$$.der" -in "$0.$$.in"
`, 0o700)
		args := append([]string{"key", "sign", "--server", s.URL(), "--token-file", tokenFile, "--key", public, "--sign-cmd", kms, "--store-root", up.Root, "--client-config", "/dev/null"}, paths...)
		if out := run(t, program{argv: s.argv(args...), dir: dir}); out.Code != 0 || !strings.Contains(out.Stdout, "with ci-1") || strings.Contains(out.Stdout, "signed 0 of") {
			t.Fatalf("%v", out)
		}
		if out := run(t, program{argv: s.argv(args...), dir: dir}); out.Code != 0 || !strings.Contains(out.Stdout, "signed 0 of") {
			t.Fatalf("again: %v", out)
		}
		down := NewNix(t, suite).Trust(s.URL(), key)
		down.Pull(s.URL(), paths...)
		down.Verify()
	})
}
