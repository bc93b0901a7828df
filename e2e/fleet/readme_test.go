package fleet

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pelletier/go-toml/v2"

	"narwharf/e2e/repository"
)

// TestReadme takes the README at its word: the commands and the configuration of its second screen,
// from `narwharf init` to a host that follows a channel. What it cannot take literally is nixpkgs: the
// host's configuration is a system of this package instead.
func TestReadme(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	f := New(t, Options{Hosts: 1})
	w := &walk{f: f, ci: f.CI(), blocks: readmeBlocks(t, "## From here to hosts that follow a channel")}
	if len(w.blocks) != 5 {
		t.Fatalf("the section has %d blocks of code, and this test knows five: server, tokens and keys, the host's configuration, promote, curl\n%q", len(w.blocks), w.blocks)
	}
	Run(t, "README: from init to a host that follows", func(s *Story) {
		w.f, w.ci = f.For(s), f.For(s).CI()
		s.Note("%d commands", w.follow(s))
	})
	Run(t, "README: promote, roll back, curl", func(s *Story) {
		w.f, w.ci = f.For(s), f.For(s).CI()
		w.deploy(s)
	})
}

// readmeBlocks are the indented blocks of code below a heading of the README.
func readmeBlocks(t *testing.T, heading string) []string {
	t.Helper()
	_, section, found := strings.Cut(read(t, filepath.Join(repository.Root, "README.md")), heading+"\n")
	if !found {
		t.Fatalf("the README has no %q", heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var blocks []string
	inside := false
	indent := ""
	for _, line := range strings.Split(section, "\n") {
		if !strings.HasPrefix(line, "    ") {
			inside = inside && line == ""
			continue
		}
		if !inside {
			indent = line[:len(line)-len(strings.TrimLeft(line, " "))]
			blocks = append(blocks, "")
		}
		inside = true
		// The machine of CI is the one of the server here, and uploads, as the README's is.
		line = strings.ReplaceAll(strings.TrimPrefix(line, indent), "cache.example.org", "ci")
		blocks[len(blocks)-1] += line + "\n"
	}
	return blocks
}

// walk is a walk through the README on the machine `ci`, in /root/walk, and on the host h1.
type walk struct {
	f      *Fleet
	ci     *CI
	blocks []string
	agent  string // agent.toml
	cache  string // public key of the cache
}

// type runs lines as they stand in the README.
func (w *walk) typed(lines string) Output {
	w.f.T.Helper()
	out := w.ci.Exec("/bin/bash", "-euc", "mkdir -p /root/walk; cd /root/walk\n"+lines)
	if out.Code != 0 {
		w.f.T.Fatalf("the README says\n%s\n%v", lines, out)
	}
	return out
}

// follow takes the steps 1 to 3 and returns how many commands they are.
func (w *walk) follow(s *Story) int {
	begin := time.Now()
	server := strings.Split(strings.TrimSpace(w.blocks[0]), "\n")
	if len(server) != 2 || !strings.HasPrefix(server[1], "narwharf serve") {
		s.Fatalf("init and serve are %q", server)
	}
	w.typed(server[0])
	serve := w.ci.Start("/bin/sh", "-c", "cd /root/walk; exec "+server[1])
	Eventually(s, 20*time.Second, "the server of the README serves", func() error {
		if serve.Ended() {
			return fmt.Errorf("it ended: %v", serve.Wait(time.Second))
		}
		if got := w.f.Host("h1").Reach("ci:8080"); got != "open" {
			return fmt.Errorf("port 8080 is %s", got)
		}
		// It says that it serves when commands can ask it, too.
		if w.ci.Exec("test", "-S", "/root/walk/data/admin.sock").Code != 0 {
			return fmt.Errorf("no admin socket")
		}
		return nil
	})
	alice := w.typed(w.blocks[1]).Line()
	w.cache = w.typed("cat data/keys/*.pub").Line()

	h := w.f.Host("h1")
	w.agent = w.settings(s, w.blocks[2], map[string]string{"alice-1:AbCd…=": alice, "my-machine-1:AbCd…=": w.cache})
	h.WriteFile("/var/lib/narwharf/hosts.token", w.ci.ReadFile("/root/.config/narwharf/hosts.token"), 0o600)
	// In place of `nixos-rebuild switch`.
	first := w.ci.BuildSystem(System{Version: "rebuilt", Agent: w.ci.Agent(), AgentConfig: w.agent})
	w.ci.Push(first)
	h.Must("nix-store", "--realise", first)
	h.SetProfile(first)
	if out := h.Switch(first, "switch"); out.Code != 0 {
		s.Fatalf("%v", out)
	}
	Eventually(s, 30*time.Second, "`narwharf agent status` says idle", func() error {
		if out := h.Exec("narwharf", "agent", "status"); out.Code != 0 || !strings.Contains(out.Stdout, "idle") {
			return fmt.Errorf("%v\n%s", out, tail(h.Journal("narwharf.service"), 10))
		}
		return nil
	})
	s.Took("all of it", time.Since(begin))

	const copyToken, rebuild = 1, 1
	commands := len(server) + strings.Count(w.blocks[1], "\n") + copyToken + rebuild
	if commands >= 10 {
		s.Errorf("%d commands from init to a host that follows a channel: promised are less than ten", commands)
	}
	return commands
}

// settings makes agent.toml of the README's NixOS configuration, as the module does.
func (w *walk) settings(s *Story, block string, values map[string]string) string {
	before, rest, found := strings.Cut(block, "settings = {")
	text, _, ended := strings.Cut(rest, before[strings.LastIndexByte(before, '\n'):]+"};") // as far in as it began
	if !found || !ended || !strings.Contains(block, "services.narwharf-agent = {") {
		s.Fatalf("no settings in\n%s", block)
	}
	for placeholder, value := range values {
		if !strings.Contains(text, placeholder) {
			s.Errorf("no %s in\n%s", placeholder, text)
		}
		text = strings.ReplaceAll(text, placeholder, value)
	}
	out := w.ci.Must("nix-instantiate", "--eval", "--strict", "--json", "--expr", "{"+text+"}")
	settings := map[string]any{"host": "h1", "target": "h1"} // defaults of the module: the host's name
	if err := json.Unmarshal([]byte(out), &settings); err != nil {
		s.Fatalf("%v: %s", err, out)
	}
	config, err := toml.Marshal(settings)
	if err != nil {
		s.Fatal(err)
	}
	return string(config)
}

// deploy takes step 4 and what comes after it.
func (w *walk) deploy(s *Story) {
	lines := strings.Split(strings.TrimSpace(w.blocks[3]), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[0], "nix-build ") || !strings.HasPrefix(lines[2], "narwharf promote ") {
		s.Fatalf("build, copy and promote are %q", lines)
	}
	h := w.f.Host("h1")
	var paths []string
	for _, version := range []string{"web-1", "web-2"} {
		path := w.ci.BuildSystem(System{Version: version, Agent: w.ci.Agent(), AgentConfig: w.agent})
		paths = append(paths, path)
		w.typed("ln -sfn " + path + " result")
		begin := time.Now()
		out := w.typed(lines[1] + "\n" + lines[2])
		s.Took("copy and promote", time.Since(begin))
		if st := h.State(); st.Current != path || st.Profile != path || st.BootEntry != path || st.Hello != version {
			s.Errorf("after promote: %+v\n%v", st, out)
		}
	}
	// "`narwharf rollback web`, with the same flags, returns to the release before." Nobody is here to be asked.
	w.typed(strings.Replace(lines[2], "narwharf promote web ./result", "narwharf rollback web --to last-good", 1))
	if st := h.State(); st.Current != paths[0] || st.Hello != "web-1" {
		s.Errorf("after rollback: %+v", st)
	}

	// Without NixOS: any path, and a host without the agent, which trusts the cache.
	path := w.typed(`mkdir -p site; date +%N > site/index; nix-store --add site`).Line()
	w.typed("ln -sfn " + path + " result\n" + lines[1])
	w.typed("narwharf token new --config data/config.toml --name site --scope pull,promote:site --out ~/.config/narwharf/site.token")
	promote := strings.NewReplacer("promote web", "promote site --kind path", "alice.token", "site.token", " --wait", "").Replace(lines[2])
	w.typed(promote)
	curl := strings.Replace(strings.TrimSpace(w.blocks[4]), "channels/web", "channels/site", 1)
	got := h.Sh(`export NIX_CONFIG="extra-substituters = http://ci:8080
extra-trusted-public-keys = $1"
`+curl, w.cache)
	if got != path {
		s.Errorf("%s: %q, want %s", curl, got, path)
	}
}
