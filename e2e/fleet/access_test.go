package fleet

import (
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"narwharf/e2e/repository"
)

// A recipe is a section of docs/access.md: what is put into the server's configuration, and what is
// typed on which machine, in this order.
type recipe struct {
	title, toml string
	lines       []string // "server$ …", "ci$ …", "host$ …"
}

func recipes(t *testing.T) (all []recipe) {
	t.Helper()
	text := read(t, filepath.Join(repository.Root, "docs", "access.md"))
	for _, section := range strings.Split(text, "\n## ")[1:] {
		title, body, _ := strings.Cut(section, "\n")
		r := recipe{title: title}
		for _, m := range regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllStringSubmatch(body, -1) {
			r.toml += m[1] + "\n"
		}
		for line := range strings.Lines(body) {
			if line, ok := strings.CutPrefix(line, "    "); ok {
				r.lines = append(r.lines, strings.TrimSpace(line))
			}
		}
		all = append(all, r)
	}
	return all
}

// A kitchen is a server, made anew for each recipe, a machine of CI, and a host: one of AWS, that is off.
type kitchen struct {
	*Fleet
	cloud  *cloud
	aws    *aws
	agent  string
	result string // system
	served string // system of h1 when nobody has a secret
}

// TestAccessRecipes types docs/access.md.
func TestAccessRecipes(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	k := &kitchen{Fleet: New(t, Options{Hosts: 1, Off: true}), cloud: newCloud(t)}
	k.cloud.serve(k.Fleet)
	k.aws, k.agent = newAWS(k.Fleet), k.CI().Agent()
	k.served = k.CI().BuildSystem(System{Version: "served", Agent: k.agent, AgentConfig: strings.NewReplacer(
		"cache/web", "cache/production", `"web"`, `"production"`, "token_file = \"/var/lib/narwharf/token\"\n", "",
	).Replace(agentConfig(k.cloud.public("alias/production"), k.cloud.content())) + "\n[identity]\nkind = \"aws\"\n"})
	k.result = k.CI().BuildSystem(System{Version: "recipe"})
	k.CI().WriteFile("/opt/aws/buildkite-agent", buildkiteAgent, 0o755)
	all := recipes(t)
	if len(all) != 10 {
		t.Errorf("docs/access.md has %d recipes, want ten", len(all))
	}
	for _, r := range all {
		Run(t, "access: "+r.title, func(s *Story) {
			lent := *k
			lent.Fleet = k.Fleet.For(s)
			lent.cook(s, r)
		})
	}
}

// cook types a recipe.
func (k *kitchen) cook(s *Story, r recipe) {
	k.prepare(s, r)
	env, claims := k.job(r)
	k.cloud.as("secret-of-a-job", claims, func(more map[string]string) *Output {
		for name := range more {
			if strings.HasPrefix(r.title, "9. Buildkite") && strings.HasPrefix(name, "ACTIONS_") {
				delete(more, name)
			}
		}
		maps.Copy(more, env)
		if strings.HasPrefix(r.title, "7. GitLab") {
			more["NARWHARF_OIDC_TOKEN"] = k.cloud.word("secret-of-a-job", "http://cache")
		}
		k.types(s, r, more)
		return nil
	})
	if strings.HasPrefix(r.title, "10.") {
		k.follows(s)
	}
}

// types runs the lines of a recipe, those of one machine in one shell.
func (k *kitchen) types(s *Story, r recipe, env map[string]string) {
	for len(r.lines) > 0 {
		machine, _, ok := strings.Cut(r.lines[0], "$ ")
		n := slices.IndexFunc(r.lines, func(l string) bool { return !strings.HasPrefix(l, machine+"$ ") })
		if n < 0 {
			n = len(r.lines)
		}
		lines := ""
		for _, l := range r.lines[:n] {
			lines += strings.TrimPrefix(l, machine+"$ ") + "\n"
		}
		r.lines = r.lines[n:]
		lines = "set -euo pipefail; cd /root/kitchen\n" + strings.NewReplacer("https://cache.example.org", "http://cache").Replace(lines)
		var out Output
		switch {
		case ok && machine == "server":
			out = k.Server().Exec("/bin/bash", "-c", lines)
			for _, name := range strings.Fields(k.Server().Sh("cd /root/kitchen; ls")) {
				k.CI().WriteFile("/root/kitchen/"+name, k.Server().ReadFile("/root/kitchen/"+name), 0o600)
			}
		case ok && machine == "host":
			h := k.Host("h1")
			h.Boot()
			k.aws.give(h)
			h.WriteFile("/root/kitchen/user-data", k.CI().ReadFile("/root/kitchen/user-data"), 0o600)
			out = h.Exec("/bin/bash", "-c", lines)
		case ok && machine == "ci":
			args := []string{"/usr/bin/env", "-i", "HOME=/root/kitchen/home", "NIX_CONFIG=experimental-features = nix-command\nsubstituters =\nsandbox = false\nbuild-users-group ="}
			for _, name := range slices.Sorted(maps.Keys(env)) {
				args = append(args, name+"="+env[name])
			}
			out = k.CI().Exec(append(args, "/bin/bash", "-c", lines)...)
		default:
			s.Fatalf("docs/access.md: where is this typed? %q", lines)
		}
		if out.Code != 0 {
			s.Fatalf("%s\n%v\n%s", lines, out, tail(k.Server().Log(), 10))
		}
	}
}

// follows holds the last recipe to its word: the machine runs what was promoted, by its own agent, and nobody has a secret.
func (k *kitchen) follows(s *Story) {
	s.Helper()
	h := k.Host("h1")
	Eventually(s, time.Minute, "h1 runs the release by its own agent", func() error {
		if st := h.State(); st.Current != k.served || st.Agent != "active" {
			return fmt.Errorf("%+v\n%s", st, tail(h.Journal("narwharf.service"), 10))
		}
		return nil
	})
	if k.aws.count() == 0 || k.cloud.signed[contentAlias] == 0 || k.cloud.signed["alias/production"] == 0 {
		s.Errorf("STS was asked %d times, the key service %v", k.aws.count(), k.cloud.signed)
	}
	if found := h.Sh("grep -rlE 'nwt_[0-9a-z]{10}_' /root /etc /nix/store /nix/var/narwharf/bootstrap || true"); found != "" {
		s.Errorf("a token lies in %s", found)
	}
	for line := range strings.Lines(k.Server().Must("narwharf", "token", "list")) {
		name, _, _ := strings.Cut(line, " ")
		if strings.Contains(line, "never") && name != "cook" && name != "upload" { // the test's own, and init's
			s.Errorf("a token that lasts: %s", line)
		}
	}
}

// prepare makes the server and the CI's folder anew, with what the recipe has for granted.
func (k *kitchen) prepare(s *Story, r recipe) {
	server, ci := k.Server(), k.CI()
	result, toml := k.result, r.toml
	if strings.HasPrefix(r.title, "10.") { // beside what recipe 5 has
		result, toml = k.served, recipes(s.T)[4].toml+toml
	}
	server.Stop()
	server.Sh(`rm -rf /srv/narwharf /root/kitchen; mkdir -p /root/kitchen; narwharf init /srv/narwharf --listen "$1" --key-name cache-1`, serverAddress+":80")
	ci.Sh(`rm -rf /root/kitchen; mkdir -p /root/kitchen/home; cd /root/kitchen; ln -s "$1" result; ln -s "$2" agent; narwharf key generate promoter-1 --out promoter.sec > promoter.pub; echo "$3" > production.pub; echo "$4" > content.pub`,
		result, k.agent, k.cloud.public("alias/production"), k.cloud.content())
	public := "public_url = \"http://cache\"\n"
	plain := server.ReadFile(configFile)
	if toml != "" { // a server starts with it as it stands
		server.WriteFile(configFile, public+plain+"\n"+toml, 0o644)
		server.Start()
		server.Stop()
		toml = regexp.MustCompile(`issuer = .*`).ReplaceAllString(toml, fmt.Sprintf("issuer = %q\nprivate_addresses = true", k.cloud.issuer.URL))
	}
	if strings.HasPrefix(r.title, "3.") {
		plain = regexp.MustCompile(`(?m)^anonymous = .*`).ReplaceAllString(plain, "anonymous = []")
		if !strings.Contains(plain, "anonymous = []") {
			s.Fatalf("no anonymous in\n%s", plain)
		}
	}
	server.WriteFile(configFile, public+plain+"\n"+toml, 0o644)
	server.Start()
	// The cache has the system before, as after a build before; and test-h1 finds a release to change.
	token := server.Token("cook", "push", "promote:*")
	ci.Token(token)
	ci.Sh(`XDG_CACHE_HOME=$(mktemp -d) nix copy --to 'http://cache?compression=zstd' "$1"`, result) // Nix remembers other servers
	if strings.HasPrefix(r.title, "4.") {
		ci.Sh(`cd /root/kitchen; narwharf promote web h1=./result h2=./result --action boot --key promoter.sec`)
	}
}

// job is what the forge of a recipe gives its job, and says of it.
func (k *kitchen) job(r recipe) (env map[string]string, claims map[string]any) {
	claims = map[string]any{"repository_id": "456", "ref": "refs/heads/main", "event_name": "push", "environment": "production"}
	env = map[string]string{"GITHUB_ACTIONS": "true", "GITHUB_SERVER_URL": "https://github.com"}
	switch title := r.title; {
	case strings.Contains(title, "Pull requests"):
		claims["event_name"], claims["environment"], claims["ref"] = "pull_request", "staging", "refs/pull/7/merge"
	case strings.Contains(title, "GitLab"):
		claims = map[string]any{"project_id": "456", "ref": "main", "ref_type": "branch"}
		env = map[string]string{"GITLAB_CI": "true"}
	case strings.Contains(title, "Forgejo"):
		env["GITHUB_SERVER_URL"] = strings.TrimSuffix(k.cloud.issuer.URL, "/api/actions")
	case strings.Contains(title, "Buildkite"):
		claims = map[string]any{"organization_slug": "acme", "pipeline_slug": "fleet", "build_branch": "main"}
		env = map[string]string{"BUILDKITE": "true"}
	}
	env["PATH"] = "/opt/aws:/opt/nix/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	return env, claims
}
