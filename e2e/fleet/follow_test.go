package fleet

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// follower is a fleet whose hosts follow the channel "web".
type follower struct {
	*Fleet
	config string // agent.toml of every host
	agent  string // store path with the narwharf under test
}

// newFollower boots hosts that run the agent. Each of special is asked what is special about a host.
func newFollower(t *testing.T, hosts int, special ...func(name string, h *HostOptions)) *follower {
	t.Helper()
	return newFollowerOf(t, hosts, func(toml string) string { return toml }, special...)
}

// forgetful gives hosts a root of tmpfs.
func forgetful(names ...string) func(name string, h *HostOptions) {
	return func(name string, h *HostOptions) { h.TmpfsRoot = slices.Contains(names, name) }
}

// newFollowerOf is newFollower with an edited agent.toml.
func newFollowerOf(t *testing.T, hosts int, edit func(toml string) string, special ...func(name string, h *HostOptions)) *follower {
	t.Helper()
	return follow(t, hosts, edit, func(_ *Fleet, name string, h *HostOptions) {
		for _, change := range special {
			change(name, h)
		}
	})
}

// newFollowerWith is newFollower with hosts whose systems differ; prepare is called when server and
// CI are there, and fills the map of what does.
func newFollowerWith(t *testing.T, hosts int, prepare func(*Fleet), systems map[string]func(*System)) *follower {
	t.Helper()
	return follow(t, hosts, func(toml string) string { return toml }, func(f *Fleet, name string, h *HostOptions) {
		prepare(f)
		systems[name](h.System)
	})
}

func follow(t *testing.T, hosts int, edit func(toml string) string, special func(*Fleet, string, *HostOptions)) *follower {
	t.Helper()
	return followConfigured(t, hosts, nil, edit, special)
}

// followConfigured is follow with an edited config.toml of the server.
func followConfigured(t *testing.T, hosts int, config, edit func(toml string) string, special func(*Fleet, string, *HostOptions)) *follower {
	t.Helper()
	fw := new(follower)
	token := ""
	fw.Fleet = New(t, Options{
		Hosts:  hosts,
		Config: config,
		System: func(f *Fleet) System {
			if token == "" {
				token = f.Server().Token("hosts", "follow:web", "pull")
				f.CI().Token(f.Server().Token("ci-promotes", "push", "promote:*", "operate"))
				fw.agent = f.CI().Agent()
				fw.config = edit(agentConfig(f.CI().NewKey("deploy-1"), f.Key("ci-1")))
			}
			return System{Version: "0", Agent: fw.agent, AgentConfig: fw.config}
		},
		Host: func(f *Fleet, name string, h *HostOptions) {
			h.Files["var/lib/narwharf/token"] = token
			special(f, name, h)
		},
	})
	return fw
}

// story runs a story with the follower lent to it.
func (fw *follower) story(t *testing.T, name string, tell func(s *Story, fw *follower)) {
	t.Helper()
	Run(t, name, func(s *Story) {
		lent := *fw
		lent.Fleet = fw.Fleet.For(s)
		if roots := fw.Roots(); roots != "" {
			s.Note("%s", roots)
		}
		tell(s, &lent)
	})
}

func agentConfig(promoter, content string) string {
	return fmt.Sprintf(`server = ["http://cache"]
origin = "cache/web"
channel = "web"
token_file = "/var/lib/narwharf/token"
keys = [%q]
content_keys = [%q]
min_free = 1048576

[probation]
minimum = "1s"
settle = "2s"
confirm_timeout = "6s"
`, promoter, content)
}

// system builds a version of what all hosts run, and uploads it.
func (fw *follower) system(version string, more ...func(*System)) string {
	fw.T.Helper()
	s := System{Version: version, Agent: fw.agent, AgentConfig: fw.config}
	for _, m := range more {
		m(&s)
	}
	path := fw.CI().BuildSystem(s)
	fw.CI().Push(path)
	return path
}

func misbehave(m ...Misbehaviour) func(*System) {
	return func(s *System) { s.Misbehave = m }
}

// narwharf runs a promoter's command on CI.
func (fw *follower) narwharf(command string, args ...string) Output {
	fw.T.Helper()
	return fw.CI().Narwharf(append([]string{command, "--key", fw.CI().SecretKey("deploy-1"), "--wait-timeout", "90s", "--offline-after", "10s"}, args...)...)
}

// promote promotes and expects --wait to end with the exit code.
func (fw *follower) promote(code int, args ...string) Output {
	fw.T.Helper()
	out := fw.narwharf("promote", append(append([]string{"web"}, args...), "--wait")...)
	if out.Code != code {
		fw.T.Errorf("promote ends with %d, want %d\n%v", out.Code, code, out)
		for _, h := range fw.Hosts() {
			if h.On() {
				fw.T.Logf("%s: %+v\n%s", h.Name(), h.State(), tail(h.Journal("narwharf.service"), 30))
			}
		}
	}
	return out
}

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// reported is what the server says of the hosts.
func (fw *follower) reported() map[string]hostReport {
	fw.T.Helper()
	out := fw.CI().Narwharf("hosts", "web", "--json")
	var list []hostReport
	if err := json.Unmarshal([]byte(out.Stdout), &list); err != nil {
		fw.T.Fatalf("%v: %v", err, out)
	}
	by := make(map[string]hostReport)
	for _, h := range list {
		by[h.Host] = h
	}
	return by
}

// reboot boots hosts anew and waits until the server knows of it.
func (fw *follower) reboot(hosts ...string) {
	fw.T.Helper()
	fw.EachOf(hosts, func(h *Host) error {
		h.Reboot()
		boot := h.State().BootID
		Eventually(fw.T, time.Minute, h.Name()+" reports of its new boot", func() error {
			if r := fw.reported()[h.Name()]; r.Status.BootID != boot {
				return fmt.Errorf("%+v", r)
			}
			return nil
		})
		return nil
	})
}

type hostReport struct {
	Host      string
	Converged bool
	Online    bool
	Waiting   struct{ Kind, Detail string } `json:"waiting_for"`
	Status    struct {
		State, Current, Profile, Error string
		Seq                            int64
		BootID                         string `json:"boot_id"`
		Unconfirmed                    bool
	}
}

// run checks that hosts run, and will boot, a system, and that the server knows.
func (fw *follower) run(system, version, state string, hosts ...string) {
	fw.T.Helper()
	reported := fw.reported()
	if len(hosts) == 0 {
		for _, h := range fw.Hosts() {
			hosts = append(hosts, h.Name())
		}
	}
	for _, name := range hosts {
		st := fw.Host(name).State()
		if st.Current != system || st.Profile != system || st.BootEntry != system || st.Hello != version {
			fw.T.Errorf("%s should run version %s (%s): %+v", name, version, system, st)
		}
		if r := reported[name]; r.Status.State != state || r.Status.Current != system {
			fw.T.Errorf("the server says of %s: %+v, want %s", name, r, state)
		}
	}
}
