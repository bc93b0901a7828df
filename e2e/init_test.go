package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The first minutes of a newcomer: init, serve, a copy with the netrc that init wrote, and another
// machine that substitutes from it with the key that init made.
func TestInit(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		dir := filepath.Join(scratch(t), "data")
		s := &Server{T: t, Dir: dir, Data: dir, Port: freePort(t), Log: dir + ".log", bin: narwharfBin(t), files: func(name string) string { return name }}
		t.Cleanup(s.close)
		if out := run(t, program{argv: s.argv("init", dir)}); out.Code != 0 {
			t.Fatalf("init\n%v", out)
		}
		if out := run(t, program{argv: s.argv("init", dir)}); out.Code == 0 || !strings.Contains(out.Stderr, dir) {
			t.Errorf("a second init must not overwrite the first, and say so\n%v", out)
		}
		config, err := os.ReadFile(s.configFile())
		if err != nil {
			t.Fatal(err)
		}
		s.writeFile(s.configFile(), strings.Replace(string(config), "127.0.0.1:8080", s.Addr(), 1), 0o644)
		for _, secret := range []string{"netrc", "upload-token", "keys"} {
			if info, err := os.Stat(filepath.Join(dir, secret)); err != nil || info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s can be read by others: %v %v", secret, info, err)
			}
		}
		public, err := filepath.Glob(filepath.Join(dir, "keys", "*.pub"))
		if err != nil || len(public) != 1 {
			t.Fatalf("keys: %v %v", public, err)
		}
		key, err := os.ReadFile(public[0])
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		up := NewNix(t, suite, "netrc-file = "+filepath.Join(dir, "netrc")).In(c.Root)
		up.Push(s.URL(), "?compression=zstd", c.Path("a"))
		down := NewNix(t, suite, "substituters = "+s.URL(), "require-sigs = true", "trusted-public-keys = "+strings.TrimSpace(string(key)))
		down.Must("nix-store", "--realise", c.Path("a"))
		down.Verify()
	})
}

// Keys go through a pipe, in Nix's own format: what we make Nix takes, and the other way round.
func TestKeyCommands(t *testing.T) {
	t.Parallel()
	bin := narwharfBin(t)
	secret := run(t, program{argv: []string{bin, "key", "generate", "cache.example.org-1"}})
	if secret.Code != 0 || !strings.HasPrefix(secret.Stdout, "cache.example.org-1:") {
		t.Fatalf("key generate\n%v", secret)
	}
	public := run(t, program{argv: []string{bin, "key", "public"}, stdin: secret.Stdout})
	n := NewNix(t, newest())
	if theirs := run(t, program{argv: []string{filepath.Join(nixDir(), n.Suite, "bin", "nix"), "key", "convert-secret-to-public"}, env: n.env(), stdin: secret.Line()}); theirs.Stdout != public.Line() {
		t.Errorf("we say %q, Nix says %q\n%v", public.Stdout, theirs.Stdout, theirs)
	}
	nixSecret := n.Must("nix", "key", "generate-secret", "--key-name", "nix-1").Stdout
	nixPublic := run(t, program{argv: []string{filepath.Join(nixDir(), n.Suite, "bin", "nix"), "key", "convert-secret-to-public"}, env: n.env(), stdin: nixSecret}).Stdout
	if ours := run(t, program{argv: []string{bin, "key", "public"}, stdin: nixSecret}); ours.Line() != nixPublic {
		t.Errorf("Nix says %q, we say %q", nixPublic, ours.Stdout)
	}
	if out := run(t, program{argv: []string{bin, "key", "public"}, stdin: "no key\n"}); out.Code == 0 || out.Stdout != "" {
		t.Errorf("key public of nonsense\n%v", out)
	}
}
