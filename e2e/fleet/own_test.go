package fleet

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// ownHost is a machine that runs a server of its own and follows that one's channel "infra".
// The server is a unit of its system, so that a switch may restart it.
type ownHost struct {
	*follower
	name string
	keep string // the folder of server and token
}

const ownServer = `[Unit]
After=network.service

[Service]
Type=notify
ExecStart=%s serve --config %s/server/config.toml
Environment=VERSION=%s
Restart=always
RestartSec=1
`

// newOwnHosts are h1, with its root on a disk, and h2, with one of tmpfs. Neither knows of the other.
func newOwnHosts(t *testing.T) []*ownHost {
	t.Helper()
	one := &ownHost{follower: new(follower), name: "h1", keep: "/var/lib"}
	two := &ownHost{follower: new(follower), name: "h2", keep: "/nix/persist"}
	all := []*ownHost{one, two}
	key := ""
	f := New(t, Options{Hosts: 2, Host: func(f *Fleet, name string, h *HostOptions) {
		forgetful("h2")(name, h)
		if key == "" {
			key = f.CI().NewKey("deploy-1")
		}
		for _, o := range all {
			if o.name == name {
				o.agent = f.CI().Agent()
				o.config = strings.NewReplacer("http://cache", "http://"+name+":8080", "cache/web", name+"/infra", `"web"`, `"infra"`, "/var/lib/narwharf/token", o.keep+"/narwharf.token").
					Replace(agentConfig(key, f.Key("ci-1"))) +
					// What the gateway cannot witness: that the server itself is well.
					"\n[[check]]\nname = \"server\"\nhttp = \"http://" + name + ":8080/readyz\"\n"
				*h.System = System{Version: "0", Agent: o.agent, AgentConfig: o.config, Units: o.unit("0", "")}
			}
		}
	}})
	for _, o := range all {
		o.Fleet = f
		h := o.Host(o.name)
		h.Must("narwharf", "init", o.keep+"/server", "--listen", "0.0.0.0:8080", "--key-name", "own-1")
		h.Must("systemctl", "restart", "narwharf-server.service")
		token := func(name, scopes string) string {
			return h.Must("narwharf", "token", "new", "--config", o.keep+"/server/config.toml", "--name", name, "--scope", scopes)
		}
		h.WriteFile(o.keep+"/narwharf.token", token(o.name, "follow:infra,pull")+"\n", 0o600)
		h.Must("systemctl", "restart", "narwharf.service")
		ci := token("ci", "push,promote:infra")
		o.CI().WriteFile("/root/"+o.name+".token", ci+"\n", 0o600)
		o.CI().WriteFile("/root/"+o.name+".netrc", "machine "+o.name+"\nlogin ci\npassword "+ci+"\n", 0o600)
	}
	return all
}

// unit is the server's unit in a version; another program than narwharf breaks it.
func (o *ownHost) unit(version, program string) map[string]string {
	if program == "" {
		program = o.agent + "/bin/narwharf"
	}
	return map[string]string{"narwharf-server.service": fmt.Sprintf(ownServer, program, o.keep, version)}
}

// build makes a version and uploads it to the host's own server.
func (o *ownHost) build(version, program string, more ...func(*System)) string {
	o.T.Helper()
	s := System{Version: version, Agent: o.agent, AgentConfig: o.config, Units: o.unit(version, program)}
	for _, m := range more {
		m(&s)
	}
	path := o.CI().BuildSystem(s)
	o.CI().Must("nix", "copy", "--netrc-file", "/root/"+o.name+".netrc", "--to", "http://"+o.name+":8080?compression=zstd", path)
	return path
}

func (o *ownHost) promote(code int, path string) {
	o.T.Helper()
	out := o.narwharf("promote", "infra", path, "--wait", "--wait-timeout", "90s")
	if out.Code != code {
		h := o.Host(o.name)
		o.T.Errorf("promote ends with %d, want %d\n%v\n%+v\n%s", out.Code, code, out, h.State(), tail(h.Journal("narwharf.service"), 30))
	}
}

// narwharf is a promoter's command to the host's own server.
func (o *ownHost) narwharf(args ...string) Output {
	o.T.Helper()
	return o.CI().Narwharf(append(args, "--server", "http://"+o.name+":8080", "--token-file", "/root/"+o.name+".token", "--key", o.CI().SecretKey("deploy-1"))...)
}

// run checks what the host runs and boots, and that its server, of that version, serves.
func (o *ownHost) run(path, version string) {
	o.T.Helper()
	h := o.Host(o.name)
	if st := h.State(); st.Current != path || st.Profile != path || st.BootEntry != path || st.Hello != version || len(st.Failed) != 0 {
		o.T.Errorf("%s should run version %s (%s): %+v", o.name, version, path, st)
	}
	pid := h.Must("systemctl", "show", "narwharf-server.service", "--property=MainPID", "--value")
	if env := h.Sh(`tr '\0' '\n' < "/proc/$1/environ"`, pid); !strings.Contains(env, "VERSION="+version) {
		o.T.Errorf("the server is not of version %s:\n%s", version, env)
	}
	Eventually(o.T, 20*time.Second, "the server is ready", func() error {
		if out := h.Exec("curl", "-fsS", "http://"+o.name+":8080/readyz"); out.Code != 0 {
			return fmt.Errorf("%v", out)
		}
		return nil
	})
}

// TestOwnHost is the machine that runs the server and follows its own channel, with either kind of root.
func TestOwnHost(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	var both sync.WaitGroup
	defer both.Wait()
	for _, o := range newOwnHosts(t) {
		both.Go(func() { t.Run(o.name, func(t *testing.T) { ownStories(t, o) }) })
	}
}

func ownStories(t *testing.T, o *ownHost) {
	story := func(name string, tell func(s *Story, o *ownHost)) {
		o.story(t, name, func(s *Story, fw *follower) {
			s.Note("this is %s", o.name)
			tell(s, &ownHost{follower: fw, name: o.name, keep: o.keep})
		})
	}
	var good string
	story("16: the server's host follows its own channel", func(s *Story, o *ownHost) {
		for _, version := range []string{"own-1", "own-2"} {
			good = o.build(version, "")
			begin := time.Now()
			o.promote(0, good)
			s.Took("promote to confirmed, the server restarted in it", time.Since(begin))
			o.run(good, version)
		}
	})
	for _, c := range []struct{ name, program string }{
		{"does not start", "/bin/false"},
		{"starts and does not serve", "/fleet-mute"},
	} {
		story("16: a server that "+c.name, func(s *Story, o *ownHost) {
			h := o.Host(o.name)
			h.WriteFile("/fleet-mute", "#!/bin/sh\nsystemd-notify --ready\nexec sleep infinity\n", 0o755)
			begin := time.Now()
			o.promote(3, o.build(strings.Map(letters, c.name), c.program))
			s.Took("promote to reverted, and told", time.Since(begin))
			o.run(good, "own-2")
		})
	}
	story("16: power cut while it commits", func(s *Story, o *ownHost) {
		h := o.Host(o.name)
		path := o.build("own-3", "")
		j, err := h.agentJournal()
		if err != nil {
			s.Fatal(err)
		}
		seq := j.Seq + 1
		if out := o.narwharf("promote", "infra", path); out.Code != 0 {
			s.Fatalf("%v", out)
		}
		if _, err := h.await(time.Minute, seq, "committing", "ok"); err != nil {
			s.Fatal(err)
		}
		h.PowerCut()
		h.Boot()
		if j, err = h.await(time.Minute, seq, "ok", "armed"); err != nil {
			s.Fatalf("%v\n%s", err, tail(h.Journal("narwharf.service"), 30))
		}
		s.Note("%s", j.State)
		if j.State == "armed" {
			h.Reboot()
		}
		Eventually(s, time.Minute, "it runs what was promoted", func() error {
			if j, err := h.agentJournal(); err != nil || j.State != "ok" {
				return fmt.Errorf("%+v %w", j, err)
			}
			return nil
		})
		o.run(path, "own-3")
	})
}
