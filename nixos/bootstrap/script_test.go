package bootstrap

import (
	"bytes"
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pelletier/go-toml/v2"

	"narwharf/nixos/config"
	"narwharf/signing"
	"narwharf/signing/access"
)

const someAgent = "/nix/store/0c0vbw3cxnvd6dpyvnp8y4s5j9zcwg0m-narwharf-1"

// sampleScript is one that is complete.
func sampleScript(t testing.TB) *Script {
	t.Helper()
	secret, _, err := access.NewJoin("j", "web", "", 1, time.Now(), time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	key := func(name string) string {
		k, err := signing.GenerateKey(name)
		if err != nil {
			t.Fatal(err)
		}
		return k.Public().String()
	}
	return &Script{
		Channel: "web", Server: "https://cache.example.org", Origin: "cache.example.org/web", Keys: []string{key("alice-1"), key("bob-1")}, Threshold: 2,
		ContentKeys: []string{key("ci-1")}, Trust: config.TrustPromoter, MinSeq: 42, Agents: map[string]string{"": someAgent}, JoinToken: secret,
		Reboot: true, Patience: time.Minute,
	}
}

func (s *Script) mustScript(t testing.TB) string {
	t.Helper()
	text, err := s.Text()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// shells are those of this machine that a script may meet.
func shells() (list [][]string) {
	for _, s := range [][]string{{"sh"}, {"dash"}, {"bash", "--posix"}, {"busybox", "sh"}} {
		if _, err := exec.LookPath(s[0]); err == nil {
			list = append(list, s)
		}
	}
	return list
}

// Whatever a value is, the shell has it as it was.
func FuzzShQuote(f *testing.F) {
	for _, s := range []string{"", "'", "''", `'"'"'`, `\`, `\'`, "$(id)`id`$HOME", "a b\tc\nd\n", "-e", "!", "\xff\x80", "*?[a]~", "#", "ä'ö", "';id;'", "\r\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if strings.Contains(s, "\x00") {
			t.Skip("no variable holds a NUL")
		}
		for _, shell := range shells() {
			c := exec.Command(shell[0], append(shell[1:], "-s")...)
			c.Stdin = strings.NewReader("x=" + shQuote(s) + "\nprintf '%s' \"$x\"")
			out, err := c.CombinedOutput()
			if err != nil || string(out) != s {
				t.Fatalf("%s has %q for %q, %v", shell[0], out, s, err)
			}
		}
	})
}

// The configuration in the script is the one that was meant, whatever is in it.
func TestBootstrapConfig(t *testing.T) {
	b := sampleScript(t)
	b.Host, b.Target, b.Action, b.CA = "web-1", "role:web", "boot", "-----BEGIN CERTIFICATE-----\nit's \"none\"\n"
	b.Origin = `it's "quoted" $(id) \n/web`
	dir := t.TempDir()
	script := b.mustScript(t)
	head, _, _ := strings.Cut(script, "\n# agent_for")
	for _, shell := range shells() {
		c := exec.Command(shell[0], append(shell[1:], "-s")...)
		c.Stdin = strings.NewReader(head + "\nprintf '%s' \"$config\" > " + shQuote(filepath.Join(dir, "agent.toml")) + "\nprintf '%s' \"$ca\"\n")
		out, err := c.CombinedOutput()
		if err != nil || string(out) != b.CA {
			t.Fatalf("%s: %s, %v", shell[0], out, err)
		}
		cfg, err := config.Load(filepath.Join(dir, "agent.toml"))
		if err != nil {
			t.Fatal(err)
		}
		if cfg.Origin != b.Origin || cfg.Host != "web-1" || cfg.Target != "role:web" || cfg.Threshold != 2 || cfg.MinSeq != 42 ||
			cfg.Activation.Auto != signing.Boot || cfg.JoinTokenFile != "/nix/var/narwharf/bootstrap/join-token" || cfg.CAFile != "/nix/var/narwharf/bootstrap/ca.pem" ||
			strings.Join(cfg.ContentKeys, " ") != b.ContentKeys[0] || cfg.Trust != config.TrustPromoter {
			t.Errorf("%s: %+v", shell[0], cfg)
		}
	}
	// Nothing of it is anywhere but in the assignments.
	if _, body, _ := strings.Cut(script, "\n# agent_for"); strings.Contains(body, b.JoinToken) || !strings.HasSuffix(script, body) {
		t.Error("the body is not the same in every script")
	}
}

func TestBootstrapAgents(t *testing.T) {
	b := sampleScript(t)
	other := strings.Replace(someAgent, "0c0v", "1c0v", 1)
	agentOf := func(machine string) string {
		head, _, _ := strings.Cut(b.mustScript(t), "\n# What follows")
		c := exec.Command("sh", "-s")
		c.Stdin = strings.NewReader(head + "\nagent_for " + machine + " || echo none\n")
		out, err := c.Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	if got := agentOf("riscv64"); got != someAgent {
		t.Errorf("for all: %s", got)
	}
	b.Agents = map[string]string{"x86_64-linux": someAgent, "aarch64-linux": other}
	for machine, want := range map[string]string{"x86_64": someAgent, "aarch64": other, "riscv64": "none"} {
		if got := agentOf(machine); got != want {
			t.Errorf("%s: %s, want %s", machine, got, want)
		}
	}
	b.Agents[""] = other
	if got := agentOf("riscv64"); got != other {
		t.Errorf("else: %s", got)
	}
}

// shellcheck has nothing to say about any form of it.
func TestBootstrapIsCleanShell(t *testing.T) {
	if _, err := exec.LookPath("shellcheck"); err != nil {
		missing(t, "shellcheck", "apt-get install shellcheck")
	}
	plain, full, notice := sampleScript(t), sampleScript(t), sampleScript(t)
	full.Host, full.Target, full.CA, full.Action, full.Reboot = "web-1", "t", "it's\n", "switch", false
	full.Agents["x86_64-linux"] = someAgent
	notice.Notice = "TRUST = SERVER"
	for name, b := range map[string]*Script{"plain": plain, "full": full, "notice": notice} {
		script := b.mustScript(t)
		c := exec.Command("shellcheck", "--shell=sh", "-")
		c.Stdin = strings.NewReader(script)
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		for _, shell := range shells() {
			c := exec.Command(shell[0], append(shell[1:], "-n")...)
			c.Stdin = strings.NewReader(script)
			if out, err := c.CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("%s: %s: %v\n%s", name, shell[0], err, out)
			}
		}
	}
}

// A download without an end is stopped before the disk is full, and what it left is deleted; one that ends
// is not disturbed.
func TestBootstrapDownloadHasAnEnd(t *testing.T) {
	for _, shell := range shells() {
		for name, c := range map[string]struct {
			blocks, free, code int // in MiB
			says               string
		}{
			"usual":            {40, 100_000, 0, ""},
			"on a small disk":  {40, 60, 0, ""},
			"endless":          {1_000_000, 100_000, 5, "more room than an agent does"},
			"for a small disk": {1_000_000, 60, 5, "more room than an agent does"},
		} {
			t.Run(shell[0]+", "+name, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				write := func(name, text string, mode os.FileMode) {
					t.Helper()
					if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
						t.Fatal(err)
					}
				}
				// The disk is a number of MiB that the download counts up.
				write("nix-store", `#!/bin/sh
[ "$1" = --realise ] || { echo "$*" >> `+dir+`/deleted; exit 0; }
n=0
while [ $n -lt `+strconv.Itoa(c.blocks)+` ]; do n=$((n + 10)); echo $n > `+dir+`/used.new; mv `+dir+`/used.new `+dir+`/used; [ $n -lt 40 ] || sleep 0.01; done
`, 0o755)
				write("df", "#!/bin/sh\nprintf 'Filesystem 1024-blocks Used Available Capacity Mounted on\\n/dev/x 1 1 %s 1%% /\\n' $(( ("+strconv.Itoa(c.free)+" - $(cat "+dir+"/used)) * 1024 ))\n", 0o755)
				write("find", "#!/bin/sh\nexec nix-store --delete \"$@\"\n", 0o755)
				write("used", "0", 0o644)
				write("agent.toml", "", 0o644)
				_, functions, _ := strings.Cut(body, "# room: KiB")
				functions, _, _ = strings.Cut(functions, "[ \"$(id -u)\" = 0 ]")
				cmd := exec.Command(shell[0], append(shell[1:], "-s")...)
				cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
				cmd.Stdin = strings.NewReader("set -eu\ndir=" + dir + "\nstate=$dir server=http://s content_keys=k agent=" + someAgent +
					"\ndie() { echo \"$2\" >&2; exit \"$1\"; }\n# " + functions + "\nfetch\n")
				begin := time.Now()
				out, err := cmd.CombinedOutput()
				if code := cmd.ProcessState.ExitCode(); code != c.code || !strings.Contains(string(out), c.says) || c.says == "" && len(out) > 0 {
					t.Errorf("%d, %v: %s", code, err, out)
				}
				if took := time.Since(begin); c.code == 0 && took > 20*time.Second {
					t.Errorf("it took %v", took)
				}
				if text, _ := os.ReadFile(filepath.Join(dir, "deleted")); strings.Contains(string(text), "--delete /nix/store") != (c.code != 0) {
					t.Errorf("deleted: %q", text)
				}
			})
		}
	}
}

func TestBootstrapCloudConfig(t *testing.T) {
	b := sampleScript(t)
	script := b.mustScript(t)
	text, err := b.CloudConfig()
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^    content: (\S+)$`).FindStringSubmatch(text)
	if m == nil || !strings.HasPrefix(text, "#cloud-config\n") {
		t.Fatal(text)
	}
	if got, err := base64.StdEncoding.DecodeString(m[1]); err != nil || string(got) != script {
		t.Errorf("the script in it is another: %v", err)
	}
	program, err := filepath.Abs("../../.cache/cloud-init/cloud-init")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(program); err != nil {
		if program, err = exec.LookPath("cloud-init"); err != nil {
			missing(t, "cloud-init", ".ci/cloud-init brings it, on Debian as root")
		}
	}
	name := filepath.Join(t.TempDir(), "user-data")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(program, "schema", "--config-file", name).CombinedOutput(); err != nil || !bytes.Contains(bytes.ToLower(out), []byte("valid")) {
		t.Errorf("cloud-init schema: %v\n%s", err, out)
	}
}

// missing ends a test for what the machine lacks: skipped, and failed where
// NARWHARF_CI says that nothing may be missing.
func missing(t *testing.T, what, how string) {
	t.Helper()
	if os.Getenv("NARWHARF_CI") != "" {
		t.Fatalf("there is no %s on this machine: %s", what, how)
	}
	t.Skipf("there is no %s on this machine: %s", what, how)
}

func TestBootstrapRefuses(t *testing.T) {
	for want, change := range map[string]func(*Script){
		"is not a URL like":            func(b *Script) { b.Server = "cache.example.org" },
		"holds credentials":            func(b *Script) { b.Server = "https://me:secret@cache.example.org" },
		"is not a narwharf token":      func(b *Script) { b.JoinToken = "hunter2" },
		"--agent is missing":           func(b *Script) { b.Agents = nil },
		"--agent: ":                    func(b *Script) { b.Agents[""] = "/nix/store/" },
		"is not a system like":         func(b *Script) { b.Agents["x86 64"] = someAgent },
		"threshold: 3 of 2 keys":       func(b *Script) { b.Threshold = 3 },
		"keys is empty":                func(b *Script) { b.Keys = nil },
		"content_keys is empty":        func(b *Script) { b.ContentKeys = nil },
		"min_seq: -1 is not":           func(b *Script) { b.MinSeq = -1 },
		"channel: ":                    func(b *Script) { b.Channel = "Web" },
		"is not a name that one host":  func(b *Script) { b.Host = "a b" },
		"--timeout: less than":         func(b *Script) { b.Patience = 0 },
		"is none of auto, switch, boo": func(b *Script) { b.Action = "test" },
	} {
		b := sampleScript(t)
		change(b)
		if s, err := b.Text(); err == nil || !strings.Contains(err.Error(), want) || s != "" {
			t.Errorf("%v; want %q", err, want)
		} else if strings.Contains(err.Error(), os.TempDir()) || strings.Contains(err.Error(), "secret@") {
			t.Errorf("the message says too much: %v", err)
		}
	}
}

// What is not said is not in the file, so that the host's defaults count.
func TestBootstrapConfigIsShort(t *testing.T) {
	text, err := sampleScript(t).agentConfigText()
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := toml.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"host", "target", "ca_file", "activation", "trust", "server_keys"} {
		if _, ok := m[key]; ok {
			t.Errorf("%s is in\n%s", key, text)
		}
	}
}
