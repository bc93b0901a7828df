package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"narwharf/e2e/repository"
)

// A box is a machine without anything but Nix: a /nix of its own in a mount namespace.
type box struct {
	t     testing.TB
	suite string
	dir   string
}

func newBox(t testing.TB, suite string, settings ...string) *box {
	t.Helper()
	needNamespace(t)
	needTool(t, "curl", "curl")
	nixVersion(t, suite)
	b := &box{t: t, suite: suite, dir: scratch(t)}
	t.Cleanup(func() { removeStore(filepath.Join(b.dir, "root")) })
	b.write("conf/nix.conf", strings.Join(append([]string{"build-users-group =", "sandbox = false", "substituters =",
		"experimental-features = nix-command", "connect-timeout = 15"}, settings...), "\n")+"\n")
	return b
}

func (b *box) write(name, text string) string {
	b.t.Helper()
	file := filepath.Join(b.dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
	return file
}

// run runs a program on the machine.
func (b *box) run(args ...string) Output {
	b.t.Helper()
	return run(b.t, program{
		argv: append([]string{filepath.Join(repository.Root, "e2e", "store-ns.sh"), filepath.Join(b.dir, "root")}, args...),
		env: []string{"PATH=" + filepath.Join(nixDir(), b.suite, "bin") + ":" + os.Getenv("PATH"), "HOME=" + filepath.Join(b.dir, "home"),
			"LC_ALL=C.UTF-8", "NIX_CONF_DIR=" + filepath.Join(b.dir, "conf"), "NIX_USER_CONF_FILES=/dev/null"},
		dir: b.dir,
	})
}

func (b *box) must(args ...string) string {
	b.t.Helper()
	out := b.run(args...)
	if out.Code != 0 {
		b.t.Fatalf("%v", out)
	}
	return strings.TrimSpace(out.Stdout)
}

// state is a file of the agent's, "" if it is not there.
func (b *box) state(name string) string {
	text, err := os.ReadFile(filepath.Join(b.dir, "root/nix/var/narwharf", name))
	if err != nil {
		return ""
	}
	return string(text)
}

// The script of `narwharf bootstrap` on a machine with nothing but Nix: it fetches the agent from a
// private cache, by signature, and the agent joins. (What switches needs systemd: e2e/fleet.)
func TestBootstrap(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		s := NewServer(t, func(c *Config) { c.Anonymous = []string{} })
		promoter, content, other := NewKey("deploy-1"), NewKey("ci-1"), NewKey("other-1")

		ci := newBox(t, suite)
		ci.write("conf/nix.conf", fmt.Sprintf("build-users-group =\nsandbox = false\nsubstituters =\nexperimental-features = nix-command\nnetrc-file = %s\nsecret-key-files = %s\n",
			ci.write("netrc", fmt.Sprintf("machine 127.0.0.1\nlogin ci\npassword %s\n", s.Token("ci", "push"))), ci.write("ci.sec", content.Secret())))
		agent := ci.must("nix-build", "--no-out-link", ci.write("agent.nix", fmt.Sprintf(`derivation {
  name = "narwharf-1"; system = builtins.currentSystem; builder = "/bin/sh";
  args = [ "-c" "/bin/mkdir -p $out/bin; /bin/cp %s $out/bin/narwharf" ];
}`, narwharfBin(t))))
		ci.must("nix", "copy", "--to", s.URL()+"?compression=zstd", agent)

		join := func(args ...string) string {
			t.Helper()
			out := s.CLI(append([]string{"token", "new", "--join", "web"}, args...)...)
			if out.Code != 0 {
				t.Fatalf("%v", out)
			}
			return out.Line()
		}
		script := func(b *box, token string, key Key, args ...string) string {
			t.Helper()
			out := run(t, program{argv: s.argv(append([]string{"bootstrap", "web", "--server", s.URL(), "--key", promoter.Public(), "--content-key", key.Public(),
				"--min-seq", "1", "--agent", agent, "--join-token-file", b.write("join", token)}, args...)...)})
			if out.Code != 0 {
				t.Fatalf("%v", out)
			}
			return b.write("user-data", out.Stdout)
		}

		// A machine comes up. Nothing is promoted yet, so it is idle, and known.
		h1 := newBox(t, suite)
		token := join("--host", "h1")
		out := h1.run("sh", script(h1, token, content, "--host", "h1"))
		if out.Code != 0 || !strings.Contains(out.Stderr, "done: idle") {
			t.Fatalf("%v", out)
		}
		own := strings.TrimSpace(h1.state("token"))
		if own == "" || own == token || h1.state("bootstrap/join-token") != "" || h1.state("bootstrap/netrc") != "" {
			t.Errorf("it has the token %.15s", own)
		}
		instance := h1.state("instance")
		if r := NewUploader(t, s.URL(), own).Do("GET", "/api/v1/hosts/h1/desired?channel=web&instance="+strings.TrimSpace(instance), "", nil); r.Status != 200 {
			t.Errorf("its token: %v", r)
		}
		if r := NewUploader(t, s.URL(), own).Do("GET", "/api/v1/hosts/h2/desired?channel=web", "", nil); r.Status != 403 {
			t.Errorf("its token as another host: %v", r)
		}
		if roots := strings.ReplaceAll(h1.must("nix-store", "--gc", "--print-roots"), `"`, ""); !strings.Contains(roots, "/nix/var/narwharf/gcroots/bootstrap -> "+agent) {
			t.Errorf("the agent is not protected:\n%s", roots)
		}

		// Again: the same machine, with the same token, also when the join token is void.
		if out := s.CLI("token", "revoke", token[4:14]); out.Code != 0 {
			t.Fatalf("%v", out)
		}
		if out := h1.run("sh", filepath.Join(h1.dir, "user-data")); out.Code != 0 || strings.Contains(out.Stderr, "joined") {
			t.Errorf("again: %v", out)
		}
		if strings.TrimSpace(h1.state("token")) != own || h1.state("instance") != instance {
			t.Error("a second run has made another host of it")
		}

		// An agent that no content key has signed is not taken, and does not run.
		h2 := newBox(t, suite)
		out = h2.run("sh", script(h2, join(), other, "--host", "h2"))
		if out.Code != 5 || !strings.Contains(out.Stderr, "signed by one of other-1:") {
			t.Errorf("another content key: %v", out)
		}
		if out := h2.run("nix-store", "--check-validity", agent); out.Code == 0 || h2.state("instance") != "" {
			t.Errorf("the agent came, or ran: %v", out)
		}

		// A token that was used says so, and what to do.
		spent := join()
		h3 := newBox(t, suite)
		if out := h3.run("sh", script(h3, spent, content, "--host", "h3")); out.Code != 0 {
			t.Fatalf("%v", out)
		}
		out = h2.run("sh", script(h2, spent, content, "--host", "h2"))
		if out.Code != 3 || !strings.Contains(out.Stderr, "was used by h3") || !strings.Contains(out.Stderr, "narwharf token new --join web") {
			t.Errorf("a spent token: %v", out)
		}

		// Nobody there: it says so, and ends in its time.
		s.Stop()
		out = h2.run("sh", script(h2, join(), content, "--host", "h2", "--timeout", (3*time.Second).String()))
		if out.Code != 4 || !strings.Contains(out.Stderr, s.URL()+" was not reached") {
			t.Errorf("no server: %v", out)
		}
		s.Start()
		for _, secret := range []string{token, own, spent} {
			if text, err := os.ReadFile(s.Log); err != nil || strings.Contains(string(text), secret[15:]) {
				t.Errorf("a token is in the log (%v)", err)
			}
		}
	})
}
