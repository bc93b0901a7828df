package fleet

import (
	"encoding/json"
	"fmt"
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

// newFollower boots hosts that run the agent, confirmed by the server.
func newFollower(t *testing.T, hosts int) *follower {
	t.Helper()
	fw := new(follower)
	token := ""
	prepare := func(f *Fleet) {
		if token != "" {
			return
		}
		token = f.Server().Token("hosts", "follow:web", "pull")
		f.CI().Token(f.Server().Token("ci-promotes", "push", "promote:*", "operate"))
		fw.agent = f.CI().Agent()
		fw.config = agentConfig(f.CI().NewKey("deploy-1"), f.Key("ci-1"))
	}
	fw.Fleet = New(t, Options{
		Hosts: hosts,
		System: func(f *Fleet) System {
			prepare(f)
			return System{Version: "0", Agent: fw.agent, AgentConfig: fw.config}
		},
		Host: func(f *Fleet, _ string, h *HostOptions) {
			prepare(f)
			if h.Files == nil {
				h.Files = make(map[string]string)
			}
			h.Files["var/lib/narwharf/token"] = token
		},
	})
	return fw
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

type hostReport struct {
	Host      string
	Converged bool
	Status    struct {
		State, Current, Profile, Error string
		Seq                            int64
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

// TestDeploy is the main job: promote a channel, and real hosts run it seconds
// later; what breaks goes back by itself, and everybody is told the truth. With
// -short (`make e2e-smoke`) there are two hosts, of which the second has the
// newer Nix, and the stories without which nothing else makes sense.
func TestDeploy(t *testing.T) {
	hosts := 3
	breaks := []Misbehaviour{UnitFails, ActivationFails, Unhealthy, NetworkDown, NetworkSilent, CheckFails}
	if testing.Short() {
		hosts = 2
		breaks = []Misbehaviour{ActivationFails, Unhealthy, NetworkDown}
	}
	fw := newFollower(t, hosts)
	story := func(name string, tell func(s *Story, fw *follower)) {
		Run(t, name, func(s *Story) {
			lent := *fw
			lent.Fleet = fw.Fleet.For(s)
			tell(s, &lent)
		})
	}
	var a, b string
	story("4: promote, every host runs it", func(s *Story, fw *follower) {
		a = fw.system("a")
		begin := time.Now()
		out := fw.promote(0, a)
		s.Took("promote to last confirmed", time.Since(begin))
		for _, h := range fw.Hosts() {
			if !strings.Contains(out.Stdout, h.Name()) {
				s.Errorf("--wait does not tell of %s:\n%v", h.Name(), out)
			}
		}
		fw.run(a, "a", "ok")
	})
	story("the same again changes nothing", func(s *Story, fw *follower) {
		if out := fw.promote(0, a); !strings.Contains(out.Stdout, "seq 2") {
			s.Errorf("%v", out)
		}
		fw.run(a, "a", "ok")
	})
	story("10: A, B, A by rollback", func(s *Story, fw *follower) {
		b = fw.system("b")
		begin := time.Now()
		fw.promote(0, b)
		s.Took("promote to last confirmed", time.Since(begin))
		fw.run(b, "b", "ok")
		if out := fw.narwharf("rollback", "web", "--wait"); out.Code != 0 {
			s.Errorf("%v", out)
		}
		fw.run(a, "a", "ok")
	})
	for _, m := range breaks {
		story("6: goes back by itself: "+string(m), func(s *Story, fw *follower) {
			bad := fw.system("bad-"+string(m), misbehave(m))
			begin := time.Now()
			fw.promote(3, bad)
			s.Took("promote to last reverted", time.Since(begin))
			fw.run(a, "a", "reverted")
		})
	}
	if testing.Short() {
		return
	}
	story("and the next good one goes out", func(s *Story, fw *follower) {
		b = fw.system("b2")
		fw.promote(0, b)
		fw.run(b, "b2", "ok")
	})
	story("a host that was off for three seqs", func(s *Story, fw *follower) {
		fw.Host("h2").PowerOff()
		var last string
		for _, v := range []string{"c1", "c2", "c3"} {
			last = fw.system(v)
			fw.promote(0, last)
		}
		fw.run(last, "c3", "ok", "h1", "h3")
		begin := time.Now()
		fw.Host("h2").Boot()
		Eventually(s, 90*time.Second, "h2 catches up", func() error {
			if r := fw.reported()["h2"]; !r.Converged {
				return fmt.Errorf("h2 is %+v", r)
			}
			return nil
		})
		s.Took("boot to confirmed", time.Since(begin))
		fw.run(last, "c3", "ok")
		a = last
	})
	story("test, then reboot: back on the old system", func(s *Story, fw *follower) {
		path := fw.system("tested")
		fw.promote(0, path, "--action", "test")
		for _, h := range fw.Hosts() {
			if st := h.State(); st.Current != path || st.Profile != a || st.BootEntry != a || st.Hello != "tested" {
				s.Errorf("%s: %+v", h.Name(), st)
			}
		}
		fw.Host("h1").Reboot()
		Eventually(s, time.Minute, "h1 says that its test is over", func() error {
			if r := fw.reported()["h1"]; r.Status.State != "test_over" || r.Status.Current != a {
				return fmt.Errorf("h1 is %+v", r)
			}
			return nil
		})
		if st := fw.Host("h1").State(); st.Current != a || st.Hello != "c3" {
			s.Errorf("after the reboot: %+v", st)
		}
	})
}
