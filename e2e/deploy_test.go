package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// narwharf deploy builds a flake's output, uploads and promotes it, and waits for a host. What it would do it
// says beforehand, and what it does it shows.
func TestDeploy(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		needNamespace(t)
		s := NewServer(t, nil)
		n := NewNix(t, suite)
		flake := filepath.Join(n.dir, "flake")
		system := n.inStore("nix", "eval", "--raw", "--impure", "--expr", "builtins.currentSystem")
		n.write("flake/flake.nix", `{ outputs = { self }: { packages.`+system.Line()+`.web = derivation {
			name = "web"; system = "`+system.Line()+`"; builder = "/bin/sh"; args = [ "-c" "echo web > $out" ]; }; }; }`)
		key := NewKey("deploy-1")
		keyFile := n.write("deploy.sec", key.Secret()+"\n")
		content := NewKey("ci-1")
		contentFile := n.write("ci.sec", content.Secret()+"\n")
		token := n.write("token", s.Token("ci", "push", "pull", "promote:*", "operate")+"\n")
		deploy := func(more ...string) Output {
			t.Helper()
			args := append([]string{"deploy", "web", "path:" + flake + "#web", "--server", s.URL(), "--token-file", token, "--key", keyFile, "--content-key-file", contentFile}, more...)
			return n.inStore(s.argv(args...)...)
		}
		behind := []string{"--", "--kind", "path", "--origin", "127.0.0.1/web"}

		if !n.AtLeast(2, 22) { // its database cannot be read while no Nix runs
			behind = append(behind, "--from-cache", "--content-key", content.Public())
		}
		dry := deploy(append([]string{"--dry-run"}, behind...)...)
		if dry.Code != 2 || !strings.Contains(dry.Stdout, " copy ") || !strings.Contains(dry.Stdout, "secret-key="+contentFile) || !strings.Contains(dry.Stdout, " promote web /nix/store/") {
			t.Fatal(dry)
		}
		if list, _ := filepath.Glob(filepath.Join(s.Data, "cache", "*.narinfo")); len(list) != 0 {
			t.Errorf("a dry run uploaded %v", list)
		}

		stop := make(chan struct{})
		hosts := follow(stop, newFollower(s, s.Token("web-1", "follow:web", "pull"), "web-1", "/nix/store/00000000000000000000000000000000-first").today())
		out := deploy(append(append([]string{"-v"}, behind...), "--require-hosts", "1")...)
		close(stop)
		hosts.Wait()
		for _, says := range []string{"building path:", "uploading to ", "promoting web", " build --out-link ", " copy --netrc-file ", "promote web /nix/store/"} {
			if !strings.Contains(out.Stderr, says) {
				t.Errorf("it does not say %q", says)
			}
		}
		if out.Code != 0 || strings.Contains(out.String(), content.Secret()) {
			t.Fatal(out)
		}
		narinfos, err := filepath.Glob(filepath.Join(s.Data, "cache", "*-web.narinfo"))
		if err != nil || len(narinfos) == 0 {
			narinfos, _ = filepath.Glob(filepath.Join(s.Data, "cache", "*.narinfo"))
		}
		if text, err := os.ReadFile(narinfos[0]); err != nil || !strings.Contains(string(text), "Sig: ci-1:") {
			t.Errorf("%s, %v", text, err)
		}
		if out := deploy("--nix", "/nonexistent/nix"); out.Code != 2 || !strings.Contains(out.Stderr, "nix build") {
			t.Error(out)
		}
	})
}
