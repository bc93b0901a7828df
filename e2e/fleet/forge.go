package fleet

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"narwharf/e2e/repository"
)

// A Repository is a flake in a folder of the CI machine, with the files of docs/ci copied to where
// they say that they belong.
type Repository struct {
	ci  *CI
	dir string
	run *int // counts pipelines, of all forges
}

// A Pipeline is what a forge starts a job with.
type Pipeline struct {
	Event   string            // push, pull_request, workflow_dispatch
	Ref     string            // refs/heads/main
	Default string            // refs/heads/main, if not named
	Vars    map[string]string // of the project
	Secrets map[string]string // of the project; a pull request of a fork is given none
	Inputs  map[string]string // of a run that somebody started
	Env     map[string]string // further variables of the forge: those of its OIDC
	Labels  []string          // of the pull request
	Rerun   int               // the number that it had, if it is run again
	Fork    bool              // a pull request of somebody else's repository

	// idToken is GitLab's word for the job; other forges are asked for it, by what Env has.
	idToken func(audience string) (jwt string)
	byHand  bool // what it does is typed, and cleans nothing up
}

// The files of docs/ci, and where their first lines say that they are copied to.
var copied = map[string]string{
	"github/action.yml": ".github/actions/narwharf/action.yml",
	"github/deploy.yml": ".github/workflows/deploy.yml",
	"forgejo.yml":       ".forgejo/workflows/deploy.yml",
	"gitlab-ci.yml":     ".gitlab-ci.yml",
	"buildkite.yml":     ".buildkite/pipeline.yml",
}

// NewRepository makes a repository whose flake has the systems of some hosts. Nix evaluates a flake
// without the machine it is on, so toplevel.nix gets here what it would ask it for.
func (c *CI) NewRepository(name string) *Repository {
	c.T.Helper()
	r := &Repository{ci: c, dir: "/root/" + name, run: new(int)}
	for from, to := range copied {
		text := readCI(c.T, from)
		if !strings.Contains(text, to) && !strings.Contains(text, path.Dir(to)) {
			c.T.Errorf("docs/ci/%s does not say that it belongs to %s", from, to)
		}
		r.write(to, text, 0o644)
	}
	for _, to := range []string{"ci/deploy.sh", ".github/actions/narwharf/deploy.sh"} {
		r.write(to, readCI(c.T, "deploy.sh"), 0o755)
	}
	for _, script := range []string{"switch-to-configuration.sh", "activate.sh", "install-bootloader.sh"} {
		r.write(script, c.ReadFile("/fleet/"+script), 0o644)
	}
	system := c.Must("nix-instantiate", "--eval", "--expr", "builtins.currentSystem")
	r.write("toplevel.nix", strings.NewReplacer(
		"builtins.currentSystem", system,
		"builtins.storePath agent", "builtins.appendContext agent { ${agent}.path = true; }",
	).Replace(c.ReadFile("/fleet/toplevel.nix")), 0o644)
	r.write("flake.nix", `{
  outputs = _: {
    nixosConfigurations = builtins.mapAttrs
      (_: system: { config.system.build.toplevel = builtins.head (import ./toplevel.nix { json = builtins.toJSON [ system ]; }); })
      (builtins.fromJSON (builtins.readFile ./hosts.json));
  };
}
`, 0o644)
	return r
}

func readCI(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository.Root, "docs", "ci", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func (r *Repository) write(name, text string, mode os.FileMode) {
	r.ci.T.Helper()
	r.ci.WriteFile(r.dir+"/"+name, text, mode)
}

// For is the same repository for a subtest.
func (r *Repository) For(f *Fleet) *Repository {
	lent := *r
	lent.ci = f.CI()
	return &lent
}

// Commit says what the hosts are from now on.
func (r *Repository) Commit(hosts map[string]System) {
	r.ci.T.Helper()
	text, err := json.Marshal(hosts)
	if err != nil {
		r.ci.T.Fatal(err)
	}
	r.write("hosts.json", string(text), 0o644)
}

// job is what becomes of a pipeline: nil, if the forge's file has nothing for it.
type job struct {
	*Repository
	Pipeline
	contexts map[string]any
	env      map[string]string
	nixConf  string
	out      Output
}

// begin makes a job with a home of its own and a Nix that has remembered nothing. narwharf is not in
// its PATH.
func (r *Repository) begin(p Pipeline, contexts map[string]any, env map[string]string) *job {
	r.ci.T.Helper()
	if p.Rerun == 0 {
		*r.run++
	}
	j := &job{Repository: r, Pipeline: p, contexts: contexts, env: env}
	j.nixConf = "sandbox = false\nbuild-users-group =\nbuilders =\nsubstituters =\n"
	home := r.ci.Must("mktemp", "-d")
	j.env = map[string]string{"HOME": home, "NIX_CONF_DIR": home, "CI": "true", "PATH": "/opt/nix/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "TMPDIR": home}
	maps.Copy(j.env, env)
	maps.Copy(j.env, p.Env)
	return j
}

func (r *Repository) number(p Pipeline) string {
	if p.Rerun != 0 {
		return fmt.Sprint(p.Rerun)
	}
	return fmt.Sprint(*r.run + 1)
}

// shell runs lines as a step of a job, with the words of the forge's shell before them. It reports
// whether the job goes on.
func (j *job) shell(shell []string, lines string, env map[string]string) bool {
	j.ci.T.Helper()
	j.ci.WriteFile(j.env["HOME"]+"/nix.conf", j.nixConf, 0o644)
	j.ci.WriteFile(j.env["HOME"]+"/step", lines, 0o755)
	all := maps.Clone(j.env)
	maps.Copy(all, env)
	args := []string{"/usr/bin/env", "-i", "-C", j.dir}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		args = append(args, name+"="+all[name])
	}
	out := j.ci.ExecFor(5*time.Minute, append(append(args, shell...), j.env["HOME"]+"/step")...)
	j.out.Command, j.out.Code = lines, out.Code
	j.out.Stdout += out.Stdout
	j.out.Stderr += out.Stderr
	j.out.Took += out.Took
	return out.Code == 0
}

// end is what the job left: nothing but its output.
func (j *job) end() *Output {
	j.ci.T.Helper()
	if left := j.ci.Sh(`find "$1" -name 'NARWHARF_*' -o -name netrc`, j.env["HOME"]); left != "" && !j.byHand {
		j.ci.T.Errorf("a secret lies about after the job: %s", left)
	}
	return &j.out
}

func asMap(value any) map[string]any {
	m, _ := value.(map[string]any)
	return m
}

func asTexts(value any) (list []string) {
	if one, ok := value.(string); ok {
		return []string{one}
	}
	all, _ := value.([]any)
	for _, v := range all {
		list = append(list, asText(v))
	}
	return list
}

func (r *Repository) file(name string) map[string]any {
	r.ci.T.Helper()
	var file map[string]any
	if err := yaml.Unmarshal([]byte(r.ci.ReadFile(r.dir+"/"+name)), &file); err != nil {
		r.ci.T.Fatalf("%s: %v", name, err)
	}
	return file
}

// must stops the test for what this imitation of a forge does not know.
func (r *Repository) must(err error) {
	r.ci.T.Helper()
	if err != nil {
		r.ci.T.Fatal(err)
	}
}
