package fleet

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// ciFleet is what the files of docs/ci are for: a cache with the channel "production", which h1 and
// h2 follow, another with "staging", which h3 follows, and a repository with all of them.
type ciFleet struct {
	*Fleet
	repo       *Repository
	agent      string
	second     *Job              // the server of pull requests
	configs    map[string]string // agent.toml of each host
	production Pipeline          // what a job for production has; tests add event and ref
	staging    Pipeline
	labels     *atomic.Pointer[[]string] // of the pull request that main's commit came by
}

const pullConfig = "/srv/pulls/config.toml"

// newCIFleet boots it. Hosts believe the keys that keys names: a promoter's and a content key for
// production, and for staging.
func newCIFleet(t *testing.T, keys func(*Fleet) [4]string) *ciFleet {
	t.Helper()
	cf := &ciFleet{configs: map[string]string{}, labels: new(atomic.Pointer[[]string])}
	tokens := map[string]string{}
	cf.Fleet = New(t, Options{Hosts: 3, Host: func(f *Fleet, name string, h *HostOptions) {
		if cf.agent == "" {
			cf.prepare(f, keys)
			tokens["h1"] = f.Server().Token("hosts", "follow:production")
			tokens["h2"] = tokens["h1"]
			tokens["h3"] = f.Server().Must("narwharf", "token", "new", "--config", pullConfig, "--name", "hosts", "--scope", "follow:staging")
		}
		h.Files["var/lib/narwharf/token"] = tokens[name]
		*h.System = cf.system(name, "0")
	}})
	cf.repo = cf.CI().NewRepository("fleet")
	cf.api(t)
	vars := map[string]string{
		"NARWHARF_SERVER": cf.Server().URL(), "NARWHARF_PR_SERVER": cf.Server().URL() + ":81", "NARWHARF_PACKAGE": cf.agent,
		"NARWHARF_PUBLIC_KEYS": cf.Key("cache-1") + " " + cf.Key(ciKey),
	}
	cf.production = Pipeline{Ref: "refs/heads/main", Vars: vars}
	cf.staging = Pipeline{Event: "pull_request", Ref: "refs/heads/feature", Vars: vars}
	return cf
}

// stored is a fleet with a token and keys in the forge's secret store.
func stored(t *testing.T) *ciFleet {
	t.Helper()
	cf := newCIFleet(t, func(f *Fleet) [4]string {
		return [4]string{f.CI().NewKey("production-1"), f.Key(ciKey), f.CI().NewKey("staging-1"), f.CI().NewKey("pulls-1")}
	})
	secret := func(name string) string { return strings.TrimSpace(cf.CI().ReadFile(cf.CI().SecretKey(name))) }
	cf.production.Secrets = map[string]string{
		"NARWHARF_TOKEN": cf.Server().Token("main", "push", "promote:production"), "NARWHARF_KEY": secret("production-1"), "NARWHARF_CONTENT_KEY": secret(ciKey),
	}
	cf.staging.Secrets = map[string]string{
		"NARWHARF_TOKEN": cf.pulls("token", "new", "--name", "pulls", "--scope", "push,promote:staging"),
		"NARWHARF_KEY":   secret("staging-1"), "NARWHARF_CONTENT_KEY": secret("pulls-1"),
	}
	return cf
}

// pulls runs a command on the cache of pull requests.
func (cf *ciFleet) pulls(args ...string) string {
	cf.T.Helper()
	return cf.Server().Must(append(append([]string{"narwharf"}, args...), "--config", pullConfig)...)
}

// prepare makes keys, the cache of pull requests and the hosts' configurations.
func (cf *ciFleet) prepare(f *Fleet, keys func(*Fleet) [4]string) {
	f.Server().Must("narwharf", "init", "/srv/pulls", "--listen", serverAddress+":81", "--key-name", "pulls-cache-1")
	cf.second = f.Server().Machine.Start("narwharf", "serve", "--config", pullConfig)
	f.keys["pulls-cache-1"] = f.Server().Sh("cat /srv/pulls/keys/*.pub")
	believed := keys(f)
	production := agentConfig(believed[0], believed[1])
	production = strings.ReplaceAll(strings.ReplaceAll(production, "cache/web", "cache/production"), `"web"`, `"production"`)
	staging := agentConfig(believed[2], believed[3])
	staging = strings.NewReplacer("cache/web", "cache/staging", `"web"`, `"staging"`, "http://cache", "http://cache:81").Replace(staging)
	cf.configs["h1"], cf.configs["h2"], cf.configs["h3"] = production, production, staging
	cf.agent = f.CI().Agent()
}

func (cf *ciFleet) system(host, version string, more ...func(*System)) System {
	s := System{Version: version, Agent: cf.agent, AgentConfig: cf.configs[host]}
	for _, m := range more {
		m(&s)
	}
	return s
}

// api is as much of the forge's API as is asked for labels.
func (cf *ciFleet) api(t *testing.T) {
	t.Helper()
	listener, err := cf.CI().Listen(9443)
	if err != nil {
		t.Fatal(err)
	}
	cf.labels.Store(&[]string{})
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		labels := []any{}
		for _, l := range *cf.labels.Load() {
			labels = append(labels, map[string]any{"id": 1, "name": l})
		}
		pull := map[string]any{"number": 7, "labels": labels}
		switch {
		case r.Header.Get("Authorization") != "Bearer ghs_of-this-job":
			w.WriteHeader(http.StatusForbidden)
		case strings.HasPrefix(r.URL.Path, "/api/repos/acme/fleet/commits/") && strings.HasSuffix(r.URL.Path, "/pulls"):
			_ = json.NewEncoder(w).Encode([]any{pull})
		case strings.HasPrefix(r.URL.Path, "/api/repos/acme/fleet/commits/") && strings.HasSuffix(r.URL.Path, "/pull"):
			_ = json.NewEncoder(w).Encode(pull)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
}

// story lends the fleet to a story.
func (cf *ciFleet) story(t *testing.T, name string, tell func(s *Story, cf *ciFleet)) {
	t.Helper()
	Run(t, name, func(s *Story) {
		lent := *cf
		lent.Fleet = cf.Fleet.For(s)
		lent.repo = cf.repo.For(lent.Fleet)
		tell(s, &lent)
	})
}

// commit makes version what all hosts are to run.
func (cf *ciFleet) commit(version string, more ...func(*System)) {
	cf.T.Helper()
	hosts := map[string]System{}
	for _, h := range cf.Hosts() {
		hosts[h.Name()] = cf.system(h.Name(), version, more...)
	}
	cf.repo.Commit(hosts)
}

// on is a pipeline of an event.
func (p Pipeline) on(event, ref string) Pipeline {
	p.Event, p.Ref = event, ref
	return p
}

// runs checks what hosts run, by their own word.
func (cf *ciFleet) runs(version string, hosts ...string) {
	cf.T.Helper()
	for _, name := range hosts {
		if st := cf.Host(name).State(); st.Hello != version {
			cf.T.Errorf("%s should run version %s: %+v", name, version, st)
		}
	}
}

// ends checks how a job ended and what it says.
func (cf *ciFleet) ends(out *Output, code int, says ...string) {
	cf.T.Helper()
	if out == nil {
		cf.T.Fatal("no job was started")
	}
	for _, word := range says {
		if !strings.Contains(out.Stdout+out.Stderr, word) {
			cf.T.Errorf("the job does not say %q", word)
		}
	}
	if out.Code != code || cf.T.Failed() {
		cf.T.Fatalf("the job should end with %d\n%v", code, *out)
	}
}

// TestCIFiles runs the files of docs/ci as their forges would, with secrets in the forge's store.
func TestCIFiles(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	cf := stored(t)
	cf.story(t, "GitHub: main builds, uploads, promotes, waits", gitHubMain)
	cf.story(t, "GitHub: a pull request goes to staging on its own cache, a fork's nowhere", gitHubPull)
	cf.story(t, "GitHub: a branch test-h1 is h1's until it reboots", gitHubTest)
	cf.story(t, "GitHub: an old job that runs again is refused", gitHubAgain)
	cf.story(t, "GitHub: the label boot", gitHubLabel)
	cf.story(t, "GitHub: hosts that go back fail the job, and the summary says which; back by hand", gitHubBack)
	cf.story(t, "GitHub: a tag deploys, another branch does nothing", gitHubTag)
	for name, run := range map[string]func(*Repository, Pipeline) *Output{
		"Forgejo": (*Repository).Forgejo, "GitLab": (*Repository).GitLab, "Buildkite": (*Repository).Buildkite,
	} {
		cf.story(t, name+": main, test-h2, pull requests, back", func(s *Story, cf *ciFleet) { otherForge(s, cf, name, run) })
	}
	cf.story(t, "a shell", func(s *Story, cf *ciFleet) {
		cf.commit("shell")
		cf.ends(cf.repo.Shell(cf.main()), 0, "completed")
		cf.runs("shell", "h1", "h2")
	})
}

func (cf *ciFleet) main() Pipeline { return cf.production.on("push", "refs/heads/main") }

func gitHubMain(s *Story, cf *ciFleet) {
	cf.commit("a")
	out := cf.repo.GitHub(cf.main())
	cf.ends(out, 0, "completed: seq 1 of production")
	s.Took("job", out.Took)
	cf.runs("a", "h1", "h2")
	for _, word := range []string{"### production: completed: seq 1", "h1", "h2", "ok"} {
		if !strings.Contains(out.Summary, word) {
			s.Errorf("the summary lacks %q:\n%s", word, out.Summary)
		}
	}
}

func gitHubPull(s *Story, cf *ciFleet) {
	cf.commit("pull")
	cf.ends(cf.repo.GitHub(cf.staging), 0, "completed: seq 1 of staging")
	cf.runs("pull", "h3")
	cf.runs("a", "h1", "h2")
	cf.commit("fork")
	fork := cf.staging
	fork.Secrets, fork.Fork = nil, true
	cf.ends(cf.repo.GitHub(fork), 0, "it was built, and nothing else")
	cf.runs("pull", "h3")
}

func gitHubTest(s *Story, cf *ciFleet) {
	cf.commit("try")
	cf.ends(cf.repo.GitHub(cf.production.on("push", "refs/heads/test-h1")), 0, "testing")
	cf.runs("try", "h1")
	cf.runs("a", "h2")
	if st := cf.Host("h1").State(); st.BootEntry == st.Current {
		s.Errorf("a test is what h1 boots: %+v", st)
	}
}

func gitHubAgain(s *Story, cf *ciFleet) {
	cf.commit("b")
	cf.ends(cf.repo.GitHub(cf.main()), 0)
	cf.commit("a")
	again := cf.main()
	again.Rerun = 1
	cf.ends(cf.repo.GitHub(again), 2, "an older job ran again")
	cf.runs("b", "h1", "h2")
}

func gitHubLabel(s *Story, cf *ciFleet) {
	cf.commit("boot")
	cf.labels.Store(&[]string{"dependencies", "boot"})
	cf.ends(cf.repo.GitHub(cf.main()), 0, "armed")
	cf.labels.Store(&[]string{})
	cf.runs("b", "h1", "h2")
	h := cf.Host("h1")
	h.Reboot()
	cf.runs("boot", "h1")
}

func gitHubBack(s *Story, cf *ciFleet) {
	cf.commit("bad", misbehave(Unhealthy))
	out := cf.repo.GitHub(cf.main())
	cf.ends(out, 3, "reverted")
	if !strings.Contains(out.Summary, "### production: reverted") || !strings.Contains(out.Summary, "h2") {
		s.Errorf("summary:\n%s", out.Summary)
	}
	back := cf.production.on("workflow_dispatch", "refs/heads/main")
	back.Inputs = map[string]string{"rollback-to": "1", "reason": "it's \"broken\" $(reboot)"}
	cf.ends(cf.repo.GitHub(back), 0, "completed")
	cf.runs("a", "h1", "h2")
	history := cf.CI().Must("narwharf", "channel", "history", "production", "--json")
	if !strings.Contains(history, `it's \"broken\" $(reboot)`) {
		s.Errorf("history lacks the reason:\n%s", history)
	}
}

func gitHubTag(s *Story, cf *ciFleet) {
	cf.commit("v1")
	cf.ends(cf.repo.GitHub(cf.production.on("push", "refs/tags/v1")), 0, "completed")
	cf.runs("v1", "h1", "h2")
	if out := cf.repo.GitHub(cf.production.on("push", "refs/heads/feature")); out != nil {
		s.Errorf("a branch started a job\n%v", *out)
	}
}

func otherForge(s *Story, cf *ciFleet, name string, run func(*Repository, Pipeline) *Output) {
	version := strings.ToLower(name)
	cf.commit(version)
	cf.ends(run(cf.repo, cf.main()), 0, "completed")
	cf.runs(version, "h1", "h2")
	cf.commit(version + "-pull")
	cf.ends(run(cf.repo, cf.staging), 0, "completed")
	cf.runs(version+"-pull", "h3")
	fork := cf.staging
	fork.Secrets, fork.Fork = nil, true
	cf.ends(run(cf.repo, fork), 0, "it was built, and nothing else")
	cf.commit(version + "-test")
	cf.ends(run(cf.repo, cf.production.on("push", "refs/heads/test-h2")), 0, "testing")
	cf.runs(version, "h1")
	cf.runs(version+"-test", "h2")
	back := cf.production.on("workflow_dispatch", "refs/heads/main")
	back.Inputs = map[string]string{"rollback-to": "last-good", "reason": "tried", "NARWHARF_TO": "last-good", "NARWHARF_REASON": "tried"}
	cf.ends(run(cf.repo, back), 0, "completed")
	if out := run(cf.repo, cf.production.on("push", "refs/heads/feature")); out != nil {
		s.Errorf("a branch started a job\n%v", *out)
	}
}
