package fleet

import (
	"encoding/json"
	"fmt"
	"time"
)

const ciKey = "ci-1" // signs what CI builds; hosts trust it

// CI is the machine that builds systems, uploads and promotes. Its Nix is forky's.
type CI struct {
	Machine
	f *Fleet
}

// CI is the fleet's CI machine.
func (f *Fleet) CI() *CI {
	m := f.ci
	argv := func(args ...string) ([]string, error) { return m.chroot(args...), nil }
	return &CI{Machine: Machine{T: f.T, m: m, argv: argv}, f: f}
}

func (f *Fleet) setUpCI(bin string) error {
	server := f.Server()
	env := environment("NARWHARF_SERVER="+server.URL(), "NARWHARF_TOKEN_FILE=/root/token")
	m, err := f.newMachine("ci", env, "proc=1", "nix="+nixTree(f.T, newNix))
	if err != nil {
		return err
	}
	f.ci = m
	token := server.Token("ci", "push")
	files := map[string]string{
		"root/token": token + "\n",
		"etc/netrc":  fmt.Sprintf("machine %s\nlogin ci\npassword %s\n", serverName, token),
		"etc/nix/nix.conf": "sandbox = false\nbuild-users-group =\nbuilders =\nsubstituters =\n" +
			"experimental-features = nix-command\nnetrc-file = /etc/netrc\nsecret-key-files = /root/keys/" + ciKey + ".sec\n",
	}
	for _, name := range []string{"toplevel.nix", "switch-to-configuration.sh", "activate.sh", "install-bootloader.sh"} {
		files["fleet/"+name] = script("nixos/" + name)
	}
	if err := m.layer(files); err != nil {
		return err
	}
	if err := m.layerFile(bin, "usr/local/bin/narwharf"); err != nil {
		return err
	}
	if err := m.mount(); err != nil {
		return err
	}
	f.keys[ciKey] = f.CI().NewKey(ciKey)
	return nil
}

// Key is the public key of that name: "cache-1" is the server's, "ci-1" signs what CI builds, others
// were made by [CI.NewKey].
func (f *Fleet) Key(name string) string {
	f.T.Helper()
	key, ok := f.keys[name]
	if !ok {
		f.T.Fatalf("no key %q was made", name)
	}
	return key
}

// NewKey makes a key in Nix's format and returns the public one; the secret one is
// [CI.SecretKey] on the CI machine.
func (c *CI) NewKey(name string) string {
	c.T.Helper()
	public := c.Sh(`mkdir -p -m 700 /root/keys; cd /root/keys
nix-store --generate-binary-cache-key "$1" "$1.sec" "$1.pub"; cat "$1.pub"`, name)
	c.f.keys[name] = public
	return public
}

// SecretKey is the file of a secret key on the CI machine.
func (c *CI) SecretKey(name string) string { return "/root/keys/" + name + ".sec" }

// Token replaces CI's token, for `narwharf` as for `nix copy`.
func (c *CI) Token(token string) {
	c.T.Helper()
	c.WriteFile("/root/token", token+"\n", 0o600)
	c.WriteFile("/etc/netrc", fmt.Sprintf("machine %s\nlogin ci\npassword %s\n", serverName, token), 0o600)
}

// BuildSystem builds one system and returns its store path.
func (c *CI) BuildSystem(s System) string {
	c.T.Helper()
	return c.BuildSystems(s)[0]
}

// BuildSystems builds several systems at once (about 0.1 s each) and returns their store paths in
// the same order. They are signed by "ci-1" and live in CI's store alone.
func (c *CI) BuildSystems(systems ...System) []string {
	c.T.Helper()
	text, err := json.Marshal(systems)
	if err != nil {
		c.T.Fatal(err)
	}
	out := c.ExecFor(DefaultTimeout+time.Duration(len(systems))*20*time.Second, "nix-build", "--no-out-link", "/fleet/toplevel.nix", "--argstr", "json", string(text))
	paths := out.Lines()
	if out.Code != 0 || len(paths) != len(systems) {
		c.T.Fatalf("build %s: %v", text, out)
	}
	return paths
}

// Agent is a store path with the narwharf under test as bin/narwharf, for [System.Agent].
func (c *CI) Agent() string {
	c.T.Helper()
	return c.Sh("mkdir -p /fleet/narwharf/bin; cp /usr/local/bin/narwharf /fleet/narwharf/bin; nix-store --add /fleet/narwharf")
}

// Closure are the paths that a store path needs, itself included.
func (c *CI) Closure(path string) []string {
	c.T.Helper()
	out := c.Exec("nix-store", "--query", "--requisites", path)
	if out.Code != 0 {
		c.T.Fatalf("%v", out)
	}
	return out.Lines()
}

// NixCopy uploads store paths with all they need, as a workflow would.
func (c *CI) NixCopy(paths ...string) Output {
	c.T.Helper()
	return c.ExecFor(DefaultTimeout+time.Duration(len(paths))*10*time.Second, append([]string{"nix", "copy", "--to", "http://" + serverName + "?compression=zstd"}, paths...)...)
}

// Push is NixCopy that has to succeed.
func (c *CI) Push(paths ...string) {
	c.T.Helper()
	if out := c.NixCopy(paths...); out.Code != 0 {
		c.T.Fatalf("%v", out)
	}
}

// Narwharf runs a command of the binary on the CI machine, which has NARWHARF_SERVER and
// NARWHARF_TOKEN_FILE set.
func (c *CI) Narwharf(args ...string) Output {
	c.T.Helper()
	return c.Exec(append([]string{"narwharf"}, args...)...)
}
