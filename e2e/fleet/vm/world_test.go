package vm_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"narwharf/e2e/fleet"
	"narwharf/e2e/fleet/vm"
)

// A world is a fleet whose host is a virtual machine that follows the channel "web".
type world struct {
	*fleet.Fleet
	h      *vm.Host
	agent  string // store path with the narwharf under test
	config string // agent.toml
	kernel string // of its systems
	now    string // what runs and boots between two stories
}

// newWorld boots it with version 0, nothing promoted, and an agent.toml that edits have changed. It joined by itself: its
// token is in the agent's folder, below /nix.
func newWorld(t *testing.T, edits ...func(toml string) string) *world {
	t.Helper()
	w := &world{kernel: "6.1"}
	token := ""
	prepare := func(f *fleet.Fleet) {
		if token != "" {
			return
		}
		token = f.Server().Must("narwharf", "token", "new", "--config", "/srv/narwharf/config.toml", "--join", "web", "--host", "h1")
		f.CI().Token(f.Server().Token("ci-promotes", "push", "promote:*", "operate"))
		w.agent = f.CI().Agent()
		w.config = agentConfig(f.CI().NewKey("deploy-1"), f.Key("ci-1"))
		for _, edit := range edits {
			w.config = edit(w.config)
		}
	}
	t.Cleanup(func() { w.gone(t) }) // after the fleet's
	w.Fleet, w.h = vm.New(t, fleet.Options{
		System: func(f *fleet.Fleet) fleet.System {
			prepare(f)
			return w.make("0")
		},
		Host: func(f *fleet.Fleet, _ string, o *fleet.HostOptions) {
			prepare(f)
			o.Files["var/lib/narwharf/join-token"] = token + "\n"
			// Nix's programs, with a hold point behind a download.
			o.Files["usr/local/lib/fleet/bin/nix-store!"] = "#!/bin/bash\n/usr/bin/nix-store \"$@\"\ncode=$?\n" +
				"case \" $* \" in *' --realise '*) /usr/local/lib/fleet/hold realised ;; esac\nexit $code\n"
		},
	})
	w.h.Boot()
	w.now = w.h.State().Current
	return w
}

// gone tells that no process of the machine is left, and no file.
func (w *world) gone(t *testing.T) {
	t.Helper()
	if w.h == nil {
		return
	}
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil || len(all) == 0 {
		t.Fatalf("processes: %v", err)
	}
	for _, name := range all {
		if text, err := os.ReadFile(name); err == nil && strings.Contains(string(text), w.h.Dir()) {
			t.Errorf("left: %s", strings.ReplaceAll(string(text), "\x00", " "))
		}
	}
	if _, err := os.Stat(w.h.Dir()); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", w.h.Dir(), err)
	}
}

// agentConfig has the patience that an emulated machine needs.
func agentConfig(promoter, content string) string {
	return fmt.Sprintf(`server = ["http://cache"]
origin = "cache/web"
channel = "web"
join_token_file = "/var/lib/narwharf/join-token"
keys = [%q]
content_keys = [%q]
min_free = 1048576

[probation]
minimum = "1s"
settle = "10s"
confirm_timeout = "60s"

[reboot]
allow = "never"
`, promoter, content)
}

// make is a version of the host's system.
func (w *world) make(version string, more ...func(*fleet.System)) fleet.System {
	s := fleet.System{
		Version: version, Kernel: w.kernel, Agent: w.agent, AgentConfig: w.config,
		AgentService: "Environment=PATH=/usr/local/lib/fleet/bin:/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin\n",
		// Hold points in the activation script, but not at boot, and in the probation.
		Snippet: `[ -z "${NIXOS_ACTION:-}" ] || /usr/local/lib/fleet/hold activating`,
		Health:  map[string]string{"hold": "#!/bin/sh\nexec /usr/local/lib/fleet/hold probation\n"},
		Units: map[string]string{"end.service": "[Unit]\nDescription=A hold point of the shutdown\n\n" +
			"[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\nExecStop=/usr/local/lib/fleet/hold end\n"},
	}
	for _, m := range more {
		m(&s)
	}
	return s
}

// system builds a version and uploads it.
func (w *world) system(version string, more ...func(*fleet.System)) string {
	w.T.Helper()
	path := w.CI().BuildSystem(w.make(version, more...))
	w.CI().Push(path)
	return path
}

func kernel(version string) func(*fleet.System) {
	return func(s *fleet.System) { s.Kernel = version }
}

// story tells a story on the world.
func (w *world) story(t *testing.T, name string, tell func(s *fleet.Story, w *world)) {
	fleet.Run(t, "vm: "+name, func(s *fleet.Story) {
		lent := *w
		lent.Fleet, lent.h = w.For(s), w.h.For(s)
		tell(s, &lent)
		w.now, w.kernel, w.config = lent.now, lent.kernel, lent.config
	})
}

// promote promotes, expects --wait to end with the code, and returns the seq.
func (w *world) promote(code int, args ...string) int64 {
	w.T.Helper()
	out := w.narwharf(append(args, "--wait", "--wait-timeout", "9m", "--offline-after", "5m")...)
	if out.Code != code {
		w.T.Errorf("promote ends with %d, want %d\n%v", out.Code, code, out)
		if w.h.On() {
			w.T.Logf("%+v\n%s", w.h.State(), w.h.Journal("narwharf.service"))
		}
	}
	return w.seq()
}

// send promotes and waits for nothing.
func (w *world) send(args ...string) int64 {
	w.T.Helper()
	if out := w.narwharf(args...); out.Code != 0 {
		w.T.Fatalf("%v", out)
	}
	return w.seq()
}

func (w *world) narwharf(args ...string) fleet.Output {
	w.T.Helper()
	return w.CI().ExecFor(10*time.Minute, append([]string{"narwharf", "promote", "--key", w.CI().SecretKey("deploy-1"), "web"}, args...)...)
}

func (w *world) seq() int64 {
	w.T.Helper()
	var c struct{ Seq int64 }
	out := w.CI().Narwharf("channel", "show", "web", "--json")
	if err := json.Unmarshal([]byte(out.Stdout), &c); err != nil || c.Seq == 0 {
		w.T.Fatalf("%v: %v", err, out)
	}
	return c.Seq
}

// A report is what the server says of the host.
type report struct {
	Converged bool
	Slot      *struct{ Seq int64 }
	Status    struct {
		State, Current, Profile, Error string
		Seq                            int64
		BootID                         string   `json:"boot_id"`
		NeedReboot                     bool     `json:"need_reboot"`
		NeedRebootFor                  []string `json:"need_reboot_for"`
	}
}

func (w *world) reported() report {
	w.T.Helper()
	out := w.CI().Narwharf("hosts", "web", "--json")
	var list []report
	if err := json.Unmarshal([]byte(out.Stdout), &list); err != nil || len(list) > 1 {
		w.T.Fatalf("%v: %v", err, out)
	}
	if len(list) == 0 {
		return report{}
	}
	return list[0]
}

// becomes waits until the server says that the host is in one of some states with a release.
func (w *world) becomes(seq int64, states ...string) report {
	w.T.Helper()
	for end := time.Now().Add(5 * time.Minute); ; time.Sleep(500 * time.Millisecond) { // each look starts a program
		r := w.reported()
		if r.Status.Seq == seq && slices.Contains(states, r.Status.State) {
			return r
		}
		if time.Now().After(end) {
			w.T.Fatalf("the host does not become %s of seq %d: %+v", strings.Join(states, " or "), seq, r)
		}
	}
}

// is compares what the host runs, will boot, and says, with the truth: current is the running
// system, boots what profile and boot entry name.
func (w *world) is(seq int64, state, current, boots string) report {
	w.T.Helper()
	r := w.becomes(seq, state)
	st := w.state()
	if st.Current != current || st.Profile != boots || st.BootEntry != boots {
		w.T.Errorf("the host is %s: %+v; it should run %s and boot %s", state, st, current, boots)
	}
	if r.Status.Current != st.Current || r.Status.Profile != st.Profile || r.Status.BootID != st.BootID {
		w.T.Errorf("the server says %+v; in truth %+v", r, st)
	}
	if version := w.h.Must("cat", current+"/nixos-version"); st.Hello != version {
		w.T.Errorf("hello is of version %q, the system of %q", st.Hello, version)
	}
	w.files()
	return r
}

// state is the host's, also where the default entry is a pattern and its name has a counter.
func (w *world) state() fleet.State {
	w.T.Helper()
	st := w.h.State()
	if st.BootEntry == "" {
		st.BootEntry = w.h.Sh(`cd /boot/loader/entries; ls -v $(sed -n 's/^default //p' ../loader.conf) | tail -n 1 | xargs sed -n 's#^options .*init=\([^ ]*\)/init .*#\1#p'`)
	}
	return st
}

// files are whole: what the host runs and boots has the bytes that Nix knows, and what the boot
// entry names is on the EFI system partition as it is in the store.
func (w *world) files() {
	w.T.Helper()
	const check = `
system=$(readlink -f /nix/var/nix/profiles/system)
nix-store --query --requisites "$system" /run/current-system | xargs nix-store --verify-path
entry=$(ls -v /boot/loader/entries/$(sed -n 's/^default //p' /boot/loader/loader.conf) | tail -n 1) # a pattern, with tries
for file in kernel initrd; do
  key=$file
  [ $file = initrd ] || key=linux
  cmp "/boot$(sed -n "s/^$key //p" "$entry")" "$system/$file"
done`
	if out := w.h.Exec("/bin/bash", "-euc", check); out.Code != 0 {
		w.T.Errorf("not half of it: %v", out)
	}
}
