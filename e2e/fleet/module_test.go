package fleet

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"narwharf/e2e/repository"
)

// golden is what Nix made of the NixOS modules for a configuration of nixos/tests/configurations.nix.
func golden(configuration string) string {
	return filepath.Join(repository.Root, "nixos/tests/golden/units", configuration)
}

// inStore is a path in the store of golden files, whose hash is left out there.
var inStore = regexp.MustCompile(`/nix/store/…-([^/\s"]+)(/bin/[^\s"]+)?`)

// here is where a test's host has what a path in the store of a real one is.
func here(path string) string {
	m := inStore.FindStringSubmatch(path)
	switch name, program := m[1], m[2]; {
	case program == "/bin/narwharf":
		return "/usr/local/bin/narwharf"
	case program == "/bin/kill": // Debian has none without procps
		return "/usr/local/lib/narwharf/kill"
	case program != "":
		return program
	case name == "narwharf.toml":
		return "/etc/narwharf/config.toml"
	case strings.HasSuffix(name, ".toml"):
		return "/etc/narwharf/" + strings.TrimPrefix(name, "narwharf-")
	default:
		return "/usr/local/lib/narwharf/" + strings.ReplaceAll(name, "token", "right") // a file called token is nobody's to run here
	}
}

// moduleFiles are the files of a host that is configured so.
func moduleFiles(t *testing.T, configuration string) map[string]string {
	t.Helper()
	program, err := os.ReadFile(os.Getenv("NARWHARF_BIN"))
	if err != nil {
		lacking(t, "no binary: run make build and set NARWHARF_BIN: %v", err)
	}
	files := map[string]string{
		"usr/local/bin/narwharf!":      string(program),
		"usr/local/lib/narwharf/kill!": "#!/bin/sh\nkill \"$@\"\n",
		"etc/sysusers.d/narwharf.conf": "u narwharf -\nu narwharf-pr -\n",
	}
	found, err := filepath.Glob(filepath.Join(golden(configuration), "*"))
	if err != nil || len(found) == 0 {
		t.Fatalf("%s: %v: make nixos-eval", golden(configuration), err)
	}
	for _, name := range found {
		var text strings.Builder
		for line := range strings.Lines(read(t, name)) {
			if !strings.HasPrefix(line, "Environment=") || !strings.Contains(line, "/nix/store/") { // PATH and the like of NixOS
				text.WriteString(inStore.ReplaceAllStringFunc(line, here))
			}
		}
		base := filepath.Base(name)
		switch filepath.Ext(base) {
		case ".service", ".socket":
			files["etc/systemd/system/"+base] = text.String()
		case ".sh":
			files[strings.TrimPrefix(here("/nix/store/…-"+strings.TrimSuffix(base, ".sh")), "/")+"!"] = text.String()
		case ".toml":
			files["etc/narwharf/"+base] = text.String()
		}
	}
	return files
}

// TestServerModule starts the server's units as the NixOS module writes them, on a real systemd.
func TestServerModule(t *testing.T) {
	t.Parallel()
	configurations := map[string]string{"h1": "server-instances", "h2": "server-store"}
	f := New(t, Options{Hosts: 2, Host: func(f *Fleet, name string, h *HostOptions) {
		h.Suite = "bookworm"
		for file, text := range moduleFiles(t, configurations[name]) {
			h.Files[file] = text
		}
	}})
	tell := func(name string, story func(s *Story, f *Fleet)) {
		Run(t, name, func(s *Story) { story(s, f.For(s)) })
	}
	tell("a cache and one for pull requests, side by side", sideBySide)
	tell("tokens are those that the configuration declares", declaredTokens)
	tell("a user that systemd makes, the store by its daemon, keys as credentials, port 80", dynamic)
	tell("the sandbox", sandboxed)
	tell("a restart refuses nobody, and a reload is told", restarted)
	tell("a server that hangs is started anew", watched)
}

// property is what systemctl show says of a unit.
func property(h *Host, unit, name string) string {
	return strings.TrimSpace(h.Must("systemctl", "show", "--value", "-p", name, unit))
}

func startUnits(s *Story, h *Host, names ...string) {
	s.Helper()
	h.Must("systemctl", "daemon-reload")
	for _, name := range names {
		h.Must("systemctl", "start", name+".socket")
		if out := h.Exec("systemctl", "start", name+".service"); out.Code != 0 {
			s.Fatalf("%v\n%s", out, h.Exec("journalctl", "--no-pager", "-u", name+".service").Stdout)
		}
	}
}

func sideBySide(s *Story, f *Fleet) {
	h := f.Host("h1")
	startUnits(s, h, "narwharf", "narwharf-pr")
	for _, name := range []string{"narwharf", "narwharf-pr"} {
		if got := h.Must("curl", "-fsS", "--unix-socket", "/run/"+name+"/http.sock", "http://cache/nix-cache-info"); !strings.Contains(got, "StoreDir: /nix/store") {
			s.Errorf("%s answers %q", name, got)
		}
		if got := strings.TrimSpace(h.Must("stat", "-c", "%U %a", "/var/lib/"+name)); got != name+" 750" {
			s.Errorf("/var/lib/%s is %s", name, got)
		}
	}
	token := strings.TrimSpace(h.Must("cat", "/var/lib/narwharf-pr/tokens.d/ci"))
	upload := func(name string) Output {
		return h.Exec("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-u", "x:"+token, "-T", "/etc/hostname", "--unix-socket", "/run/"+name+"/http.sock", "http://cache/nar/0000000000000000000000000000000000000000000000000000.nar")
	}
	if pr, main := upload("narwharf-pr").Stdout, upload("narwharf").Stdout; pr == "401" || pr == "403" || main != "401" {
		s.Errorf("with the token of the cache for pull requests that answers %s and the other %s", pr, main)
	}
	keys := h.Must("sh", "-c", "cat /var/lib/narwharf/keys/*.pub /var/lib/narwharf-pr/keys/*.pub")
	if !strings.Contains(keys, "cache.example.org-1:") || !strings.Contains(keys, "pr.example.org-1:") {
		s.Errorf("the keys are %s", keys)
	}
	if out := h.Exec("setpriv", "--reuid=narwharf-pr", "--regid=narwharf-pr", "--clear-groups", "ls", "/var/lib/narwharf"); out.Code == 0 {
		s.Errorf("the user of the cache for pull requests reads the other's data: %s", out.Stdout)
	}
}

// declaredTokens: one that the configuration has no more ends with the next start, one that it has otherwise is made
// anew, and one that a person made stays.
func declaredTokens(s *Story, f *Fleet) {
	h := f.Host("h1")
	const script = "/usr/local/lib/narwharf/narwharf-pr-rights"
	status := func(token string) string {
		return h.Exec("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-u", "x:"+token, "-T", "/etc/hostname", "--unix-socket", "/run/narwharf-pr/http.sock", "http://cache/nar/0000000000000000000000000000000000000000000000000000.nar").Stdout
	}
	declare := func(json string) {
		s.Helper()
		h.Sh(`sed -i "s|^{.*|$1|" "$2"`, json, script)
		if text := h.ReadFile(script); !strings.Contains(text, "\n"+json+"\n") {
			s.Fatalf("the script is\n%s", text)
		}
		if out := h.Exec("systemctl", "restart", "narwharf-pr.service"); out.Code != 0 {
			s.Fatalf("%v\n%s", out, tail(h.Journal("narwharf-pr.service"), 10))
		}
	}
	declared := h.Must("cat", "/var/lib/narwharf-pr/tokens.d/ci")
	byHand := h.Must("narwharf", "token", "new", "--config", "/etc/narwharf/pr.toml", "--name", "hand", "--scope", "push")
	if a, b := status(declared), status(byHand); a == "401" || b == "401" {
		s.Fatalf("before: %s, %s", a, b)
	}
	declare(`{"ci":{"scopes":["pull"]}}`)
	less := h.Must("cat", "/var/lib/narwharf-pr/tokens.d/ci")
	if a, b, c := status(declared), status(less), status(byHand); a != "401" || b != "403" || c == "401" {
		s.Errorf("with fewer rights: the token of before %s, want 401; the one of now %s, want 403; the one by hand %s", a, b, c)
	}
	declare(`{}`)
	if a, b := status(less), status(byHand); a != "401" || b == "401" {
		s.Errorf("declared no more: %s, want 401; the one by hand %s", a, b)
	}
	if out := h.Exec("ls", "/var/lib/narwharf-pr/tokens.d/ci"); out.Code == 0 {
		s.Error("its file is there still")
	}
}

func dynamic(s *Story, f *Fleet) {
	h := f.Host("h2")
	h.Sh("mkdir -m 700 /etc/secrets; narwharf key generate cache-1 --out /etc/secrets/cache.sec")
	// Debian's daemon is for a group; on NixOS it is for everybody.
	h.Sh("systemctl start nix-daemon.socket; chmod 755 /nix/var/nix/daemon-socket; chmod 666 /nix/var/nix/daemon-socket/socket")
	startUnits(s, h, "narwharf")
	path := strings.TrimSpace(h.Must("readlink", "-f", "/run/current-system"))
	hash := strings.SplitN(filepath.Base(path), "-", 2)[0]
	info := h.Must("curl", "-fsS", "http://127.0.0.1/"+hash+".narinfo")
	if !strings.Contains(info, "Sig: cache-1:") {
		s.Errorf("the narinfo of %s is %s", path, info)
	}
	_, rest, _ := strings.Cut(info, "\nURL: ")
	url, _, _ := strings.Cut(rest, "\n")
	if n, err := strconv.Atoi(h.Must("sh", "-c", "curl -fsS http://127.0.0.1:8080/"+url+" | wc -c | tr -d '\n'")); err != nil || n < 100 {
		s.Errorf("the NAR has %d bytes: %v", n, err)
	}
	if uid := property(h, "narwharf.service", "UID"); uid == "0" || uid == "[not set]" {
		s.Errorf("it runs as %s", uid)
	}
}

// sandboxed: systemd's own judgement of the unit is 1.5 or better.
func sandboxed(s *Story, f *Fleet) {
	for _, h := range f.Hosts() {
		out := h.Must("systemd-analyze", "security", "--no-pager", "--offline=true", "/etc/systemd/system/narwharf.service") //nolint:misspell // the program is called so
		_, rest, _ := strings.Cut(out, "Overall exposure level for narwharf.service: ")
		var level float64
		if _, err := fmt.Sscan(rest, &level); err != nil || level > 1.5 {
			s.Errorf("%s: %v\n%s", h.Name(), err, out)
		}
		s.Note("%s: exposure %.1f", h.Name(), level)
	}
}

func restarted(s *Story, f *Fleet) {
	h := f.Host("h2")
	h.Sh(`i=0; rm -f /run/refused; touch /run/asking
while [ -e /run/asking ]; do curl -fsS -o /dev/null http://127.0.0.1:8080/nix-cache-info || echo "request $i" >> /run/refused; i=$((i+1)); done > /run/asked 2>&1 &
for n in 1 2 3; do systemctl restart narwharf.service; done
rm /run/asking; wait`)
	if out := h.Exec("cat", "/run/refused"); out.Code == 0 {
		s.Errorf("during restarts these were not answered:\n%s%s", out.Stdout, h.Exec("cat", "/run/asked").Stdout)
	}
	h.Must("systemctl", "reload", "narwharf.service")
	Eventually(s, 10*time.Second, "the service is well after a reload", func() error {
		if state, text := property(h, "narwharf.service", "SubState"), property(h, "narwharf.service", "StatusText"); state != "running" || !strings.HasPrefix(text, "serving, ") && !strings.HasPrefix(text, "reading keys") {
			return fmt.Errorf("%s, %q", state, text)
		}
		return nil
	})
	if log := h.Journal("narwharf.service"); !strings.Contains(log, "SIGHUP: read the secret keys again") {
		s.Errorf("the log of a reload:\n%s", log)
	}
}

func watched(s *Story, f *Fleet) {
	h := f.Host("h2")
	h.Sh("mkdir -p /run/systemd/system/narwharf.service.d; printf '[Service]\nWatchdogSec=3s\n' > /run/systemd/system/narwharf.service.d/fast.conf; systemctl daemon-reload; systemctl restart narwharf.service")
	pid := property(h, "narwharf.service", "MainPID")
	h.Must("sh", "-c", "kill -STOP "+pid)
	Eventually(s, time.Minute, "systemd starts it anew", func() error {
		if now := property(h, "narwharf.service", "MainPID"); now == pid || now == "0" || property(h, "narwharf.service", "SubState") != "running" {
			return fmt.Errorf("it is %s, %s", now, property(h, "narwharf.service", "SubState"))
		}
		return nil
	})
	h.Must("curl", "-fsS", "http://127.0.0.1:8080/readyz")
}

// TestClientModule: what a machine builds is uploaded by the unit of the NixOS module, within its sandbox.
func TestClientModule(t *testing.T) {
	t.Parallel()
	f := New(t, Options{Hosts: 2, Host: func(_ *Fleet, _ string, h *HostOptions) {
		for file, text := range moduleFiles(t, "client-uploads") {
			if strings.HasSuffix(file, ".service") {
				text = strings.ReplaceAll(text, "https://cache.example.org", "http://"+serverName)
			}
			h.Files[file] = text
		}
	}})
	Run(t, "what was built here is uploaded", func(s *Story) {
		f := f.For(s)
		token := f.Server().Token("builders", "push")
		for _, h := range f.Hosts() {
			h.WriteFile("/run/secrets/netrc", "machine "+serverName+"\nlogin x\npassword "+token+"\n", 0o600)
			h.Must("systemctl", "daemon-reload")
			h.Must("systemctl", "start", "narwharf-upload.service")
			path := strings.TrimSpace(h.Sh("date +%N > /tmp/built; nix-store --add /tmp/built"))
			h.Sh(`OUT_PATHS=$1 narwharf upload-hook --queue /var/lib/narwharf-upload`, path)
			Eventually(s, time.Minute, "it is uploaded", func() error {
				if out := h.Exec("narwharf", "upload-hook", "status"); !strings.Contains(out.Stdout, "nothing is queued") {
					return fmt.Errorf("%v\n%s", out, tail(h.Journal("narwharf-upload.service"), 10))
				}
				return nil
			})
			hash, _, _ := strings.Cut(filepath.Base(path), "-")
			h.Must("curl", "-fsS", "http://"+serverName+"/"+hash+".narinfo")
			if out := h.Exec("nix-store", "--query", "--roots", path); out.Stdout != "" {
				s.Errorf("%s: what was sent is a root still: %v", h.Name(), out)
			}
		}
	})
}

// serviceSettings are the lines of [Service] in the agent's unit that say what it may.
func serviceSettings(t *testing.T, unit string) string {
	t.Helper()
	_, service, _ := strings.Cut(read(t, unit), "[Service]\n")
	service, _, _ = strings.Cut(service, "\n[")
	var lines strings.Builder
	for line := range strings.Lines(service) {
		if name, _, ok := strings.Cut(line, "="); ok && name != "Environment" && name != "EnvironmentFile" && name != "ExecStart" && !strings.HasPrefix(name, "X-") {
			lines.WriteString(line)
		}
	}
	return lines.String()
}

// TestAgentModule: with the unit of the NixOS module an agent switches and goes back.
func TestAgentModule(t *testing.T) {
	t.Parallel()
	settings := serviceSettings(t, filepath.Join(golden("agent-whole"), "narwharf-agent.service"))
	if !strings.Contains(settings, "LockPersonality=true") || !strings.Contains(settings, "UMask=0077") {
		t.Fatalf("the unit has %s", settings)
	}
	fw := newFollowerOf(t, 2, func(toml string) string {
		return toml + "\n[metrics]\ntextfile = \"/run/narwharf-agent/narwharf.prom\"\n"
	})
	with := func(s *System) { s.AgentService = settings + "Environment=NIX_REMOTE=\n" }
	fw.story(t, "the unit of the module", func(s *Story, fw *follower) {
		first := fw.system("first", with)
		fw.promote(0, first)
		fw.run(first, "first", "ok")
		second := fw.system("second", with, func(s *System) { s.Etc = map[string]string{"etc/second": "x"} })
		fw.promote(0, second) // by agents that were started by the unit
		fw.run(second, "second", "ok")
		fw.promote(3, fw.system("ill", with, func(s *System) { s.Misbehave = []Misbehaviour{Unhealthy} }))
		fw.run(second, "second", "reverted")
		for _, h := range fw.Hosts() {
			if got := property(h, "narwharf.service", "OOMScoreAdjust") + property(h, "narwharf.service", "LockPersonality"); got != "-500yes" {
				s.Errorf("%s: the unit has %s", h.Name(), got)
			}
			if got := strings.Fields(h.Must("stat", "-c", "%a", "/run/narwharf-agent", "/run/narwharf-agent/narwharf.prom")); !slices.Equal(got, []string{"755", "644"}) {
				s.Errorf("%s: metrics are %s", h.Name(), got)
			}
		}
	})
}
