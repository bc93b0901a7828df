package fleet

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// A fault is a system that goes wrong and what is to be seen of it.
type fault struct {
	name   string
	system System
	action string // default "test"
	code   int
	says   string // in what switch-to-configuration writes
	limit  time.Duration
	keeps  bool // the old system goes on: nothing was switched
	check  func(t *testing.T, f *Fleet, h *Host, path string)
	after  func(t *testing.T, h *Host) // before the host goes back
}

func misbehaves(kinds ...Misbehaviour) System { return System{Misbehave: kinds} }

var faults = []fault{
	{name: "nothing", code: 0, says: "stopping the following units: hello.service"},
	{name: "activation fails", system: misbehaves(ActivationFails), code: 2, says: "Failed to run activate script"},
	{name: "unit fails", system: misbehaves(UnitFails), code: 4, says: "warning: the following units failed: broken.service",
		check: func(t *testing.T, _ *Fleet, h *Host, _ string) {
			if failed := h.State().Failed; !slices.Equal(failed, []string{"broken.service"}) {
				t.Errorf("failed units: %v", failed)
			}
		}},
	{name: "unit failed before", system: misbehaves(), code: 4, says: "ancient.service",
		// Debian's own unit, which no system brought: it fails again when multi-user.target is started.
		check: func(t *testing.T, _ *Fleet, h *Host, _ string) {
			if failed := h.State().Failed; !slices.Equal(failed, []string{"ancient.service"}) {
				t.Errorf("failed units: %v", failed)
			}
		},
		after: func(_ *testing.T, h *Host) {
			h.Sh("rm /etc/systemd/system/ancient.service /etc/systemd/system/multi-user.target.wants/ancient.service; systemctl daemon-reload; systemctl reset-failed")
		}},
	{name: "fails later", system: System{Misbehave: []Misbehaviour{FailsLater}, Seconds: 1}, code: 0,
		check: func(t *testing.T, _ *Fleet, h *Host, _ string) {
			Eventually(t, 5*time.Second, "later.service fails", func() error {
				if failed := h.State().Failed; !slices.Equal(failed, []string{"later.service"}) {
					return fmt.Errorf("failed units: %v", failed)
				}
				return nil
			})
		}},
	{name: "slow unit", system: System{Misbehave: []Misbehaviour{Slow}, Seconds: 2}, code: 0},
	{name: "slow activation", system: System{Misbehave: []Misbehaviour{SlowActivation}, Seconds: 2}, code: 0},
	{name: "hang", system: misbehaves(Hang), limit: 3 * time.Second, keeps: true,
		check: func(t *testing.T, _ *Fleet, h *Host, path string) {
			// The lock and the unit's name keep a second one away.
			if out := h.Switch(path, "test"); out.Code == 0 || !strings.Contains(out.Stderr, "already") {
				t.Errorf("%v", out)
			}
			if out := h.Exec(path+"/bin/switch-to-configuration", "test"); out.Code != 11 || !strings.Contains(out.Stderr, "Could not acquire lock") {
				t.Errorf("%v", out)
			}
		},
		after: func(_ *testing.T, h *Host) {
			h.Must("systemctl", "stop", "nixos-rebuild-switch-to-configuration.service")
		}},
	{name: "logind away", system: System{Misbehave: []Misbehaviour{LogindAway}, Seconds: 2}, code: 11, says: "Unable to list users with logind",
		check: func(t *testing.T, _ *Fleet, h *Host, path string) {
			if active := h.Exec("systemctl", "is-active", "hello.service").Line(); active == "active" {
				t.Errorf("hello.service is %s, and nobody started it", active)
			}
			Eventually(t, 20*time.Second, "logind is back", func() error {
				if out := h.Exec("systemctl", "is-active", "hidden-logind.timer"); out.Line() == "active" {
					return fmt.Errorf("%v", out)
				}
				return nil
			})
		}},
	{name: "dies", system: misbehaves(Dies), code: 255, keeps: true, check: func(t *testing.T, _ *Fleet, h *Host, path string) {
		if active := h.Exec("systemctl", "is-active", "hello.service").Line(); active == "active" {
			t.Errorf("hello.service is %s, and nobody started it", active)
		}
		// Run again it takes up what it meant to do.
		if out := h.Switch(path, "test"); out.Code != 0 || !strings.Contains(out.Stderr, "starting the following units: hello.service") {
			t.Errorf("%v", out)
		}
		if st := h.State(); st.Hello != "new" || st.Running != "running" {
			t.Errorf("%+v", st)
		}
	}},
	{name: "agent killed", system: misbehaves(KillAgent), code: 0, check: otherAgent},
	{name: "agent's unit changed", system: System{AgentService: "Environment=A=b\n"}, says: "NOT restarting the following changed units: narwharf.service",
		check: sameAgent},
	{name: "agent restarted", system: System{AgentService: "Environment=A=b\n", AgentRestart: true}, says: "stopping the following units: hello.service, narwharf.service",
		check: otherAgent},
	{name: "network down", system: misbehaves(NetworkDown), check: reaches("nobody", "nobody")},
	{name: "server cut off", system: misbehaves(NetworkRoute), check: reaches("nobody", "refused")},
	{name: "wrong address", system: misbehaves(NetworkSilent), check: reaches("nobody", "nobody")},
	{name: "unhealthy", system: misbehaves(Unhealthy), check: func(t *testing.T, f *Fleet, h *Host, _ string) {
		if out := h.Exec("/run/current-system/etc/narwharf/health.d/hello"); out.Code != 1 {
			t.Errorf("%v", out)
		}
		res, err := f.CI().HTTP().Get("http://" + h.Name() + ":8000/")
		if err != nil || res.StatusCode != 500 {
			t.Errorf("%v %v", res, err)
		}
	}},
	{name: "boot full", system: misbehaves(BootFull), action: "boot", code: 1, says: "Failed to install bootloader", keeps: true, check: oldEntry,
		// As long as the profile has that generation, nobody can write the boot loader at all.
		after: func(t *testing.T, h *Host) {
			if out := h.Switch("/run/current-system", "boot"); out.Code != 1 {
				t.Errorf("%v", out)
			}
			h.Sh(`cd /nix/var/nix/profiles; bad=$(readlink system); nix-env --profile $PWD/system --rollback; rm $bad`)
		}},
	{name: "boot not written", system: misbehaves(BootSilent), action: "boot", code: 0, keeps: true, check: oldEntry},
	{name: "pre-switch check", system: misbehaves(CheckFails), code: 1, says: "Pre-switch checks failed", keeps: true},
	{name: "pre-switch check alone", system: misbehaves(CheckFails), action: "check", code: 1, keeps: true},
	{name: "inhibited", system: System{Inhibitors: map[string]string{"dbus": "broker"}}, code: 1, says: "critical components", keeps: true},
	{name: "another inhibitor", system: System{Inhibitors: map[string]string{"kernel": "6.2"}}},
	{name: "init interface", system: misbehaves(InitInterface), action: "switch", code: 100, keeps: true, check: newEntry},
	{name: "another kernel", system: System{Kernel: "6.2"}, check: func(t *testing.T, _ *Fleet, h *Host, _ string) {
		if h.Exec("cmp", "-s", "/run/booted-system/kernel", "/run/current-system/kernel").Code == 0 ||
			h.Exec("cmp", "-s", "/run/booted-system/reboot-triggers", "/run/current-system/reboot-triggers").Code == 0 {
			t.Error("nothing shows that a reboot is needed")
		}
	}},
	{name: "dry", system: misbehaves(UnitFails), action: "dry-activate", says: "would start the following units: hello.service", keeps: true},
	{name: "no such action", action: "swich", code: 1, says: "Usage", keeps: true},
}

func sameAgent(t *testing.T, _ *Fleet, h *Host, _ string) {
	t.Helper()
	if st := h.State(); st.AgentPID != h.ReadFile("/run/agent-was") || st.Agent != "active" {
		t.Errorf("the agent was restarted: %+v", st)
	}
}

func otherAgent(t *testing.T, _ *Fleet, h *Host, _ string) {
	t.Helper()
	Eventually(t, 5*time.Second, "the agent runs again", func() error {
		if st := h.State(); st.AgentPID == h.ReadFile("/run/agent-was") || st.AgentPID == "0" || st.Agent != "active" {
			return fmt.Errorf("%s with process %s", st.Agent, st.AgentPID)
		}
		return nil
	})
}

func reaches(server, gateway string) func(*testing.T, *Fleet, *Host, string) {
	return func(t *testing.T, _ *Fleet, h *Host, _ string) {
		t.Helper()
		if s, g := h.Reach("cache:80"), h.Reach("gateway:80"); s != server || g != gateway {
			t.Errorf("server: %s, gateway: %s", s, g)
		}
	}
}

func oldEntry(t *testing.T, _ *Fleet, h *Host, path string) {
	t.Helper()
	if st := h.State(); st.BootEntry == path || st.Profile != path || st.BootEntry != st.Current {
		t.Errorf("%+v", st)
	}
}

func newEntry(t *testing.T, _ *Fleet, h *Host, path string) {
	t.Helper()
	if st := h.State(); st.BootEntry != path {
		t.Errorf("%+v", st)
	}
}

// TestMisbehaviours runs every fault on one of three hosts, and sees each host go back to its old
// system by that one's own script.
func TestMisbehaviours(t *testing.T) {
	onlyLong(t)
	base := System{Version: "old", Agent: AgentStub, Inhibitors: map[string]string{"dbus": "dbus"}}
	f := New(t, Options{System: func(*Fleet) System { return base }})
	old := f.Host("h1").State().Current
	systems := make([]System, len(faults))
	for i, fault := range faults {
		systems[i] = fault.system
		systems[i].Version, systems[i].Agent, systems[i].Name = "new", AgentStub, strings.Map(letters, fault.name)
	}
	begin := time.Now()
	paths := f.CI().BuildSystems(systems...)
	built := time.Since(begin)
	f.CI().Push(paths...)
	t.Logf("%d systems: built in %v, copied in %v", len(paths), built, time.Since(begin)-built)

	t.Run("hosts", func(t *testing.T) {
		for n, name := range f.names {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				for i := n; i < len(faults); i += len(f.names) {
					Run(t, faults[i].name, func(s *Story) { commit(s, f.For(s), faults[i], f.For(s).Host(name), old, paths[i]) })
				}
			})
		}
	})
}

func letters(r rune) rune {
	if r >= 'a' && r <= 'z' {
		return r
	}
	return '-'
}

// commit lets one fault happen on a host that runs old, and brings it back.
func commit(s *Story, f *Fleet, fault fault, h *Host, old, path string) {
	s.Helper()
	if fault.action == "" {
		fault.action = "test"
	}
	h.Must("nix-store", "--realise", path)
	if fault.name == "unit failed before" {
		h.WriteFile("/etc/systemd/system/ancient.service", "[Service]\nType=oneshot\nExecStart=/bin/false\n", 0o644)
		h.Sh("ln -s ../ancient.service /etc/systemd/system/multi-user.target.wants/; systemctl daemon-reload; systemctl start ancient.service || true")
	}
	h.WriteFile("/run/agent-was", h.State().AgentPID, 0o644)
	if fault.action == "switch" || fault.action == "boot" {
		h.SetProfile(path)
	}
	out := h.SwitchFor(fault.limit, path, fault.action)
	s.Took(fault.action, out.Took)
	switch {
	case fault.limit != 0:
		if !out.TimedOut {
			s.Errorf("it should not end: %v", out)
		}
	case out.Code != fault.code || !strings.Contains(out.Stderr, fault.says):
		s.Errorf("want exit code %d and %q: %v", fault.code, fault.says, out)
	}
	if current := h.State().Current; (current == old) != fault.keeps {
		s.Errorf("the current system is %s\n%v", current, out)
	}
	if fault.check != nil {
		fault.check(s.T, f, h, path)
	}
	if fault.after != nil {
		fault.after(s.T, h)
	}

	h.SetProfile(old)
	out = h.Switch(old, "switch")
	st := h.State()
	if out.Code != 0 || st.Current != old || st.BootEntry != old || st.Hello != "old" || st.Running != "running" || st.Agent != "active" {
		s.Errorf("the way back: %+v\n%v", st, out)
	}
	reaches("open", "refused")(s.T, f, h, path)
}
