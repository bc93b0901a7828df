package fleet

import (
	"crypto/ed25519"
	"encoding/pem"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"narwharf/e2e"
)

// sshHostKey is a host key as sshd keeps it, and its line in known_hosts without the name.
func sshHostKey(t testing.TB) (private, public string) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	is, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(block)), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(is)))
}

// A secured is a fleet without secrets beside the first server: a second one, which is private and
// speaks TLS alone, on the same machine as https://cache.
type secured struct {
	*follower
	second *Job
	public map[string]string // hosts' SSH keys
	aws    *aws
}

const (
	bySSH         = `kind = "ssh"`
	securedConfig = "/srv/secured/config.toml"
	knownHosts    = "/srv/secured/known_hosts"
	caFile        = "/etc/narwharf-ca.pem"
)

// newSecured makes it: h1 is known by its SSH host key, h2 is not yet, h3 is a machine of AWS.
func newSecured(t *testing.T) *secured {
	t.Helper()
	sf := &secured{follower: new(follower), public: map[string]string{}}
	authority := e2e.NewAuthority(t)
	cert, key := authority.Issue("server", serverName)
	ca := read(t, authority.File)
	sf.Fleet = New(t, Options{Hosts: 3, Host: func(_ *Fleet, name string, h *HostOptions) {
		h.Files[strings.TrimPrefix(caFile, "/")] = ca
		h.Files["etc/nix/netrc"] = ""
		var private string
		private, sf.public[name] = sshHostKey(t)
		h.Files["etc/ssh/ssh_host_ed25519_key"] = private
	}})
	sf.aws = newAWS(sf.Fleet)
	server, ci := sf.Server(), sf.CI()
	server.Must("narwharf", "init", "/srv/secured", "--listen", serverAddress+":443", "--key-name", "secured-1")
	server.WriteFile("/srv/secured/tls.pem", read(t, cert), 0o600)
	server.WriteFile("/srv/secured/tls.key", read(t, key), 0o600)
	server.WriteFile(knownHosts, "h1 "+sf.public["h1"]+"\n", 0o600)
	toml := regexp.MustCompile(`(?m)^anonymous = .*`).ReplaceAllString(server.ReadFile(securedConfig), "anonymous = []")
	server.WriteFile(securedConfig, "public_url = \"https://cache\"\n"+toml+fmt.Sprintf(`
[tls]
cert = "tls.pem"
key = "tls.key"

[access.ssh]
known_hosts = %q
scopes = ["follow:web"]
ttl = "2m"

[[access.aws]]
name = "web"
account = "123456789012"
role = "web-host"
scopes = ["follow:asg"]
hosts = "asg-*"
ttl = "2m"
`, knownHosts), 0o644)
	sf.second = server.Machine.Start("/bin/sh", "-c", "exec narwharf serve --config "+securedConfig+" > /srv/secured/log 2>&1")
	ci.WriteFile(caFile, ca, 0o644)
	Eventually(t, 20*time.Second, "the private server answers", func() error {
		if out := ci.Exec("curl", "-fsS", "--cacert", caFile, "https://cache/readyz"); out.Code != 0 {
			return fmt.Errorf("%v", out)
		}
		return nil
	})
	ci.Token(server.Must("narwharf", "token", "new", "--config", securedConfig, "--name", "ci", "--scope", "push,promote:*,operate"))
	sf.agent = ci.Agent()
	sf.config = strings.NewReplacer("http://cache", "https://cache", "token_file = \"/var/lib/narwharf/token\"\n", "ca_file = \""+caFile+"\"\n").
		Replace(agentConfig(ci.NewKey("deploy-1"), sf.Key(ciKey)))
	return sf
}

func (sf *secured) story(t *testing.T, name string, tell func(s *Story, sf *secured)) {
	t.Helper()
	sf.follower.story(t, name, func(s *Story, fw *follower) {
		lent := *sf
		lent.follower = fw
		tell(s, &lent)
	})
}

// ci is a command of narwharf on the CI machine, towards the private server.
func (sf *secured) ci(args ...string) string {
	sf.T.Helper()
	return sf.CI().Must(append([]string{"/usr/bin/env", "NARWHARF_SERVER=https://cache", "NARWHARF_CA_FILE=" + caFile, "narwharf"}, args...)...)
}

// build builds a system of a channel, whose agent says by an identity who it is, and uploads it over TLS.
func (sf *secured) build(channel, version, identity string) string {
	sf.T.Helper()
	config := strings.NewReplacer(`"cache/web"`, `"cache/`+channel+`"`, `channel = "web"`, fmt.Sprintf("channel = %q", channel)).Replace(sf.config)
	path := sf.CI().BuildSystem(System{Version: version, Agent: sf.agent, AgentConfig: config + "\n[identity]\n" + identity})
	sf.CI().Sh(`NIX_SSL_CERT_FILE=$1 XDG_CACHE_HOME=$(mktemp -d) nix copy --to 'https://cache?compression=zstd' "$2" "$3"`, caFile, path, sf.agent)
	return path
}

// userData is what narwharf bootstrap prints, put onto a host.
func (sf *secured) userData(host, channel string, args ...string) {
	sf.T.Helper()
	text := sf.ci(append([]string{"bootstrap", channel, "--server", "https://cache", "--ca-file", caFile, "--key", sf.Key("deploy-1"), "--content-key", sf.Key(ciKey),
		"--min-seq", "1", "--agent", sf.agent}, args...)...)
	sf.Host(host).WriteFile("/root/user-data", text+"\n", 0o700)
}

// runs waits until hosts have switched to a system, by their own agents.
func (sf *secured) runs(s *Story, path string, hosts ...string) {
	s.Helper()
	for _, name := range hosts {
		h := sf.Host(name)
		Eventually(s, 60*time.Second, name+" runs "+path, func() error {
			if st := h.State(); st.Current != path || st.Profile != path || st.Agent != "active" {
				return fmt.Errorf("%+v\n%s", st, tail(h.Journal("narwharf.service"), 10))
			}
			return nil
		})
	}
}

// noSecrets looks for tokens where they could be read by whoever has a machine's disk, its user-data, or a log.
func (sf *secured) noSecrets(s *Story, hosts ...string) {
	s.Helper()
	for _, name := range hosts {
		h := sf.Host(name)
		if found := h.Sh(`grep -rlE 'nwt_[0-9a-z]{10}_' /etc /root /home /srv /nix/var/narwharf/bootstrap /nix/store /var/log /tmp 2> /dev/null || true`); found != "" {
			s.Errorf("%s has a token in %s", name, found)
		}
		if log := h.Journal("narwharf.service"); strings.Contains(log, "nwt_") {
			s.Errorf("a token is in the log of %s:\n%s", name, tail(log, 10))
		}
	}
	for line := range strings.Lines(sf.Server().Must("narwharf", "token", "list", "--config", securedConfig)) {
		if strings.Contains(line, "follow:") && strings.Contains(line, "never") {
			s.Errorf("a host's token has no end: %s", line)
		}
	}
}

// TestIdentities: hosts that nobody gave a secret, of a private server that speaks TLS alone: first boots by the
// user-data that bootstrap --identity prints, with the SSH host key (known, and approved by a person) and with a
// role of AWS; they follow, boot again, and are cut off.
func TestIdentities(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	sf := newSecured(t)
	first := sf.build("web", "a", bySSH)
	sf.ci("promote", "web", first, "--key", sf.CI().SecretKey("deploy-1"))

	sf.story(t, "20: a first boot by the SSH host key, over TLS, from a private cache", func(s *Story, sf *secured) {
		sf.userData("h1", "web", "--identity", "ssh", "--host", "h1")
		begin := time.Now()
		out := sf.Host("h1").Exec("/root/user-data")
		s.Took("to the system of the channel (promised: 60 s)", time.Since(begin))
		if out.Code != 0 || !strings.Contains(out.Stderr, "done: ok") {
			s.Fatalf("%v\n%s", out, sf.log())
		}
		sf.runs(s, first, "h1")
		sf.noSecrets(s, "h1")
	})
	sf.story(t, "20: one whose key nobody knows waits until a person approves it", func(s *Story, sf *secured) {
		sf.userData("h2", "web", "--identity", "ssh", "--host", "h2")
		job := sf.Host("h2").Start("/root/user-data")
		var fingerprint string
		Eventually(s, 60*time.Second, "h2 asks", func() error {
			out := sf.CI().Exec("/usr/bin/env", "NARWHARF_SERVER=https://cache", "NARWHARF_CA_FILE="+caFile, "narwharf", "host", "approve", "h2")
			fingerprint = regexp.MustCompile(`SHA256:[A-Za-z0-9+/]{43}`).FindString(out.Stdout + out.Stderr)
			if fingerprint == "" {
				return fmt.Errorf("%v", out)
			}
			return nil
		})
		if is := sf.Host("h2").Sh("ssh-keygen -y -f /etc/ssh/ssh_host_ed25519_key | ssh-keygen -lf -"); !strings.Contains(is, fingerprint) {
			s.Fatalf("the key of h2 is %s, and %s asks", is, fingerprint)
		}
		sf.ci("host", "approve", "h2", "--key", fingerprint)
		if out := job.Wait(3 * time.Minute); out.Code != 0 {
			s.Fatalf("%v\n%s", out, sf.log())
		}
		sf.runs(s, first, "h2")
		sf.noSecrets(s, "h2")
	})
	sf.story(t, "20: they follow, and boot, without a secret", func(s *Story, sf *secured) {
		second := sf.build("web", "b", bySSH)
		sf.ci("promote", "web", second, "--key", sf.CI().SecretKey("deploy-1"), "--wait", "--wait-timeout", "90s", "--require-hosts", "2")
		sf.runs(s, second, "h1", "h2")
		sf.EachOf([]string{"h1", "h2"}, func(h *Host) error { h.Reboot(); return nil })
		sf.runs(s, second, "h1", "h2")
		third := sf.build("web", "c", bySSH)
		sf.ci("promote", "web", third, "--key", sf.CI().SecretKey("deploy-1"), "--wait", "--wait-timeout", "90s", "--require-hosts", "2")
		sf.runs(s, third, "h1", "h2")
		sf.noSecrets(s, "h1", "h2")
	})
	sf.story(t, "20: another authority's server is nobody to them", func(s *Story, sf *secured) {
		h := sf.Host("h1")
		h.WriteFile("/tmp/other.pem", read(s, sf.aws.authority.File), 0o644)
		if out := h.Exec("curl", "-sS", "--cacert", "/tmp/other.pem", "https://cache/readyz"); out.Code == 0 {
			s.Errorf("%v", out)
		}
		h.Sh("sed 's,^ca_file.*,ca_file = \"/tmp/other.pem\",' /etc/narwharf/agent.toml > /tmp/agent.toml; echo 'state_dir = \"/tmp/other\"' | cat - /tmp/agent.toml > /tmp/other.toml")
		if out := h.Exec("narwharf", "agent", "once", "--dry-run", "--timeout", "5s", "--config", "/tmp/other.toml"); out.Code == 0 || !strings.Contains(out.Stderr, "certificate") {
			s.Errorf("%v", out)
		}
	})
	sf.story(t, "20: a key that is taken out of the list is cut off", func(s *Story, sf *secured) {
		sf.Server().WriteFile(knownHosts, "@revoked * "+sf.public["h1"]+"\n", 0o600)
		since := time.Now()
		Eventually(s, 30*time.Second, "h1 is told so", func() error {
			if log := sf.Host("h1").Journal("narwharf.service"); !strings.Contains(log, "revoked") {
				return fmt.Errorf("%s", tail(log, 5))
			}
			return nil
		})
		s.Took("cut off, and in the host's own log", time.Since(since))
		sf.Server().WriteFile(knownHosts, "h1 "+sf.public["h1"]+"\n", 0o600)
		again := sf.build("web", "d", bySSH)
		sf.ci("promote", "web", again, "--key", sf.CI().SecretKey("deploy-1"))
		sf.runs(s, again, "h1", "h2")
	})
	sf.story(t, "20: a machine of AWS, by its role", func(s *Story, sf *secured) {
		h := sf.Host("h3")
		sf.aws.give(h)
		path := sf.build("asg", "e", `kind = "aws"`)
		sf.ci("promote", "asg", path, "--key", sf.CI().SecretKey("deploy-1"))
		// A private cache serves nothing to a shell that has a role alone: here the image has the agent.
		sf.CI().Sh(`netrc=$(mktemp); printf 'machine cache\nlogin x\npassword %s\n' "$2" > "$netrc"
XDG_CACHE_HOME=$(mktemp -d) nix copy --option netrc-file "$netrc" --to 'http://cache?compression=zstd' "$1"`, sf.agent, sf.Server().Token("image", "push"))
		h.Sh(`nix-store --realise "$1"`, sf.agent)
		sf.userData("h3", "asg", "--identity", "aws")
		begin := time.Now()
		out := h.Exec("/root/user-data")
		s.Took("to the system of the channel (promised: 60 s)", time.Since(begin))
		if out.Code != 0 || !strings.Contains(out.Stderr, "done: ok") {
			s.Fatalf("%v\n%s", out, sf.log())
		}
		sf.runs(s, path, "h3")
		sf.noSecrets(s, "h3")
		if list := sf.ci("hosts", "asg"); !strings.Contains(list, "asg-") || sf.aws.count() == 0 {
			s.Errorf("STS was asked %d times, and the hosts are\n%s", sf.aws.count(), list)
		}
		next := sf.build("asg", "f", `kind = "aws"`)
		sf.ci("promote", "asg", next, "--key", sf.CI().SecretKey("deploy-1"), "--wait", "--wait-timeout", "90s", "--require-hosts", "1")
		sf.runs(s, next, "h3")
	})
	if sf.second.Ended() {
		t.Errorf("the private server has ended: %v", sf.second.Wait(time.Second))
	}
}

func (sf *secured) log() string { return tail(sf.Server().ReadFile("/srv/secured/log"), 15) }
